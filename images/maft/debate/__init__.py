"""`python -m maft.debate`: the debate over the training questions, and the datasets made of it."""
