"""Decisions: a run as a graph of tasks and servers, the next step in an observed world. Pure."""
