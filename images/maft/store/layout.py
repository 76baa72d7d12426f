"""Where objects lie in the store, below `<namespace>/<name>/` of a run. Prefixes end with a slash."""

from maft.records import Role

PROBLEMS = "problems/"
REPORT = "report/"
TRANSCRIPTS = "part-0.jsonl"
PROBE = "probe.jsonl"
EVALUATION = "evaluation.json"
TIMING = "timing.json"
DIVERSITY = "diversity.json"


def debate(run: str, iteration: int) -> str:
    """Transcripts of the training questions."""
    return f"{run}/iterations/{iteration}/debate/"


def evaluation(run: str, iteration: int) -> str:
    """Transcripts of the held-out questions, and their scores."""
    return f"{run}/iterations/{iteration}/evaluation/"


def diversity(run: str, iteration: int) -> str:
    """How far the agents of an iteration are from each other."""
    return f"{run}/iterations/{iteration}/diversity/"


def datasets(run: str, iteration: int) -> str:
    """The 2N datasets of an iteration."""
    return f"{run}/iterations/{iteration}/datasets/"


def adapter(run: str, iteration: int, role: Role, agent: int) -> str:
    """One PEFT adapter directory."""
    return f"{run}/iterations/{iteration}/adapters/{role}-{agent}/"


def calls(group: str) -> str:
    """Calls of the base model, cached for the runs of a comparison."""
    return f"{group}/calls/"


def dataset_file(role: Role, agent: int) -> str:
    """The name of a dataset below `datasets`."""
    return f"{role}-{agent}.jsonl"
