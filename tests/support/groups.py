"""Groups of tests for two workers (`--dist loadgroup --no-loadscope-reorder`), by markers, and the order in which they begin.

Tests share a vLLM server, or an operator on the cluster that some of them kill and replace; else each file is a group. The runs
with vLLM pods go beside the tests that kill the operator: for them nothing is to change.
"""

from collections.abc import Iterator

import pytest
from _pytest.nodeid import NodeId


def group(item: pytest.Item) -> str:
    if item.get_closest_marker("engine"):
        return "engine"
    return "cluster" if "maft" in getattr(item, "fixturenames", ()) else item.path.name


def place(item: pytest.Item) -> tuple[bool, ...]:
    """For sorting; False comes first. The groups that last longest begin; a group ends with the tests about what its others did."""
    marked = {mark.name for mark in item.iter_markers()}
    return (
        group(item) != "cluster",
        "engine" not in marked,
        "cluster" not in marked,  # the runs with vLLM pods, before the operator is replaced beside them
        "run" not in marked,
        "models" not in marked,
        "afterwards" in marked,
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=place)


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session) -> Iterator[None]:
    """xdist reads a test's group behind its name. It has a marker for that, but pytest 9.2 no longer takes names from where it puts
    them: so they are changed while it looks."""
    names = {item: item._id for item in session.items} if session.config.getoption("loadgroup", False) else {}
    for item in names:
        path, *rest = f"{item.nodeid}@{group(item)}".split("::")
        item._id = NodeId(path=path, names=tuple(rest))
    yield
    for item, name in names.items():
        item._id = name
