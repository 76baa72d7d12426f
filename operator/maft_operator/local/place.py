"""RUN, as the commands about a run take it: a run's store and its name in one text."""

from dataclasses import dataclass

from maft_operator.spec.schema import BadSpec

HELP = "folder or URL of the run: its store, then NAMESPACE/NAME"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run lies."""

    store: str
    namespace: str
    name: str
    url: str
    """Of the run itself, without options."""

    @property
    def key(self) -> str:
        """Returns NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


def parse(text: str) -> Place:
    """Reads STORE/NAMESPACE/NAME; BadSpec where a part is missing."""
    url, _, options = text.rstrip("/").partition("?")
    parts = url.rstrip("/").rsplit("/", 2)
    if len(parts) < 3 or not all(parts[1:]):
        raise BadSpec(f"RUN {text}: expected STORE/NAMESPACE/NAME, such as runs/default/arithmetic")
    return Place((parts[0] or "/") + (f"?{options}" if options else ""), parts[1], parts[2], url.rstrip("/"))
