"""`kubectl maft`: runs of a cluster for whoever works in a terminal, with their own rights. Called by kubectl as `kubectl-maft`."""
