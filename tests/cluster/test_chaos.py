"""A short form of `make chaos`: disturbed at random, beside each other, runs end as the undisturbed one does."""

import disturbances
import disturbed
import pytest
from products import made_here

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def test_runs_that_are_disturbed_end_as_if_nothing_had_been(maft, tmp_path):
    expected = made_here(maft, tmp_path, disturbed.NAME, **disturbed.SPEC)
    beside_other_tests = disturbances.OWN
    outcomes = disturbed.run_all(maft, seed=1, runs=2, engine="mock", expected=expected, at_once=2, among=beside_other_tests)
    assert [outcome for outcome in outcomes if not outcome.right] == []
    assert sum(len(outcome.disturbances) for outcome in outcomes) >= 2
