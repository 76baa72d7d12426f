"""The spec of a run as frozen records: what the resource asks for, defaults filled in, and what its method makes of it.

Both packages read these records: the control plane makes them from the resource, a program gets them as one JSON argument.
Names are those of the CustomResourceDefinition in snake case; defaults, bounds and units stand there (docs/resource.md). A field
that is newer than the first release with this format has its default here as well: what a run that began before it ran with.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self, TypeVar

import msgspec

FORMAT = 1  # of run.json, commits and transcripts; docs/formats.md says what raises it
# What decoding raises for JSON of somebody else: another shape or none at all, bytes that are no UTF-8, nesting without an end.
UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
# Variable with the key of a run's servers, for them (vLLM reads it by this name) and for the programs that ask them.
SERVER_KEY = "VLLM_API_KEY"
AnswerKind = Literal["number", "choice", "text", "math", "code", "judge", "semantic"]
Examples = Literal["first", "last", "hinted", "pairs", "graded", "reworked"]
TaskKind = Literal["arithmetic", "jsonl", "gsm8k", "math", "mmlu", "reasoning-gym"]
# Of kinds of tasks whose answers are no numbers; each generator of reasoning-gym has a form of its own (answers/generators.py).
ANSWERS: dict[TaskKind, AnswerKind] = {"math": "math", "mmlu": "choice", "reasoning-gym": "text"}
Thinking = Literal["Auto", "Enabled", "Disabled"]
Topology = Literal["PerAgent", "Shared"]
# Kinds of targets with room for the report, which holds questions and debates, and whether they get it where nobody says so:
# trackers do, and what others may read does not.
REPORTS: Mapping[str, bool] = {"mlflow": True, "wandb": True, "hub": False, "oci": False}
PREFERENCES = ("dpo", "kto")  # ways of training that learn what is better than something else, at a lower rate
# Of `training`: where it runs, no matter what comes out.
TRAINING_PLACES = ("gpus", "nodes", "topology", "parallelism", "checkpointMinutes", "sharedMemory", "nccl")


class Section(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A part of the spec. camelCase in JSON, fields that this release does not know are passed over."""


SectionT = TypeVar("SectionT", bound=Section)


class SecretKey(Section, frozen=True, kw_only=True):
    """Names a key of a Secret in the run's namespace."""

    name: str
    key: str


class SecretName(Section, frozen=True, kw_only=True):
    """Names a Secret in the run's namespace."""

    name: str


class ModelSpec(Section, frozen=True, kw_only=True):
    """The base model."""

    source: str
    revision: str
    trust_remote_code: bool
    max_length: int
    cache_claim: str
    chat_template_arguments: dict[str, Any] = msgspec.field(default_factory=dict)
    date: str = "2026-01-01"
    """What templates that write today's date are told: YYYY-MM-DD."""
    token_secret: SecretKey | None = None


class ArithmeticSpec(Section, frozen=True, kw_only=True):
    """Expressions of kind arithmetic."""

    operands: int
    minimum: int
    maximum: int


class GeneratorSpec(Section, frozen=True, kw_only=True):
    """A generator of reasoning-gym."""

    name: str
    config: dict[str, Any]
    """Its arguments, in its own words."""


class SemanticSpec(Section, frozen=True, kw_only=True):
    """Where the vectors of answers tell which are the same."""

    embedder: str = "package"
    """`package`, or a folder."""
    threshold: float | None = None
    """Cosine from which on two answers are the same; None: fitted on the labelled pairs of the probe."""


class QuestionsSpec(Section, frozen=True, kw_only=True):
    """What is asked and how an answer is found."""

    kind: TaskKind
    source: str
    levels: tuple[int, ...]
    subjects: tuple[str, ...]
    prompt: str
    held_out: int
    answer: AnswerKind | None = None
    generator: GeneratorSpec | None = None

    @property
    def answer_kind(self) -> AnswerKind:
        """Names the kind of answer: the one given, else the task kind's own."""
        if self.answer:
            return self.answer
        return ANSWERS.get(self.kind, "number")


class TaskSpec(QuestionsSpec, frozen=True, kw_only=True):
    """The questions of training, of the probe and, unless they come from another task, of the evaluation."""

    held_out_source: str
    train: int
    probe: int
    seed: int
    arithmetic: ArithmeticSpec
    semantic: SemanticSpec = SemanticSpec()


class EvaluationTaskSpec(QuestionsSpec, frozen=True, kw_only=True):
    """Held-out questions of another task."""

    shots: int


class PromptsSpec(Section, frozen=True, kw_only=True):
    """Templates of the turns after the first."""

    summarize: str
    revise: str
    concatenate: str
    cooperate: str
    hint: str
    reflect: str = (
        "Go through your answer step by step. If you find a mistake, mend it; if not, keep the answer. Then answer again:"
        " {question} Make sure to state your answer at the end of the response."
    )
    judge: str = (
        "Question: {question}\n\nAnswer A: {one}\n\nAnswer B: {other}\n\n"
        "Do answers A and B say the same? Reply with one word, yes or no."
    )


class SummarizerSpec(Section, frozen=True, kw_only=True):
    """Who summarizes in place of the base model."""

    agent: int
    """From 0; its generator, as it answers in the same debate."""


class DebateSpec(Section, frozen=True, kw_only=True):
    """How the agents debate."""

    rounds: int
    summarize: bool
    summarizer: SummarizerSpec | None = None
    critics: bool
    cooperative: bool
    temperature: float
    top_p: float
    max_tokens: int
    system: str = ""
    thinking: Thinking = "Auto"
    thinking_tokens: int = 0
    show_thoughts: bool = False
    min_agreement: int
    mode: Literal["paper", "fast"]
    shards: int = 1
    prompts: PromptsSpec


class LoraSpec(Section, frozen=True, kw_only=True):
    """The adapters."""

    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    experts: bool = False


class NcclSpec(Section, frozen=True, kw_only=True):
    """How GPUs that hold one base together talk to each other."""

    interface: str = ""
    infini_band: bool = True
    debug: Literal["VERSION", "WARN", "INFO", "TRACE"] = "WARN"


class TrainingSpec(Section, frozen=True, kw_only=True):
    """How adapters are trained."""

    method: Literal["sft", "dpo", "kto", "distill"]
    beta: float
    distill_from: Literal["reworked", "first", "last"] = "reworked"
    """Answers that distillation learns."""
    lora: LoraSpec
    learning_rate: float
    preference_rate: float = 0.1
    """Factor on it where preferences are learned."""
    warmup: float
    weight_decay: float
    epochs: int
    batch_size: int
    batch_tokens: int
    critic_mix: float
    loss_on: Literal["last", "all"]
    train_thoughts: bool = True
    start_from: Literal["previous", "base"]
    min_examples: int
    gpus: int | None = None
    nodes: int = 1
    shared_memory: str = ""
    nccl: NcclSpec = NcclSpec()
    topology: Topology
    parallelism: Literal["Adapters", "Sharded"] = "Adapters"
    base: Literal["full", "nf4"] = "full"
    checkpoint_minutes: int = 10

    @property
    def peak_rate(self) -> float:
        """Computes the highest learning rate of the schedule."""
        return self.learning_rate * (self.preference_rate if self.method in PREFERENCES else 1.0)


class Override(Section, frozen=True, kw_only=True, omit_defaults=True):
    """Fields of a section that are otherwise; None: as there."""

    def over(self, section: SectionT) -> SectionT:
        """Returns the section with the fields of it that are otherwise."""
        own = {name: value for name in section.__struct_fields__ if (value := getattr(self, name, None)) is not None}
        whole = {n: v.over(getattr(section, n)) if isinstance(v, Override) else v for n, v in own.items()}
        return msgspec.structs.replace(section, **whole)


class LoraOverride(Override, frozen=True, kw_only=True):
    """What one agent's adapters have otherwise."""

    rank: int | None = None
    alpha: int | None = None
    dropout: float | None = None
    target_modules: tuple[str, ...] | None = None


class ModelOverride(Override, frozen=True, kw_only=True):
    """The base model of one agent. What belongs to a model and is not said is not the other one's either."""

    source: str
    revision: str | None = None
    trust_remote_code: bool | None = None
    max_length: int | None = None
    chat_template_arguments: dict[str, Any] | None = None

    def over(self, section: SectionT) -> SectionT:
        """Returns that model, with where models are kept and how long they may be as in the section."""
        return super().over(msgspec.structs.replace(section, revision="", trust_remote_code=False, chat_template_arguments={}))


class AgentOverride(Override, frozen=True, kw_only=True):
    """What one agent has otherwise than the others."""

    agent: int
    """From 0."""
    model: ModelOverride | None = None
    system: str | None = None
    thinking: Thinking | None = None
    temperature: float | None = None
    top_p: float | None = None
    learning_rate: float | None = None
    lora: LoraOverride | None = None


def of_agent(overrides: Iterable[AgentOverride], agent: int, section: SectionT) -> SectionT:
    """Returns the section as that agent has it."""
    return next((override.over(section) for override in overrides if override.agent == agent), section)


class InferenceSpec(Section, frozen=True, kw_only=True):
    """The vLLM servers."""

    topology: Topology
    lifetime: Literal["Phase", "Run"]
    replicas: int
    gpus: int | None = None
    shared_memory: str = ""
    startup_seconds: int = 1800
    placement_seconds: int = 600
    image: str
    extra_args: tuple[str, ...]


class EvaluationSpec(Section, frozen=True, kw_only=True):
    """Held-out debates."""

    baselines: tuple[Literal["base", "majority", "debate"], ...]
    diversity: int
    embedder: str
    every: int
    validation: int = 0
    task: EvaluationTaskSpec | None = None


class StorageSpec(Section, frozen=True, kw_only=True):
    """The S3 bucket."""

    bucket: str
    prefix: str
    region: str
    endpoint: str | None = None
    credentials_secret: SecretName | None = None


class BudgetSpec(Section, frozen=True, kw_only=True):
    """What the run may take before it ends."""

    seconds: int | None = None
    gpu_hours: float | None = None
    tokens: int | None = None


class ExportSpec(Section, frozen=True, kw_only=True):
    """A target that gets what the run makes."""

    to: Literal["mlflow", "otel", "hub", "oci"]
    address: str
    license: str
    report: bool | None = None
    """Whether it gets the report; None: as its kind does (REPORTS)."""
    token_secret: SecretKey | None = None

    @property
    def target(self) -> str:
        """Writes it as the command line does: KIND=WHERE."""
        return f"{self.to}={self.address}"


def report_flags(wanted: bool | None) -> list[str]:
    """Writes how `maft.export` is told whether targets get the report; None: as their kinds do."""
    return [] if wanted is None else ["--report" if wanted else "--no-report"]


class StopSpec(Section, frozen=True, kw_only=True):
    """When the run ends before its last iteration."""

    patience: int = 0
    """Validated iterations in a row without gain; 0: it does not."""
    min_gain: float = 0.0
    """What is a gain: more than so many standard errors of the paired difference to the best iteration before."""


class Recipe(Section, frozen=True, kw_only=True):
    """What a method needs that the spec has no field for; set by the control plane from `method`."""

    one_model: bool = False
    """All agents are copies of one model, trained on everybody's examples."""
    examples: Examples = "first"
    """What an example is. first: a first answer that equals the vote (and whole dialogues for critics); last: a last answer that
    does (of distillation, see Spec.examples); hinted: a right answer, given after a hint where the first was wrong (reads labels);
    pairs: of first answers, one that equals the vote and one that does not; graded: a first answer, and whether it equals the vote;
    reworked: a first answer that equals the vote, or one that does after the vote's was given as a hint."""
    alone: bool = False
    """A trained model answers the held-out questions once, without debate."""


class Spec(Section, frozen=True, kw_only=True):
    """What a run computes and where: fixed from its start, and the one argument that all its programs share."""

    model: ModelSpec
    task: TaskSpec
    method: str
    seed: int
    agents: int
    iterations: int
    debate: DebateSpec
    training: TrainingSpec
    inference: InferenceSpec
    evaluation: EvaluationSpec
    stop_when: StopSpec = StopSpec()
    queue_name: str
    active_deadline_seconds: int | None = None
    storage: StorageSpec | None = None
    group: str = ""
    """What it shares questions and the base's calls under, in its namespace; empty: nothing is shared."""
    agent_overrides: tuple[AgentOverride, ...] = ()
    recipe: Recipe = Recipe()

    @property
    def examples(self) -> Examples:
        """Tells what an example is: as the recipe says it, but for what distillation learns. Programs that a run began with may be
        older than that choice: they go by the recipe, whose `last` is what they know."""
        distilled = self.training.method == "distill" and self.recipe.examples == "last"
        return self.training.distill_from if distilled else self.recipe.examples

    def debate_of(self, agent: int) -> DebateSpec:
        """Tells how that agent debates."""
        return of_agent(self.agent_overrides, agent, self.debate)

    def training_of(self, agent: int) -> TrainingSpec:
        """Tells how that agent is trained."""
        return of_agent(self.agent_overrides, agent, self.training)

    def model_of(self, agent: int) -> ModelSpec:
        """Tells which base model that agent has."""
        own = next((each.model for each in self.agent_overrides if each.agent == agent), None)
        return own.over(self.model) if own else self.model

    def of_base(self, agent: int) -> Self:
        """Returns the spec as a server of that agent's base takes it: with that model, and the largest rank of all who have it."""
        model = self.model_of(agent)
        ranks = (self.training_of(n).lora.rank for n in range(self.agents) if self.model_of(n) == model)
        rank = max(ranks, default=self.training.lora.rank)
        lora = msgspec.structs.replace(self.training.lora, rank=rank)
        training = msgspec.structs.replace(self.training, lora=lora)
        return msgspec.structs.replace(self, model=model, training=training, agent_overrides=())

    def has_own_model(self, agent: int) -> bool:
        """Tells whether that agent's base is another one than the spec's."""
        return self.model_of(agent) != self.model

    def by_base(self, agents: int) -> list[list[int]]:
        """Sorts the agents, of so many, by their base models; in the order of the first of each."""
        groups: list[list[int]] = []
        for agent in range(agents):
            alike = next((group for group in groups if self.model_of(group[0]) == self.model_of(agent)), None)
            if alike is None:
                groups.append([agent])
            else:
                alike.append(agent)
        return groups

    @property
    def bases_differ(self) -> bool:
        """Tells whether any agent has another base than the spec's."""
        return any(self.has_own_model(each.agent) for each in self.agent_overrides)

    @property
    def largest_rank(self) -> int:
        """Finds the largest rank of an adapter: servers keep room for it."""
        return max((self.training_of(n).lora.rank for n in self.trained_agents), default=self.training.lora.rank)

    @property
    def held_out_task(self) -> QuestionsSpec:
        """Tells where held-out questions come from: the same task, or another one."""
        return self.evaluation.task or self.task

    @property
    def trained_agents(self) -> range:
        """Lists the agents that are trained: all, the one whose copies they are, or none."""
        return range(0 if not self.iterations else 1 if self.recipe.one_model else self.agents)

    def evaluated(self, iteration: int) -> bool:
        """Tells whether the held-out questions are debated after that iteration; 0: by the untrained model."""
        if iteration == 0:  # an untrained method has nothing else
            return bool(self.evaluation.baselines) or self.iterations == 0
        return iteration % self.evaluation.every == 0 or iteration == self.iterations

    def validated(self, iteration: int) -> bool:
        """Tells whether the validation questions are debated after that iteration."""
        return self.evaluation.validation > 0 and iteration > 0 and self.evaluated(iteration)

    def answers_alone(self, iteration: int) -> bool:
        """Tells whether one trained model answers held-out questions once, without debate."""
        return self.recipe.alone and iteration > 0

    def held_out_agents(self, iteration: int) -> int:
        """Counts the agents that answer the held-out questions."""
        return 1 if self.answers_alone(iteration) else self.agents


class RunSpec(Spec, frozen=True, kw_only=True):
    """With it, what may change while the run is under way: how it is watched, paused and ended."""

    suspend: bool
    backoff_limit: int
    budget: BudgetSpec = BudgetSpec()
    export: tuple[ExportSpec, ...] = ()
    workload_priority_class: str = ""
    managed_by: str = ""
    gpu_resource: str = ""
    ttl_seconds_after_finished: int | None = None
    pod_template: dict[str, Any] | None = None


MUTABLE = tuple(name for name in RunSpec.__struct_encode_fields__ if name not in Spec.__struct_encode_fields__)


class Compared(Section, frozen=True, kw_only=True):
    """One finished run of a comparison."""

    method: str
    seed: int
    run: str
    """Its name in the group's namespace."""
    iteration: int
    """Whose held-out debate counts: the last one, unless validation questions chose a better one (evaluation.validation)."""


class Head(msgspec.Struct, frozen=True):
    """What is read of a file before anything else. format: 0 where it names none."""

    format: int = 0


def foreign_format(number: int) -> str:
    """Says what release a file of that format is of; nothing where this one reads it."""
    if number == 0:
        return "made before formats had numbers, by maft 0.1 or older"
    return "" if number == FORMAT else f"is of format {number}, this release reads {FORMAT}"


def immutable_spec_json(spec: Spec) -> str:
    """Writes what stays the same during a run, defaults filled in, as one line of JSON."""
    whole: dict[str, Any] = msgspec.to_builtins(spec)
    fixed = {key: value for key, value in whole.items() if key not in MUTABLE}
    return msgspec.json.encode({**fixed, "queueName": ""}).decode()  # may change; programs of release 0.2 want one


def decode_spec(text: str | bytes) -> Spec:
    """Reads what `immutable_spec_json` wrote; one of UNREADABLE names what is wrong with it."""
    return msgspec.json.decode(text, type=Spec)
