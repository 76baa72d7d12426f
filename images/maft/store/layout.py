"""Where objects lie in the store, below `<namespace>/<name>/` of a run. Prefixes end with a slash."""

from maft.records import Role

PROBLEMS = "problems/"
ITERATIONS = "iterations/"
REPORT = "report/"
COMPARE = "compare/"
LOGS = "logs/"
PREFLIGHT = "preflight/"
MODELS = "models/"  # of a comparison alone
CALLS = "calls/"
ASKED = "asked/"
EXPORT = "export/"
LOCAL = "local/"  # logs and summaries of `maft run`, in a folder alone
RUN = "run.json"
TRANSCRIPTS = "part-0.jsonl"
PROBE = "probe.jsonl"
HELD_OUT, VALIDATION = "held-out.jsonl", "validation.jsonl"  # files of PROBLEMS, as `questions` names them
EVALUATION = "evaluation.json"
TIMING = "timing.json"
DIVERSITY = "diversity.json"
# All that lies below a run, beside run.json; anything else there is somebody else's.
OF_A_RUN = (PROBLEMS, ITERATIONS, REPORT, COMPARE, LOGS, PREFLIGHT, MODELS, CALLS, ASKED, EXPORT, LOCAL)


def logs(run: str) -> str:
    """Names the prefix of what programs wrote to their streams (maft.logs)."""
    return f"{run}/{LOGS}"


def preflight(run: str, key: str) -> str:
    """Names the prefix of what was tried with the spec of that key (trials.py): a small model's configuration and the adapter that
    was trained on it."""
    return f"{run}/{PREFLIGHT}{key}/"


def model(group: str, key: str) -> str:
    """Names the prefix of what the runs of a comparison know of a model that single agents have."""
    return f"{group}/{MODELS}{key}/"


def exported(run: str, target: str) -> str:
    """Names the object that says what was sent to one target."""
    return f"{run}/{EXPORT}{target}.json"


def questions(part: str) -> str:
    """Names the file of a part of the questions below PROBLEMS: train, held-out, probe or validation."""
    return f"{part}.jsonl"


def debate(run: str, iteration: int) -> str:
    """Names the prefix of the transcripts of training questions."""
    return f"{run}/{ITERATIONS}{iteration}/debate/"


def evaluation(run: str, iteration: int) -> str:
    """Names the prefix of the transcripts of held-out questions, and their scores."""
    return f"{run}/{ITERATIONS}{iteration}/evaluation/"


def validation(run: str, iteration: int) -> str:
    """Names the prefix of the transcripts of validation questions, and their scores."""
    return f"{run}/{ITERATIONS}{iteration}/validation/"


def shards(prefix: str) -> str:
    """Names the prefix of what several programs debated of the questions of one stage, until it is committed as a whole."""
    return f"{prefix}shards/"


def debate_shard(prefix: str, number: int, of: int) -> str:
    """Names the prefix of one such program's: its journal, then its transcripts."""
    return f"{shards(prefix)}{number}-of-{of}/"


def diversity(run: str, iteration: int) -> str:
    """Names the prefix of how far the agents of an iteration are from each other."""
    return f"{run}/{ITERATIONS}{iteration}/diversity/"


def datasets(run: str, iteration: int) -> str:
    """Names the prefix of the 2N datasets of an iteration."""
    return f"{run}/{ITERATIONS}{iteration}/datasets/"


def adapter(run: str, iteration: int, role: Role, agent: int) -> str:
    """Names the prefix of one PEFT adapter directory."""
    return f"{run}/{ITERATIONS}{iteration}/adapters/{role}-{agent}/"


def checkpoint(run: str, iteration: int, role: Role, agent: int) -> str:
    """Names the object that an adapter in training goes on from; there is none once the adapter is committed."""
    return f"{adapter(run, iteration, role, agent)}checkpoint.safetensors"


def meeting(run: str, iteration: int, role: Role, agent: int) -> str:
    """Names the object that holds the secret of the pods that train this adapter, and maybe others, together; there is none once
    they are done."""
    return f"{adapter(run, iteration, role, agent)}meeting"


def calls(group: str) -> str:
    """Names the prefix of the base model's calls, cached for the runs of a comparison."""
    return f"{group}/{CALLS}"


def asked(run: str) -> str:
    """Names the prefix of questions that users asked, in the format of `task.source`."""
    return f"{run}/{ASKED}"


def dataset_file(role: Role, agent: int) -> str:
    """Names a dataset below `datasets`."""
    return f"{role}-{agent}.jsonl"


def shard(name: str, number: int) -> str:
    """Names a file of JSON lines that goes on after `name`, itself number 0: part-1.jsonl, generator-0.part-1.jsonl."""
    if not number:
        return name
    before = "" if name == TRANSCRIPTS else f"{name.removesuffix('.jsonl')}."
    return f"{before}part-{number}.jsonl"
