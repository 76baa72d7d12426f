"""How tests are dealt to workers."""

import pytest


def test_groups_hold(request: pytest.FixtureRequest) -> None:
    """xdist finds the group in a test's name; without it, the tests of one cluster would run beside each other."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("no groups are asked for")
    assert request.node.nodeid.endswith(f"@{request.path.name}")
