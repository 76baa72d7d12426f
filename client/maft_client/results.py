"""What is known of a run, as frozen records, and what can go wrong. No I/O."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maft_operator.ended import REJECTED

Json = dict[str, Any]
RUNNING, COMPLETE, FAILED, STOPPED = "Running", "Complete", "Failed", "Stopped"


class MaftError(Exception):
    """Anything that this package raises. One line."""


class Refused(MaftError):
    """The resource is wrong, or somebody may not do that: the field, what was found, what to do."""


class NoSuchRun(MaftError):
    """There is no run of that name."""


class Unreachable(MaftError):
    """Whoever knows does not answer now, or not as it should: another try may."""


class RunFailed(MaftError):
    """The run has ended without a result."""

    def __init__(self, status: "Status") -> None:
        super().__init__(f"{status.run}: {status.reason}: {status.message}" if status.reason else f"{status.run}: {status.message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Score:
    """A mean over questions with its standard error, both as shares from 0 to 1."""

    mean: float
    stderr: float

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.stderr:.1f}"


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is."""

    run: str
    """NAMESPACE/NAME."""
    phase: str
    """Of a resource its own; of this machine Running, Complete, Failed or Stopped."""
    over: bool = False
    """It goes on no more by itself."""
    iteration: str = ""
    """The iteration under way, of how many: 1/2."""
    progress: str = ""
    """Percent, with the time left where that is known."""
    accuracy: Score | None = None
    """Held-out accuracy of the debate in the last evaluated iteration; of a comparison, of its table's best method."""
    base: Score | None = None
    """The same of one answer of the untrained model."""
    reason: str = ""
    """Why it waits or failed, in one word of docs/status.md."""
    message: str = ""
    """The same in a line."""
    report: str = ""
    """Where the page lies: a path or a URL."""
    adapters: str = ""
    """Where the PEFT adapter directories lie that count: of the best iteration on the validation questions, else of the last."""

    @property
    def failed(self) -> bool:
        """Tells whether it ended without a result."""
        return self.phase in (FAILED, REJECTED)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. time: ISO 8601; empty where nobody wrote it down."""

    time: str
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Results:
    """A run's iterations in numbers, one record each: `iteration` (0: untrained), as shares `accuracy` of the debate, `majority`
    and `answer` of the first round, `consensus`, each with its `…Stderr`; more where it is known. A comparison's runs, one record
    each: `method`, `seed`, `run`, `phase`, `accuracy` with its error."""

    run: str
    records: Sequence[Mapping[str, Any]]

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def frame(self) -> Any:
        """Makes a pandas DataFrame with a row an iteration, or a run; MaftError where there is no pandas."""
        try:
            import pandas
        except ModuleNotFoundError:
            raise MaftError("the package pandas is missing; pip install pandas, or take .records") from None
        index = "iteration" if self.records and all("iteration" in record for record in self.records) else None
        return pandas.DataFrame.from_records([dict(record) for record in self.records], index=index)


def flat(row: Mapping[str, Any]) -> Json:
    """Writes a row of a status or an evaluation with one value a field: scores as two, parts of a part with a dot between."""
    made: Json = {}
    for key, value in row.items():
        if not isinstance(value, Mapping):
            made[key] = value
        elif {"mean", "stderr"} <= set(value):
            made |= {key: value["mean"], f"{key}Stderr": value["stderr"]}
        else:
            made |= {f"{key}.{inner}": number for inner, number in flat(value).items()}
    return made


def score(value: Any) -> Score | None:
    """Reads a score; None where there is none."""
    if not isinstance(value, Mapping) or not {"mean", "stderr"} <= set(value):
        return None
    return Score(float(value["mean"]), float(value["stderr"]))
