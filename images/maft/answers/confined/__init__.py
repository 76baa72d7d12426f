"""Runs one program of a model in a process that reaches nothing: `lockdown` closes its doors, `values` writes what it gives."""
