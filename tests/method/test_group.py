"""Runs of one group: the questions are drawn once, whoever comes first, and the base's calls are asked once."""

from pathlib import Path
from typing import Any

import pytest
from conftest import resource
from test_probe import PROGRAMS

from maft import program, records
from maft.errors import BadInput
from maft.prepare import __main__ as prepare
from maft.prepare import group
from maft.prepare.group import Questions
from maft.program import Assignment
from maft.records import Problem
from maft.store import layout
from maft.store.base import Store
from maft.store.commits import committed, fetch, publish, required
from maft.store.urls import open_store
from maft.summaries import Threshold
from maft_operator.plan import graph as plan
from maft_operator.spec.parse import parse


def assigned(store: Store, name: str, kind: str = "prepare", url: str = "http://nowhere:1", **spec: Any) -> Assignment:
    """What the plan's own command line gives a program of a run of the group `all`."""
    run = parse(resource(name, **{"group": "all", **spec}))
    task = next(task for task in plan.graph(run, store.url).tasks if task.kind == kind)
    line = plan.command(task, {server: [url] for server in task.servers})
    return program.decode(PROGRAMS[kind].PARSER.parse_args(line[2:]))


def drawn(store: Store, run: str) -> dict[str, bytes]:
    commit = required(store, f"default/{run}/{layout.PROBLEMS}", "the test")
    return {entry.name: fetch(store, commit, entry.name) for entry in commit.files}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def test_runs_of_a_group_have_its_questions_and_each_its_own_commit(store: Store) -> None:
    for name, spec in {"one": {"method": "base"}, "two": {"method": "debate", "seed": 7, "agents": 5}}.items():
        prepare.main(assigned(store, name, **spec))
    assert drawn(store, "all") == drawn(store, "one") == drawn(store, "two")
    own = [required(store, f"default/{name}/{layout.PROBLEMS}", "the test").meta["spec"] for name in ("one", "two")]
    assert [spec["method"] for spec in own] == ["base", "debate"]
    assert required(store, f"default/all/{layout.PROBLEMS}", "the test").meta["spec"].keys() == {"model", "task", "evaluation"}


def test_a_run_takes_what_lies_there_and_draws_nothing(store: Store, tmp_path: Path) -> None:
    """The source may have changed since: all runs ask what the first one drew."""
    source = tmp_path / "questions.jsonl"
    task = {"source": str(source), "train": 4, "heldOut": 2}
    source.write_text("".join(f'{{"question": "{n}+{n}", "answer": "{2 * n}"}}\n' for n in range(9)))
    prepare.main(assigned(store, "one", task=task))
    source.write_text("".join(f'{{"question": "{n}*{n}", "answer": "{n * n}"}}\n' for n in range(9)))
    prepare.main(assigned(store, "two", task=task))
    assert drawn(store, "one") == drawn(store, "two")
    assert all("+" in problem.question for problem in records.decode_lines(drawn(store, "two")["train.jsonl"], Problem, "two"))


def test_of_two_that_draw_at_once_the_first_commit_counts_for_both(store: Store) -> None:
    """Also where the hub moved in between: the other one takes what was committed, and the revision that it was drawn with."""
    one, two = (assigned(store, name, seed=number) for number, name in enumerate(("one", "two")))
    assert group.committed_questions(two) is None
    chosen = [Threshold(cosine=cosine, source="given") for cosine in (0.5, 0.6)]
    first = group.publish_questions(one, Questions({"train.jsonl": b"1", "held-out.jsonl": b"2"}, "aaa", chosen[0]))
    late = group.publish_questions(two, Questions({"train.jsonl": b"3", "held-out.jsonl": b"4"}, "bbb", chosen[1]))
    assert first == late == group.committed_questions(one)
    assert (late.files["train.jsonl"], late.revision, late.threshold) == (b"1", "aaa", chosen[0])


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"task": {"train": 8}}, "made with spec.task.train 24, this is 8; use another name or prefix, or remove what lies there"),
        ({"model": {"source": "org/other"}}, "made with spec.model.source "),
        (
            {"evaluation": {"task": {"kind": "arithmetic", "heldOut": 4}}},
            "its held-out questions come from another evaluation.task; use another group or prefix",
        ),
        ({"evaluation": {"validation": 4}}, "made with spec.evaluation.validation 0, this is 4; use another group or prefix"),
    ],
)
def test_a_run_with_other_questions_is_refused_in_one_line(store: Store, spec: dict[str, Any], line: str) -> None:
    prepare.main(assigned(store, "one"))
    with pytest.raises(BadInput) as caught:
        prepare.main(assigned(store, "two", **spec))
    assert line in str(caught.value) and "\n" not in str(caught.value)
    assert committed(store, f"default/two/{layout.PROBLEMS}") is None


def test_questions_of_an_older_release_have_none_for_validation(store: Store) -> None:
    """Its commit does not know the field, so no difference of the two specs tells."""
    prepare.main(assigned(store, "one", group=""))
    commit = required(store, f"default/one/{layout.PROBLEMS}", "the test")
    spec = {**commit.meta["spec"], "evaluation": {k: v for k, v in commit.meta["spec"]["evaluation"].items() if k != "validation"}}
    publish(store, f"default/old/{layout.PROBLEMS}", drawn(store, "one"), meta={**commit.meta, "spec": spec})
    prepare.main(assigned(store, "old", group=""))
    with pytest.raises(BadInput, match=r"evaluation\.validation: default/old/problems/ was drawn without such questions"):
        prepare.main(assigned(store, "old", group="", evaluation={"validation": 4}))


def test_without_a_group_nothing_is_shared(store: Store) -> None:
    prepare.main(assigned(store, "one", group=""))
    assert list(store.list("default/all/")) == []


def test_what_the_base_said_to_one_run_is_not_asked_again_for_the_next(store: Store, mock_url: str) -> None:
    """The second has nothing to save: the first has asked all that it asks."""
    for name, method in (("one", "majority"), ("two", "base")):
        prepare.main(assigned(store, name, method=method))
        PROGRAMS["evaluate"].main(assigned(store, name, "evaluate", mock_url, method=method))
    calls = list(store.list(layout.calls("default/all")))
    assert calls == [f"{layout.calls('default/all')}default-one-iterations-0-evaluation.jsonl"]
