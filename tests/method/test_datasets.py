"""Transcripts to training sets, checked against sets worked out by hand (paper, sections 2.2 and 2.3)."""

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from small import a_spec

from maft import records
from maft.answers.voting import vote
from maft.debate.datasets import Dataset, Pupil, build, taught, write
from maft.debate.mixing import mix
from maft.records import Call, Commit, DatasetCounts, Example, Message, Problem, Transcript, Turn
from maft.shortage import (
    CUT,
    MIX,
    NO_CONSENSUS,
    ONE_ROUND,
    ONLY_WRONG,
    OUTVOTED,
    SAME,
    STAYED_WRONG,
    UNANIMOUS,
    UNPARSED,
    WRONG,
    shortage,
)
from maft.spec import Spec
from maft.store.commits import committed, fetch
from maft.store.urls import open_store


def transcript(name: str, *agents: str) -> Transcript:
    """One debate; an agent is its answers by round, one letter each; "-" did not parse, a capital letter was cut. The reference
    is `r`."""
    agents, cut = tuple(a.lower() for a in agents), agents
    last = [None if a[-1] == "-" else a[-1] for a in agents]
    final = vote(last, "r".__eq__, equal=str.__eq__, seed=1)

    def turn(agent: int, round_: int, said: str) -> Turn:
        finish = "length" if cut[agent][round_].isupper() else "stop"
        call = Call(f"model-{agent}", 0, 5, 7, finish, f"{name}: agent {agent} says {said} in round {round_}")
        parsed = None if said == "-" else said
        agrees = parsed is not None and parsed == final.answer
        return Turn(f"{name}: prompt {agent}.{round_}", call, parsed, agrees=agrees, right=parsed == "r")

    turns = tuple(tuple(turn(n, m, said) for m, said in enumerate(a)) for n, a in enumerate(agents))
    return Transcript(0, Problem(name, f"Question {name}?", "r"), turns, (), (final,) * len(agents[0]))


# Each row: two rounds of three agents. The majority is that of the last column of letters.
TABLE = [
    transcript("a", "xx", "xx", "xx"),  # all hold x from the start; wrong, but labels are not looked at
    transcript("b", "yx", "xx", "xx"),  # agent 0 was corrected
    transcript("c", "-x", "xx", "xy"),  # agent 0 was corrected (nothing parsed), agent 2 strays
    transcript("d", "xy", "xx", "xx"),  # agent 0 leaves the majority
    transcript("e", "x-", "xx", "xx"),  # agent 0's last answer does not parse
    transcript("f", "xx", "yy", "zz"),  # no consensus
    transcript("g", "--", "--", "--"),  # nothing parses, so no consensus
    transcript("h", "yx", "yx", "yx"),  # all were corrected
    transcript("i", "xx", "yx", "--"),
]

DEFAULT = a_spec()


def rules(minimum: int, share: float, seed: int, *, critics: bool, examples: str = "first", pooled: bool = False) -> Spec:
    """The spec of a run that learns like this. minimum: agreement; share: of corrected dialogues among the critics' examples."""
    return replace(
        DEFAULT,
        seed=seed,
        debate=replace(DEFAULT.debate, min_agreement=minimum, critics=critics),
        training=replace(DEFAULT.training, critic_mix=share),
        recipe=replace(DEFAULT.recipe, examples=examples, one_model=pooled),
    )


STRICT = rules(0, 0.5, 7, critics=True)


def generator_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    return taught(transcripts, [Pupil("generator", agent, spec)])[0]


def critic_set(transcripts: Sequence[Transcript], agent: int, spec: Spec) -> Dataset:
    return taught(transcripts, [Pupil("critic", agent, spec)])[0]


def names(examples: Sequence[Example]) -> str:
    return "".join(example.problem for example in examples)


@pytest.mark.parametrize(
    ("agent", "kept", "left_out"),
    [
        (0, "adei", {NO_CONSENSUS: 2, OUTVOTED: 2, UNPARSED: 1}),
        (1, "abcde", {NO_CONSENSUS: 2, OUTVOTED: 2}),
        (2, "abcde", {NO_CONSENSUS: 2, OUTVOTED: 1, UNPARSED: 1}),
    ],
)
def test_generator_sets_by_hand(agent: int, kept: str, left_out: dict[str, int]) -> None:
    made = generator_set(TABLE, agent, STRICT)
    assert names(made.examples) == kept
    assert made.counts == DatasetCounts("generator", agent, len(kept), left_out)


# C- and C+ of each agent, and what else was left out. Agent 0: corrected in b, c, h; right throughout in a, i.
CRITICS = [
    (0, "bch", "ai", {NO_CONSENSUS: 2, STAYED_WRONG: 1, UNPARSED: 1}),
    (1, "hi", "abcde", {NO_CONSENSUS: 2}),
    (2, "h", "abde", {NO_CONSENSUS: 2, STAYED_WRONG: 1, UNPARSED: 1}),
]


@pytest.mark.parametrize(("agent", "corrected", "kept", "left_out"), CRITICS)
@pytest.mark.parametrize(
    ("share", "sizes"),  # how many of C- and C+ each agent gets
    [
        (0.0, [(0, 2), (0, 5), (0, 4)]),
        (0.5, [(2, 2), (2, 2), (1, 1)]),
        (0.67, [(3, 1), (2, 1), (1, 0)]),
        (1.0, [(3, 0), (2, 0), (1, 0)]),
    ],
)
def test_critic_sets_by_hand(
    agent: int, corrected: str, kept: str, left_out: dict[str, int], share: float, sizes: list[tuple[int, int]]
) -> None:
    made = critic_set(TABLE, agent, rules(0, share, 7, critics=True))
    chosen = names(made.examples)
    assert "".join(sorted(chosen)) == chosen
    assert (sum(n in corrected for n in chosen), sum(n in kept for n in chosen)) == sizes[agent]
    assert len(chosen) == sum(sizes[agent])
    dropped = len(corrected) + len(kept) - len(chosen)
    assert made.counts.left_out == left_out | ({MIX: dropped} if dropped else {})


@pytest.mark.parametrize(("minimum", "kept"), [(0, "adei"), (1, "adefi"), (2, "adei"), (3, "a")])
def test_minimum_agreement_decides_what_is_a_label(minimum: int, kept: str) -> None:
    drawn = TABLE[5].vote.answer  # f is a tie; with a minimum of 1 the drawn answer is a label
    expected = kept if drawn == "x" else kept.replace("f", "")
    assert names(generator_set(TABLE, 0, rules(minimum, 0.5, 7, critics=True)).examples) == expected


def test_a_drawn_answer_trains_its_agent_where_the_minimum_allows_it() -> None:
    spec = rules(1, 0.0, 7, critics=True)
    winners = [n for n in range(3) if "f" in names(generator_set(TABLE, n, spec).examples)]
    assert winners == ["xyz".index(str(TABLE[5].vote.answer))]


def test_a_generator_example_is_the_first_exchange_and_a_critic_example_the_whole_dialogue() -> None:
    [first] = generator_set(TABLE[:1], 1, STRICT).examples
    assert first.messages == (Message("user", "a: prompt 1.0"), Message("assistant", "a: agent 1 says x in round 0"))
    [whole] = critic_set(TABLE[1:2], 0, rules(0, 1.0, 7, critics=True)).examples
    assert whole.messages == (
        Message("user", "b: prompt 0.0"),
        Message("assistant", "b: agent 0 says y in round 0"),
        Message("user", "b: prompt 0.1"),
        Message("assistant", "b: agent 0 says x in round 1"),
    )


debates = st.integers(1, 4).flatmap(
    lambda rounds: st.lists(
        st.lists(st.text("xyzr-", min_size=rounds, max_size=rounds), min_size=3, max_size=3), min_size=1, max_size=12
    )
)
rules_ = st.builds(rules, st.integers(0, 3), st.floats(0, 1), st.integers(0, 5), critics=st.booleans())


def table(rows: list[list[str]]) -> list[Transcript]:
    return [transcript(f"{i:02}", *agents) for i, agents in enumerate(rows)]


@given(debates, rules_)
def test_every_transcript_is_kept_or_left_out_for_a_reason(rows: list[list[str]], spec: Spec) -> None:
    made = build(table(rows), spec)
    assert [(d.counts.role, d.counts.agent) for d in made] == [
        (role, n) for role in (("generator", "critic") if spec.debate.critics else ("generator",)) for n in range(3)
    ]
    for dataset in made:
        assert dataset.counts.kept == len(dataset.examples)
        assert dataset.counts.kept + sum(dataset.counts.left_out.values()) == len(rows)
        assert all(dataset.counts.left_out.values())


@given(debates, rules_)
def test_an_agent_learns_from_its_own_outputs_only_and_ends_with_the_majority(rows: list[list[str]], spec: Spec) -> None:
    transcripts = table(rows)
    labels = {t.problem.id: t.vote.answer for t in transcripts}
    for dataset in build(transcripts, spec):
        for example in dataset.examples:
            said = [m.content for m in example.messages if m.role == "assistant"]
            assert all(f"agent {dataset.counts.agent} says" in text for text in said)
            assert f"says {labels[example.problem]} in round" in said[-1]


@given(debates, rules_, st.text("xyzr-", min_size=4, max_size=4))
def test_what_the_others_say_changes_no_word_of_an_agents_examples(rows: list[list[str]], spec: Spec, other: str) -> None:
    """Agent 2's answers may change which examples are chosen, never what is in them."""
    changed = [[a, b, other[: len(c)]] for a, b, c in rows]
    before, after = ({e.problem: e.messages for e in generator_set(table(r), 0, spec).examples} for r in (rows, changed))
    assert all(before[p] == after[p] for p in before.keys() & after.keys())


def test_reference_answers_are_not_read() -> None:
    for row in TABLE:
        relabelled = Transcript(row.index, Problem(row.problem.id, row.problem.question, "other"), row.turns, (), row.votes)
        assert build([row], STRICT) == build([relabelled], STRICT)


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.67, 0.9, 1.0]) | st.floats(0, 1))
def test_the_mix_is_as_large_as_the_share_allows_and_keeps_to_it(corrected: int, kept: int, share: float) -> None:
    minus = [Example(f"minus-{i:02}", ()) for i in range(corrected)]
    plus = [Example(f"plus-{i:02}", ()) for i in range(kept)]
    chosen = mix(minus, plus, share, 3)
    assert len(set(chosen)) == len(chosen)
    from_minus = sum(example in minus for example in chosen)
    assert abs(from_minus - share * len(chosen)) <= 0.5 + 1e-9
    assert from_minus == corrected or len(chosen) - from_minus == kept


@pytest.mark.parametrize(
    ("corrected", "kept", "share", "sizes"),
    [
        (0, 0, 0.5, (0, 0)),
        (10, 0, 0.5, (0, 0)),
        (0, 10, 0.5, (0, 0)),
        (0, 10, 0.0, (0, 10)),
        (10, 0, 1.0, (10, 0)),
        (10, 4, 0.5, (4, 4)),
        (4, 10, 0.5, (4, 4)),
        (100, 100, 0.67, (100, 49)),
        (10, 100, 0.1, (10, 90)),
        (3, 100, 0.3, (3, 7)),
    ],
)
def test_sizes_of_the_mix(corrected: int, kept: int, share: float, sizes: tuple[int, int]) -> None:
    chosen = mix([Example("-", ())] * corrected, [Example("+", ())] * kept, share, 0)
    counts = Counter(example.problem for example in chosen)
    assert (counts["-"], counts["+"]) == sizes


def test_the_draw_depends_on_the_seed_and_differs_between_agents() -> None:
    rows = table([["yx", "yx", "yx"]] * 8 + [["xx", "xx", "xx"]] * 30)

    def drawn(agent: int, seed: int) -> str:
        return ",".join(e.problem for e in critic_set(rows, agent, rules(0, 0.5, seed, critics=True)).examples)

    assert drawn(0, 7) == drawn(0, 7)
    assert len({drawn(agent, seed) for agent in range(3) for seed in (0, 100)}) == 6


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_debate_of_any_length(rounds: int) -> None:
    row = transcript("a", "x" * rounds, "x" * rounds, "x" * rounds)
    spec = rules(0, 0.0, 7, critics=True)
    assert generator_set([row], 0, spec).counts.kept == 1
    made = critic_set([row], 0, spec)
    assert made.counts.left_out == ({ONE_ROUND: 1} if rounds == 1 else {})
    assert [len(e.messages) for e in made.examples] == ([] if rounds == 1 else [2 * rounds])


def test_first_answer_decides_which_side_and_later_detours_do_not() -> None:
    detour = [transcript("a", "xyx", "xxx", "xxx")]
    assert critic_set(detour, 0, rules(0, 0.0, 7, critics=True)).counts.kept == 1
    assert critic_set(detour, 0, rules(0, 1.0, 7, critics=True)).counts.kept == 0


def published(folder: Path, *, critics: bool) -> tuple[dict[str, bytes], list[DatasetCounts], Commit]:
    store = open_store(str(folder))
    spec = rules(0, 0.5, 7, critics=critics)
    counts = write(store, "ns/run", 1, spec, TABLE, parent=Commit("parent/", (), (), {}))
    commit = committed(store, "ns/run/iterations/1/datasets/")
    assert commit
    return {entry.name: fetch(store, commit, entry.name) for entry in commit.files}, counts, commit


def test_equal_transcripts_give_equal_bytes(tmp_path: Path) -> None:
    first, _, _ = published(tmp_path / "one", critics=True)
    second, _, _ = published(tmp_path / "two", critics=True)
    assert first == second
    assert set(first) == {f"{role}-{n}.jsonl" for role in ("generator", "critic") for n in range(3)}
    digest = hashlib.sha256(b"".join(first[name] for name in sorted(first))).hexdigest()
    assert digest.startswith("1d50f80f8295"), "the same transcripts and seed gave other bytes in an earlier version"


def test_published_sets_are_those_that_were_built(tmp_path: Path) -> None:
    files, counts, commit = published(tmp_path, critics=True)
    made = {f"{d.counts.role}-{d.counts.agent}.jsonl": d for d in build(TABLE, STRICT)}
    read = {name: records.decode_lines(data, Example, name) for name, data in files.items()}
    assert read == {name: list(dataset.examples) for name, dataset in made.items()}
    assert counts == [d.counts for d in made.values()]
    assert commit.parents == ("parent/",)
    assert commit.meta["counts"] == records.plain(counts)


def test_no_critics_no_critic_sets(tmp_path: Path) -> None:
    files, counts, _ = published(tmp_path, critics=False)
    assert set(files) == {f"generator-{n}.jsonl" for n in range(3)}
    assert {c.role for c in counts} == {"generator"}


def test_a_single_agent_is_its_own_majority() -> None:
    [made] = build([transcript("a", "x"), transcript("b", "-")], rules(0, 0.5, 0, critics=False))
    assert isinstance(made, Dataset)
    assert made.counts == DatasetCounts("generator", 0, 1, {NO_CONSENSUS: 1})


# --- what other methods learn from: each set by hand, from a file of transcripts as a debate leaves it ---

# Rows of three agents in two rounds; the reference is `r`, the vote that of the last round.
FILE = [
    transcript("a", "rr", "xr", "xr"),  # agent 0 was right at first, the others came round
    transcript("b", "xx", "xx", "rx"),  # a wrong majority; agent 2 had been right
    transcript("c", "rr", "rr", "rr"),  # unanimous: nothing to prefer
    transcript("d", "rx", "xr", "-r"),  # agent 0 leaves what becomes the vote
    transcript("e", "xx", "rr", "--"),  # no strict plurality
]


@pytest.fixture
def small(tmp_path: Path) -> list[Transcript]:
    path = tmp_path / "part-0.jsonl"
    path.write_bytes(records.encode_lines(FILE))
    assert len(path.read_text().splitlines()) == len(FILE)
    return records.decode_lines(path.read_bytes(), Transcript, str(path))


def said(name: str, agent: int, answer: str, round_: int = 0) -> str:
    return f"{name}: agent {agent} says {answer} in round {round_}"


def asked(name: str, agent: int, answer: str, round_: int = 0, rejected: str = "") -> Example:
    """The question as the agent was first asked, and an answer."""
    other = Message("assistant", rejected) if rejected else None
    return Example(
        name, (Message("user", f"{name}: prompt {agent}.0"), Message("assistant", said(name, agent, answer, round_))), other
    )


def made_by(examples: str, transcripts: Sequence[Transcript], seed: int = 7, *, pooled: bool = False) -> list[Dataset]:
    return build(transcripts, rules(0, 0.5, seed, critics=False, examples=examples, pooled=pooled))


def test_first_answers_by_hand(small: list[Transcript]) -> None:
    made = made_by("first", small)
    assert [list(d.examples) for d in made] == [
        [asked("a", 0, "r"), asked("b", 0, "x"), asked("c", 0, "r"), asked("d", 0, "r")],
        [asked("b", 1, "x"), asked("c", 1, "r")],
        [asked("c", 2, "r")],
    ]
    assert [d.counts.left_out for d in made] == [
        {NO_CONSENSUS: 1},
        {OUTVOTED: 2, NO_CONSENSUS: 1},
        {OUTVOTED: 2, UNPARSED: 1, NO_CONSENSUS: 1},
    ]


def test_last_answers_by_hand(small: list[Transcript]) -> None:
    """Distillation: the question alone, with what the agent said at the end."""
    made = made_by("last", small)
    assert [list(d.examples) for d in made] == [
        [asked("a", 0, "r", 1), asked("b", 0, "x", 1), asked("c", 0, "r", 1)],
        [asked("a", 1, "r", 1), asked("b", 1, "x", 1), asked("c", 1, "r", 1), asked("d", 1, "r", 1)],
        [asked("a", 2, "r", 1), asked("b", 2, "x", 1), asked("c", 2, "r", 1), asked("d", 2, "r", 1)],
    ]
    assert [d.counts.left_out for d in made] == [{STAYED_WRONG: 1, NO_CONSENSUS: 1}, {NO_CONSENSUS: 1}, {NO_CONSENSUS: 1}]
    unparsed = made_by("last", [transcript("z", "x-", "xx", "xx")])
    assert unparsed[0].counts.left_out == {UNPARSED: 1}


def test_pairs_by_hand(small: list[Transcript]) -> None:
    """The agent's own first answer is one side wherever the vote leaves both sides; what agrees is chosen."""
    sides = [
        {"a": ("0r", ["1x", "2x"]), "b": ("0x", ["2r"]), "d": ("0r", ["1x", "2-"])},
        {"a": ("1x", ["0r"]), "b": ("1x", ["2r"]), "d": ("1x", ["0r"])},
        {"a": ("2x", ["0r"]), "b": ("2r", ["0x", "1x"]), "d": ("2-", ["0r"])},
    ]
    for dataset, expected in zip(made_by("pairs", small), sides, strict=True):
        assert names(dataset.examples) == "abd"
        assert dataset.counts.left_out == {UNANIMOUS: 1, NO_CONSENSUS: 1}
        for example in dataset.examples:
            name, agent = example.problem, dataset.counts.agent
            own, others = (
                said(name, int(expected[name][0][0]), expected[name][0][1]),
                [said(name, int(o[0]), o[1]) for o in expected[name][1]],
            )
            agrees = f"says {small['abcde'.index(name)].vote.answer} " in own
            question, answer = example.messages
            assert example.rejected
            assert question == Message("user", f"{name}: prompt {agent}.0")
            assert (answer.content if agrees else example.rejected.content) == own
            assert (example.rejected.content if agrees else answer.content) in others


def test_the_other_side_of_a_pair_is_drawn_by_the_seed() -> None:
    rows = [transcript(f"{i:02}", "rr", "xr", "xr", "yr") for i in range(30)]
    first, again, other = (made_by("pairs", rows, seed)[0].examples for seed in (1, 1, 2))
    assert first == again != other
    drawn = Counter(e.rejected.content[4:11] for e in first if e.rejected)
    assert set(drawn) == {"agent 1", "agent 2", "agent 3"} and min(drawn.values()) >= 3


def test_grades_by_hand(small: list[Transcript]) -> None:
    """Every first answer of a question with a label, desirable where it equals the vote; one that does not parse does not."""
    made = made_by("graded", small)
    for dataset in made:
        agent = dataset.counts.agent
        assert names(dataset.examples) == "abcd"
        assert dataset.counts.left_out == {NO_CONSENSUS: 1}
        for example, row in zip(dataset.examples, small, strict=False):
            first = row.turns[agent][0]
            assert example.messages[-1] == first.message and example.rejected is None
            assert example.desirable is first.agrees
    assert {e.desirable for d in made for e in d.examples} == {True, False}
    [unparsed] = made_by("graded", [transcript("z", "-x", "xx", "xx"), transcript("y", "xx", "xx", "xx")])[:1]
    assert [e.desirable for e in unparsed.examples] == [False, True]


def test_an_agent_of_which_every_answer_is_wrong_learns_none_of_them() -> None:
    """There would be nothing to become likelier. Others learn as before, and so does one model that pools them."""
    debates = [transcript(name, "xr", "rr", "rr") for name in "ab"] + [transcript("c", "x", "y", "z")]
    wrong, *others = made_by("graded", debates)
    assert len(wrong.examples) == wrong.counts.kept == 0
    assert wrong.counts.left_out == {NO_CONSENSUS: 1, ONLY_WRONG: 2}
    assert all(d.counts.kept == 2 and ONLY_WRONG not in d.counts.left_out for d in others)
    why, change = shortage(wrong.counts.kept, wrong.counts.left_out, 4)
    assert "as all answers of the agent do (2 of 3)" in why and "stronger model" in change
    [pooled] = made_by("graded", debates, pooled=True)
    assert {e.desirable for e in pooled.examples} == {True, False} and ONLY_WRONG not in pooled.counts.left_out
    for kind in ("first", "last", "pairs", "reworked"):
        assert all(ONLY_WRONG not in d.counts.left_out for d in made_by(kind, debates))


def test_only_grades_are_written_with_a_grade(small: list[Transcript]) -> None:
    for kind in ("first", "last", "pairs", "graded", "reworked"):
        lines = [records.encode(e) for e in made_by(kind, small)[0].examples]
        assert all((b"desirable" in line) == (kind == "graded") for line in lines)


def test_hinted_answers_by_hand() -> None:
    """STaR: one agent; its right first answer, or what came out right after a hint, as an answer to the bare question."""
    rows = [
        transcript("a", "r"),  # right at once: no hint was given
        transcript("b", "xr"),  # right after the hint
        transcript("c", "xx"),  # wrong with it, too
        transcript("d", "-r"),  # nothing parsed, then right
        transcript("e", "--"),
    ]
    [made] = made_by("hinted", rows, pooled=True)
    assert list(made.examples) == [asked("a", 0, "r"), asked("b", 0, "r", 1), asked("d", 0, "r", 1)]
    assert made.counts == DatasetCounts("generator", 0, 3, {WRONG: 2})
    assert all("0.1" not in m.content for e in made.examples for m in e.messages), "the hint is no part of an example"


def reworked(row: Transcript, **answers: str) -> Transcript:
    """The debate with what some agents said after the vote; a capital letter was cut."""
    turns = [list(own) for own in row.turns]
    for agent, answer in ((int(name[1:]), text) for name, text in answers.items()):
        letter, finish = answer.lower(), "length" if answer.isupper() else "stop"
        call = Call("base", 0, 5, 7, finish, said(row.problem.id, agent, letter, 2))
        parsed = None if letter == "-" else letter
        turns[agent].append(Turn("hint", call, parsed, agrees=parsed == row.vote.answer, right=parsed == "r"))
    return replace(row, turns=tuple(map(tuple, turns)))


def test_reworked_answers_by_hand() -> None:
    """Distillation: first answers that equal the vote, or what was said once the vote was known; never the short last ones."""
    rows = [
        transcript("a", "xx", "xx", "xx"),
        reworked(transcript("b", "xx", "yx", "-x"), a1="x", a2="x"),
        reworked(transcript("c", "xx", "yx", "yx"), a1="y", a2="-"),  # the hint did not help
        reworked(transcript("d", "xx", "yx", "Xx"), a1="X", a2="x"),  # cut with the hint; cut at first
        transcript("e", "xx", "yy", "zz"),
    ]
    made = made_by("reworked", rows)
    assert [list(d.examples) for d in made] == [
        [asked(name, 0, "x") for name in "abcd"],
        [asked("a", 1, "x"), asked("b", 1, "x", 2)],
        [asked("a", 2, "x"), asked("b", 2, "x", 2), asked("d", 2, "x", 2)],
    ]
    assert [d.counts.left_out for d in made] == [
        {NO_CONSENSUS: 1},
        {OUTVOTED: 1, CUT: 1, NO_CONSENSUS: 1},
        {UNPARSED: 1, NO_CONSENSUS: 1},
    ]
    assert "hint" not in repr([list(d.examples) for d in made])


def test_hinted_answers_follow_the_labels_and_no_others_do(small: list[Transcript]) -> None:
    def relabelled(row: Transcript) -> Transcript:
        turns = tuple(tuple(replace(t, right=not t.right) for t in agent) for agent in row.turns)
        return replace(row, problem=replace(row.problem, answer="other"), turns=turns)

    changed = [relabelled(row) for row in small]
    for examples in ("first", "last", "pairs", "graded", "reworked"):
        assert made_by(examples, changed) == made_by(examples, small)
    assert made_by("hinted", changed) != made_by("hinted", small)


@pytest.mark.parametrize("examples", ["first", "last", "pairs", "graded", "reworked"])
def test_a_pool_is_everybodys_examples_by_question(small: list[Transcript], examples: str) -> None:
    apart, [pooled] = made_by(examples, small), made_by(examples, small, pooled=True)
    assert (pooled.counts.role, pooled.counts.agent) == ("generator", 0)
    assert Counter(pooled.examples) == Counter(e for d in apart for e in d.examples)
    assert names(pooled.examples) == "".join(sorted(names(pooled.examples)))
    assert pooled.counts.kept + sum(pooled.counts.left_out.values()) == 3 * len(small)
    left_out: Counter[str] = Counter()
    for dataset in apart:
        left_out.update(dataset.counts.left_out)
    assert pooled.counts.left_out == left_out


def test_a_pool_has_equal_examples_once_and_says_so() -> None:
    turn = Turn("prompt", Call("base", 0, 5, 7, "stop", "x it is"), "x", agrees=True, right=False)
    row = replace(transcript("a", "x", "x", "x"), turns=((turn,),) * 3)
    [made] = made_by("first", [row], pooled=True)
    assert made.counts == DatasetCounts("generator", 0, 1, {SAME: 2})


def test_critics_are_pooled_too(small: list[Transcript]) -> None:
    spec = rules(0, 0.5, 7, critics=True, pooled=True)
    apart = [critic_set(small, n, spec) for n in range(3)]
    generator, critic = build(small, spec)
    assert (generator.counts.role, critic.counts.role, critic.counts.agent) == ("generator", "critic", 0)
    assert Counter(critic.examples) == Counter(e for d in apart for e in d.examples)
    assert len(critic.examples) > 0


def test_the_commit_says_what_the_examples_are(tmp_path: Path) -> None:
    _, _, commit = published(tmp_path, critics=True)
    assert (commit.meta["examples"], commit.meta["pooled"]) == ("first", False)


# --- answers that were cut, turns before the question ---

CUT_ROWS = [
    transcript("a", "Xx", "xx", "xx"),  # agent 0's first answer was cut
    transcript("b", "yX", "xx", "xx"),  # its correction was
    transcript("c", "xx", "xx", "yX"),
]


def test_an_answer_that_was_cut_votes_and_never_trains() -> None:
    spec = rules(0, 0.5, 7, critics=True)
    sets = {(d.counts.role, d.counts.agent): d for d in build(CUT_ROWS, spec)}
    assert [t.vote.votes for t in CUT_ROWS] == [3, 3, 3]
    assert names(sets["generator", 0].examples) == "c"
    assert sets["generator", 0].counts.left_out == {CUT: 1, OUTVOTED: 1}
    assert sets["critic", 0].counts.left_out[CUT] == 1 and sets["critic", 2].counts.left_out[CUT] == 1
    assert not any(m.cut for d in sets.values() for example in d.examples for m in example.messages[-1:])


@pytest.mark.parametrize("examples", ["first", "last", "hinted", "pairs", "graded", "reworked"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_kind_of_example_ends_with_a_cut_answer(examples: str, seed: int) -> None:
    draw = random.Random(seed)
    rows = [transcript(f"{i:02}", *("".join(draw.choice("rxRXy") for _ in range(2)) for _ in range(3))) for i in range(40)]
    made = made_by(examples, rows, seed)
    assert sum(d.counts.left_out.get(CUT, 0) for d in made) > 0 < sum(d.counts.kept for d in made)
    for dataset in made:
        for example in dataset.examples:
            assert not example.messages[-1].cut and not (example.rejected and example.rejected.cut)


def test_examples_begin_with_the_systems_turn_and_the_questions_own_chat() -> None:
    own = (Message("user", "Hello."), Message("assistant", "Yes?"))
    row = replace(TABLE[1], problem=replace(TABLE[1].problem, history=own))
    spec = replace(DEFAULT, debate=replace(DEFAULT.debate, system="Be brief."))
    [example] = generator_set([row], 1, spec).examples
    assert [(m.role, m.content) for m in example.messages[:3]] == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "Yes?"),
    ]
    assert [m.given for m in example.messages] == [False, True, True, False, False]
