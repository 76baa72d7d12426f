"""A short form of `make chaos`: disturbed at random, beside each other, runs end as the undisturbed one does."""

import disturbances
import disturbed
import pytest
from products import made_here

# The operator killed in each phase: test_lifecycle.py; a program anywhere: test_run.py; pods evicted: test_why.py.
pytestmark = [pytest.mark.cluster, pytest.mark.nightly, pytest.mark.timeout(1800)]


def test_runs_that_are_disturbed_end_as_if_nothing_had_been(maft, tmp_path):
    expected = made_here(maft, tmp_path, disturbed.NAME, **disturbed.SPEC)
    beside_other_tests = disturbances.OWN
    outcomes = disturbed.run_all(maft, seed=1, runs=3, engine="mock", expected=expected, at_once=3, among=beside_other_tests)
    assert [outcome for outcome in outcomes if not outcome.right] == []
    assert sum(len(outcome.disturbances) for outcome in outcomes) >= 3
