"""Decisions: a run as a graph of tasks and servers, the next step from what is observed. Pure."""
