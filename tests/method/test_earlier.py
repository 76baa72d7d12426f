"""What prepare finds committed of an earlier start: stages, agents, scores; in a summary that the kubelet keeps whole."""

import itertools

import pytest
from small import a_spec
from test_probe import World

from maft import records
from maft.prepare import earlier
from maft.program import Assignment
from maft.records import Evaluation, Score, Usage
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import COMMIT, publish
from maft.store.files import FileStore
from maft.summaries import LIMIT, ROOM, Earlier, Gain, PrepareSummary, Validation, encode_summary, first_that_fits

RUN = "ns/run"


@pytest.fixture
def store(tmp_path) -> Store:
    return FileStore(tmp_path / "store")


def assigned(store: Store, **spec) -> Assignment:
    return Assignment(store=store, run=RUN, given_spec=a_spec(**{"iterations": 3, **spec}))


def evaluation(iteration: int) -> Evaluation:
    share = iteration / 200
    scores = (Score(share, 0.01), Score(share + 0.2, 0.02))
    return Evaluation(
        iteration=iteration,
        questions=8,
        answers=scores,
        agents=(scores, scores),
        votes=(Score(share + 0.1, 0.03), Score(share + 0.23456789, 0.04)),
        consensus=Score(0.9, 0.05),
        wrong_to_right=1,
        right_to_wrong=2,
        unparsed=0,
        ties=0,
        usage=Usage(1, 2, 3),
    )


def put(store: Store, *, debates=(), evaluations=(), diversities=(), adapters=(), validations=()) -> None:
    for iteration in validations:
        gained = {} if iteration == 1 else {"gain": {"mean": -0.1, "stderr": 0.02, "over": 1}}
        meta = {"validation": {"accuracy": {"mean": 0.5, "stderr": 0.1}, **gained}}
        publish(store, layout.validation(RUN, iteration), {layout.EVALUATION: b"{}"}, meta=meta)
    for iteration in debates:
        publish(store, layout.debate(RUN, iteration), {layout.TRANSCRIPTS: b""})
        publish(store, layout.datasets(RUN, iteration), {layout.dataset_file("generator", 0): b""})
    for iteration in evaluations:
        publish(store, layout.evaluation(RUN, iteration), {layout.EVALUATION: records.encode(evaluation(iteration))})
    for iteration in diversities:
        publish(store, layout.diversity(RUN, iteration), {layout.DIVERSITY: b"{}"})
    for iteration, role, agent in adapters:
        publish(store, layout.adapter(RUN, iteration, role, agent), {"adapter_config.json": b"{}"})


def both(*places: tuple[int, int]) -> list[tuple[int, str, int]]:
    """Generator and critic of those iterations and agents."""
    return [(iteration, role, agent) for iteration, agent in places for role in records.ROLES]


def test_a_run_that_begins_finds_nothing(store):
    assert earlier.found(assigned(store)) == Earlier()


def test_every_stage_is_found(store):
    put(store, debates=(1, 2, 3), evaluations=(0, 2), diversities=(0,), adapters=both((1, 0), (1, 1), (1, 2), (2, 0)))
    found = earlier.found(assigned(store))
    assert (found.debates, found.evaluations, found.diversities) == ("1-3", "0,2", "0")
    assert found.adapters == {"1": "0-2", "2": "0"}
    assert found.scores["2"] == (0.2446, 0.04, 0.01, 0.01, 0.11, 0.03)


def test_what_validation_questions_said_is_found(store):
    put(store, validations=(1, 2))
    found = earlier.found(assigned(store))
    assert found.validated == "1-2"
    first, second = (Validation(accuracy=Score(0.5, 0.1), gain=gain) for gain in (None, Gain(-0.1, 0.02, 1)))
    assert found.validations == {"1": first, "2": second}


def test_of_many_validations_the_last_ones_fit(store):
    validations = {str(i): Validation(accuracy=Score(0.1234, 0.0123), gain=Gain(-0.123456, 0.012345, 1)) for i in range(1, 101)}
    whole = Earlier(evaluations="0", scores={"0": (0.5, 0.1, 0.4, 0.1)}, validated="1-100", validations=validations)
    kept = told(whole).earlier
    assert list(kept.validations) == [str(i) for i in range(101 - len(kept.validations), 101)]
    assert len(kept.validations) > 20
    assert (kept.validated, kept.scores) == (whole.validated, whole.scores)


def test_an_agent_counts_with_all_its_roles(store):
    put(store, adapters=[(1, "generator", 0), (1, "generator", 1), (1, "critic", 1)])
    assert earlier.found(assigned(store)).adapters == {"1": "1"}
    assert earlier.found(assigned(store, debate={"critics": False})).adapters == {"1": "0-1"}


def test_what_is_not_committed_is_not_found(store):
    """Transcripts without datasets, an adapter under way with its checkpoint, half an evaluation."""
    publish(store, layout.debate(RUN, 1), {layout.TRANSCRIPTS: b""})
    store.write(layout.checkpoint(RUN, 1, "generator", 0), b"half")
    store.write(f"{layout.evaluation(RUN, 0)}{layout.EVALUATION}", b"{}")
    store.write(f"{layout.datasets(RUN, 1)}generator-0.jsonl", b"")
    assert earlier.found(assigned(store)) == Earlier()


@pytest.mark.parametrize(
    "place", ["x/datasets/", "1/datasets/old/", "1/adapters/", "1/adapters/generator/", "1/else/", "-1/diversity/", ""]
)
def test_what_lies_elsewhere_is_none_of_it(store, place):
    store.write(f"{RUN}/{layout.ITERATIONS}{place}{COMMIT}", b"{}")
    assert earlier.found(assigned(store)) == Earlier()


def test_runs_of_another_name_are_not_found(store):
    publish(store, layout.diversity("ns/run-2", 1), {layout.DIVERSITY: b"{}"})
    publish(store, layout.diversity("ns/ru", 1), {layout.DIVERSITY: b"{}"})
    assert earlier.found(assigned(store)) == Earlier()


def many(iterations: int, adapters: dict[str, str] | None = None) -> Earlier:
    scores = {str(i): tuple(round(0.1234 + i / 1000 + k / 7000, 4) for k in range(6)) for i in range(iterations + 1)}
    last = f"1-{iterations}"
    return Earlier(
        debates=last, evaluations=f"0-{iterations}", diversities=last, adapters=adapters or {last: "0-31"}, scores=scores
    )


def told(found: Earlier) -> PrepareSummary:
    drawn = PrepareSummary(train=10**6, held_out=10**6, probe=10**6)
    return first_that_fits(
        PrepareSummary(train=drawn.train, held_out=drawn.held_out, probe=drawn.probe, earlier=e) for e in earlier.shorter(found)
    )


@pytest.mark.parametrize(("iterations", "numbers"), [(5, 6), (50, 6), (100, 4)])
def test_a_hundred_iterations_fit_a_termination_message(iterations, numbers):
    found = many(iterations)
    summary = told(found)
    assert len(encode_summary(summary)) <= LIMIT - ROOM
    assert len(summary.earlier.scores) == iterations + 1  # the accuracy of each
    assert {len(s) for i, s in summary.earlier.scores.items() if i != "0"} == {numbers}
    assert len(summary.earlier.scores["0"]) >= 4  # with what the untrained model answers alone
    assert (summary.earlier.debates, summary.earlier.adapters) == (found.debates, found.adapters)


def test_stages_come_before_scores():
    """The worst that agents of their own can leave: another set of them in each of the last iterations."""
    ragged = {str(i): ",".join(str(n) for n in range(i % 2, 32, 2)) for i in range(61, 91)} | {"1-60": "0-31"}
    summary = told(many(100, ragged))
    assert summary.earlier.adapters == ragged
    assert len(encode_summary(summary)) <= LIMIT - ROOM
    assert summary.earlier.scores["100"]


def test_each_shorter_one_says_less():
    sizes = [len(encode_summary(PrepareSummary(train=1, held_out=1, earlier=e))) for e in earlier.shorter(many(40))]
    assert all(longer > shorter for longer, shorter in itertools.pairwise(sizes))


def test_prepare_says_what_its_own_programs_left(tmp_path, mock_url):
    world = World(tmp_path, mock_url)
    assert world.run("prepare").earlier == Earlier()
    evaluated, _ = world.run("evaluate", 0), world.run("debate", 1)
    again = world.run("prepare").earlier
    assert (again.evaluations, again.debates, again.adapters) == ("0", "1", {})
    told_ = (evaluated.debate, evaluated.answer, evaluated.majority)
    assert again.scores == {"0": tuple(number for score in told_ for number in (score.mean, score.stderr))}
