"""How tests are dealt to workers."""

import pytest


@pytest.mark.parametrize("number", range(8))
def test_a_group_has_one_worker(number: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Else the tests of one cluster would run beside each other. Of these, every second would be the other worker's."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("no groups are asked for")
    session, worker = request.config.workerinput["testrunuid"], request.config.workerinput["workerid"]
    with (tmp_path_factory.getbasetemp().parent / f"groups-{session}").open("a+") as note:
        note.write(f"{worker}\n")
        note.seek(0)
        assert set(note.read().split()) == {worker}
