"""The live page: runs of a cluster in a browser, read only. `python -m maft_operator.page`, also as `kubectl maft page`."""
