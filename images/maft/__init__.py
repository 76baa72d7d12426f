"""Multiagent finetuning (arXiv 2501.05707) as programs: objects in, objects out, one JSON summary each.

Runs without Kubernetes and imports nothing of `maft_operator`, which starts these programs by their command lines.
"""

__version__ = "0.2.0"

TYPE_CHECKING = False  # as type checkers take it; importing typing would cost every program its time
if TYPE_CHECKING:
    from maft_client import Client as Client
else:

    def __getattr__(name):  # noqa: ANN001, ANN202 - what programs do without is imported when it is asked for
        if name == "Client":
            from maft_client import Client

            return Client
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
