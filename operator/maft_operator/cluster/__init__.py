"""`maft operator`: tasks and servers as objects of a Kubernetes cluster."""
