"""What a line of the log is about, for collectors: with --log-format=json each becomes a key beside the message. Pure."""

from maft_operator.spec.schema import Json


def about(key: str, reason: str = "", **more: str) -> Json:
    """Names namespace and run, and what else there is to find a line by. key: NAMESPACE/NAME."""
    namespace, _, run = key.partition("/")
    return {"namespace": namespace, "run": run, **({"reason": reason} if reason else {}), **more}
