"""`python -m maft.report`: one page about a run."""
