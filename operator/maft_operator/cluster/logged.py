"""What a line of the log is about, for collectors: with --log-format=json each becomes a key beside the message. Pure."""

from maft_operator.cluster import kinds
from maft_operator.spec.schema import Json


def about(key: str, reason: str = "", **more: str) -> Json:
    """Names namespace and run, or what else it is, and what else there is to find a line by. key: as kinds.py has it."""
    kind, namespace, name = kinds.addressed(key)
    return {
        "namespace": namespace,
        "run" if kind == kinds.RUN else kind.name.lower(): name,
        **({"reason": reason} if reason else {}),
        **more,
    }
