"""The control plane of maft: from a MultiAgentFinetune resource to tasks and servers, on a cluster or on this machine.

No torch, no vLLM, no access to the object store; the programs of `maft` are started by their command lines.
"""

__version__ = "0.2.0"
