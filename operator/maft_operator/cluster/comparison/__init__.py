"""A MultiAgentComparison on a cluster: its runs, the Job of its table, its status."""
