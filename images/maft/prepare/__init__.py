"""`python -m maft.prepare`: the questions, and checks before anything expensive."""
