"""How many requests a society answers at a time: in all, and for each API key."""

from contextlib import ExitStack

import pytest

from maft.endpoint.admission import Admission
from maft.endpoint.measured import Measured
from maft.endpoint.refused import Refused
from maft.society_spec import SocietySpec


@pytest.fixture
def admission() -> Admission:
    made = Admission(SocietySpec(max_concurrent_debates=3, max_concurrent_per_key=1), Measured())
    made.set_ready()
    return made


@pytest.mark.parametrize(("keys", "field"), [(["a", "a"], "maxConcurrentPerKey"), (["a", "b", "c", "d"], "maxConcurrentDebates")])
def test_one_beyond_the_limit_is_refused_and_a_place_that_was_left_is_free(admission, keys, field) -> None:
    *first, last = keys
    with ExitStack() as held:
        for key in first:
            held.enter_context(admission.admitted(key))
        with pytest.raises(Refused, match=field) as refused, admission.admitted(last):
            pass
        assert refused.value.status == 429
    with admission.admitted(last):
        pass


def test_where_no_keys_are_asked_for_nobody_shares_the_limit_of_one(admission) -> None:
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(admission.admitted(""))
        with pytest.raises(Refused, match="maxConcurrentDebates"), admission.admitted(""):
            pass


def test_a_place_is_free_again_after_a_failure(admission) -> None:
    for _ in range(5):
        with pytest.raises(ValueError, match="late"), admission.admitted("a"):
            raise ValueError("late")
    with admission.admitted("a"):
        pass
