"""`python -m maft.compare`: the table over many methods and seeds."""
