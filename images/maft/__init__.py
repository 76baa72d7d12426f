"""Multiagent finetuning (arXiv 2501.05707) as programs: objects in, objects out, one JSON summary each.

Runs without Kubernetes and imports nothing of `maft_operator`, which starts these programs by their command lines.
"""

__version__ = "0.2.0"
