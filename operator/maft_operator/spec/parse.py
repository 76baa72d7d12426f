"""The resource as frozen records. `parse` is the only way in; it takes defaults and bounds from the schema.

Field names are those of the schema (camelCase there); units and reasons stand in its descriptions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from maft_operator.spec.methods import PAPER, Recipe, applied
from maft_operator.spec.schema import BadSpec, checked

Topology = Literal["PerAgent", "Shared"]


class Part(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A section of the spec."""


class SecretKey(Part, frozen=True):
    """A key of a Secret."""

    name: str
    key: str


class SecretName(Part, frozen=True):
    """A Secret."""

    name: str


class Model(Part, frozen=True):
    """The base model."""

    source: str
    revision: str
    trust_remote_code: bool
    max_length: int
    cache_claim: str
    token_secret: SecretKey | None = None


class Arithmetic(Part, frozen=True):
    """Expressions of kind arithmetic."""

    operands: int
    minimum: int
    maximum: int


class Questions(Part, frozen=True, kw_only=True):
    """What is asked and how an answer is found."""

    kind: str
    source: str
    levels: tuple[int, ...]
    subjects: tuple[str, ...]
    prompt: str
    held_out: int
    answer: str | None = None

    @property
    def answers(self) -> str:
        """The kind of answer: given for jsonl, else the kind's own."""
        return self.answer or {"math": "math", "mmlu": "choice"}.get(self.kind, "number")


class Task(Questions, frozen=True, kw_only=True):
    """The questions."""

    held_out_source: str
    train: int
    probe: int
    seed: int
    arithmetic: Arithmetic


class EvaluationTask(Questions, frozen=True, kw_only=True):
    """Held-out questions of another task."""

    shots: int


class DebatePrompts(Part, frozen=True):
    """Templates of the turns after the first."""

    summarize: str
    revise: str
    concatenate: str
    cooperate: str
    hint: str


class Debate(Part, frozen=True):
    """How the agents debate."""

    rounds: int
    summarize: bool
    critics: bool
    cooperative: bool
    temperature: float
    top_p: float
    max_tokens: int
    min_agreement: int
    mode: Literal["paper", "fast"]
    prompts: DebatePrompts


class Lora(Part, frozen=True):
    """The adapters."""

    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]


class Training(Part, frozen=True):
    """How adapters are trained."""

    method: Literal["sft", "dpo", "distill"]
    beta: float
    lora: Lora
    learning_rate: float
    warmup: float
    weight_decay: float
    epochs: int
    batch_size: int
    batch_tokens: int
    critic_mix: float
    loss_on: Literal["last", "all"]
    start_from: Literal["previous", "base"]
    min_examples: int
    gpus: int
    topology: Topology


class Inference(Part, frozen=True):
    """The vLLM servers."""

    topology: Topology
    lifetime: Literal["Phase", "Run"]
    replicas: int
    gpus: int
    image: str
    extra_args: tuple[str, ...]


class EvaluationSpec(Part, frozen=True):
    """Held-out debates."""

    baselines: tuple[str, ...]
    diversity: int
    embedder: str
    every: int
    task: EvaluationTask | None = None


class Storage(Part, frozen=True):
    """The S3 bucket."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None
    credentials_secret: SecretName | None = None


class Spec(Part, frozen=True):
    """The whole spec, defaults filled in."""

    model: Model
    task: Task
    method: str
    seed: int
    agents: int
    iterations: int
    debate: Debate
    training: Training
    inference: Inference
    evaluation: EvaluationSpec
    suspend: bool
    backoff_limit: int
    queue_name: str
    active_deadline_seconds: int | None = None
    storage: Storage | None = None
    ttl_seconds_after_finished: int | None = None
    pod_template: dict[str, Any] | None = None

    @property
    def exam(self) -> Questions:
        """The held-out questions: of the same task, or of another one."""
        return self.evaluation.task or self.task


@dataclass(frozen=True, slots=True)
class Run:
    """One resource: where it lives, what it is called, what it wants. spec: with what its method changes (methods.py)."""

    namespace: str
    name: str
    spec: Spec
    recipe: Recipe = PAPER

    @property
    def key(self) -> str:
        """NAMESPACE/NAME, also the run's prefix in the store."""
        return f"{self.namespace}/{self.name}"


def parse(resource: Mapping[str, Any]) -> Run:
    """The resource as a Run; BadSpec with one line about the first thing wrong."""
    whole = checked(resource)
    metadata = whole["metadata"]
    try:
        spec = msgspec.convert(whole["spec"], Spec)
    except msgspec.ValidationError as error:
        raise BadSpec(f"spec: {error}") from None
    return Run(metadata.get("namespace") or "default", metadata["name"], *applied(spec))


# How a run is watched, paused and ended may change; what it computes may not (CEL rules of the schema).
MUTABLE = ("suspend", "backoffLimit", "ttlSecondsAfterFinished", "podTemplate")


def as_json(spec: Spec) -> str:
    """What the spec computes and where, defaults filled in, as one line of JSON; without what may change during a run."""
    whole: dict[str, Any] = msgspec.to_builtins(spec)
    return msgspec.json.encode({key: value for key, value in whole.items() if key not in MUTABLE}).decode()


def store_url(storage: Storage | None) -> str:
    """The store of a resource as the URL that programs take; empty without one."""
    if storage is None:
        return ""
    options = {name: value for name, value in (("endpoint", storage.endpoint), ("region", storage.region)) if value}
    prefix = f"/{quote(storage.prefix.strip('/'))}" if storage.prefix else ""
    return f"s3://{storage.bucket}{prefix}" + (f"?{urlencode(options)}" if options else "")
