"""`python -m maft.diversity`: how far the agents are from each other."""
