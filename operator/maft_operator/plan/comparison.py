"""What a comparison does next on a cluster: which of its runs to make, stop, resume or remove, and when to make the table. Pure.

How runs that know nothing of each other share their work:

1. Every run has `spec.group`, the comparison's name. Whoever's `prepare` comes first draws the questions and commits them below the
   group's prefix; all others take what lies there (maft/prepare/group.py). Commits are made once, so two at a time do no harm.
2. Debates and evaluations of a group read, when they begin, the base's calls that earlier ones saved below the group's prefix, and
   save their own new ones with their journal (maft/debate/cache.py). Two at a time that ask the same would ask twice, and on a real
   server be answered differently. So it is decided here: a run is made only while nobody is asking what it will ask. `asked` names
   what a run asks the base in its first debate; what an ended debate asked is saved. Runs of different seeds share nothing and
   never wait for each other; of one seed the first run asks, and once its first debate is done those that ask nothing more follow.
3. Servers are each run's own: they hold its adapters, come and go with its phases, and queues count them. A run whose first debate
   is known asks its server for nothing in that time.
4. Once all runs are over, a Job of the comparison reads their evaluations and makes the table of those that are complete.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from maft.spec import DebateSpec, ModelSpec
from maft.summaries import numbers_in
from maft_operator.plan.compare import table
from maft_operator.plan.graph import Graph, Task
from maft_operator.spec.comparison import Child, Comparison
from maft_operator.spec.parse import Run, store_url

Phase = Literal["Running", "Comparing", "Suspended", "Complete", "Failed"]
ENDED = ("Complete", "Failed", "Rejected")
_ANSWER = ("system", "temperature", "topP", "maxTokens", "thinking", "thinkingTokens")  # fields that decide a first answer
_TURNS = ("mode", "summarize", "cooperative", "showThoughts", "prompts")  # and, with these, what is said after it


@dataclass(frozen=True, slots=True)
class RunState:
    """A run of the comparison as the cluster shows it."""

    phase: str = ""
    suspended: bool = False
    """Its spec says so."""
    done: Mapping[str, str] = field(default_factory=dict)
    """Iterations by stage, as its status has them."""
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    """Why it waits or failed, as its conditions say."""
    terminating: bool = False
    """It is being deleted."""
    validated: float | None = None
    """Accuracy of its best iteration on validation questions."""
    trial: str = ""
    """Which trial of a search it is, as JSON (search.py)."""

    @property
    def ended(self) -> bool:
        """Tells whether nothing more comes of it."""
        return self.phase in ENDED


@dataclass(frozen=True, slots=True)
class ComparisonStep:
    """What to do now; names are those of runs."""

    phase: Phase
    create: tuple[Child, ...] = ()
    suspend: tuple[str, ...] = ()
    resume: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()
    table: bool = False
    """The table's Job is to be there."""


def step(comparison: Comparison, observed: Mapping[str, RunState], *, table_done: bool = False) -> ComparisonStep:
    """Decides from the runs that there are, by name. table_done: the table has been made."""
    wanted = {child.run.name: child for child in comparison.children}
    there = {name: state for name, state in observed.items() if name in wanted}
    delete = tuple(name for name, state in observed.items() if name not in wanted and not state.terminating)
    ended = all(state.ended and not state.terminating for state in there.values())  # one that terminates is made anew
    if ended and len(there) == len(wanted):
        complete = any(state.phase == "Complete" for state in there.values())
        phase: Phase = "Failed" if not complete else "Complete" if table_done else "Comparing"
        return ComparisonStep(phase, delete=delete, table=complete)
    open_ = {name: state for name, state in there.items() if not state.ended and not state.terminating}
    if comparison.suspend:
        return ComparisonStep("Suspended", suspend=tuple(n for n, s in open_.items() if not s.suspended), delete=delete)
    resumed = _resumed(comparison, open_)
    create = _created(comparison, there, under_way=sum(not state.suspended for state in open_.values()) + len(resumed))
    return ComparisonStep("Running", create, resume=resumed, delete=delete)


def _resumed(comparison: Comparison, unfinished: Mapping[str, RunState]) -> tuple[str, ...]:
    """Runs that were stopped and may go on: in order, as many as there is room for."""
    room = comparison.max_parallel - sum(not state.suspended for state in unfinished.values())
    names = [child.run.name for child in comparison.children]
    stopped = [name for name in names if name in unfinished and unfinished[name].suspended]
    return tuple(stopped[: max(0, room)])


def _created(comparison: Comparison, there: Mapping[str, RunState], *, under_way: int) -> tuple[Child, ...]:
    """Runs to be made: in order, as many as there is room for, none that would ask what another is asking."""
    room = comparison.max_parallel - under_way
    asking, known = _asking(comparison, there)
    made: list[Child] = []
    for child in comparison.children:
        if len(made) >= room:
            break
        wants = asked(child.run) - known
        if child.run.name not in there and not wants & asking:
            made.append(child)
            asking |= wants
    return tuple(made)


def _asking(comparison: Comparison, there: Mapping[str, RunState]) -> tuple[set[str], set[str]]:
    """What is being asked, and what has been answered and saved. A run that failed before that saved nothing."""
    asking, known = set[str](), set[str]()
    for child in comparison.children:
        state = there.get(child.run.name)
        if state is None:
            continue
        if state.phase == "Complete" or _has_asked(child.run, state):
            known |= asked(child.run)
        elif not state.ended:
            asking |= asked(child.run)
    return asking - known, known


def _has_asked(run: Run, state: RunState) -> bool:
    stage, iteration = _first_debate(run)
    return iteration in numbers_in(state.done.get(stage, ""))


def _first_debate(run: Run) -> tuple[str, int]:
    """The stage in which the untrained model plays all roles: of held-out questions, or training's where it trains."""
    return ("debate", 1) if run.spec.iterations else ("evaluate", 0)


def asked(run: Run) -> frozenset[str]:
    """Names what a run asks the base in its first debate: each agent's first answers, and each round after them. Equal names are
    equal calls, of runs of one group."""
    spec = run.spec
    debate = _plain(spec.debate)
    first = (_first_debate(run), spec.seed)
    own = {n: _plain(spec.model_of(n)) for n in range(spec.agents) if spec.has_own_model(n)}
    answers = {n: [*(_plain(spec.debate_of(n))[name] for name in _ANSWER), own.get(n)] for n in range(spec.agents)}
    hinted = spec.examples == "hinted"
    rounds = range(2, spec.debate.rounds + 1 + hinted)
    later = (first, list(answers.values()), hinted, [debate[name] for name in _TURNS], own and debate["summarizer"])
    names = {*(_key(first, n, answers[n]) for n in answers), *(_key(later, [debate[name] for name in _ANSWER], m) for m in rounds)}
    if spec.examples == "reworked":
        names.add(_key(later, "reworked", spec.debate.min_agreement))
    return frozenset(names)


def _plain(section: DebateSpec | ModelSpec) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(section)
    return plain


def _key(*parts: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def table_graph(comparison: Comparison, finished: Iterable[str]) -> Graph:
    """Plans the one task of the comparison itself: the table over the runs of these names."""
    names = set(finished)
    compared = {row: run for row, run in comparison.compared.items() if run.name in names}
    store = store_url(comparison.template.spec.storage)
    task: Task = table(comparison.template, compared, store)
    return Graph((task,), (), False, comparison.template.spec.backoff_limit)
