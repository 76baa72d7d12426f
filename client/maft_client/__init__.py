"""Runs of maft from Python: submitted, waited for and read, on this machine and on a cluster alike. Also `maft.Client`.

Thin: a run of this machine is a process of `maft run`, one of a cluster a resource; what they have made is read as it lies there.
"""

from maft_client.client import Client
from maft_client.results import Event, MaftError, NoSuchRun, Refused, Results, RunFailed, Score, Status, Unreachable

__all__ = ["Client", "Event", "MaftError", "NoSuchRun", "Refused", "Results", "RunFailed", "Score", "Status", "Unreachable"]
