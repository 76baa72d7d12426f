"""Who plays and by which rules: the agents of one iteration, the model behind each role, the server that has it."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as change
from hashlib import sha256

from msgspec.structs import replace

from maft import adapters
from maft.debate.prompts import Prompts
from maft.records import BASE, Message, Problem, Role
from maft.spec import AgentOverride, AnswerKind, DebateSpec, Spec, of_agent
from maft.store.base import Store


@dataclass(frozen=True, slots=True)
class Rules:
    """How the questions of one part are debated."""

    debate: DebateSpec
    prompts: Prompts
    answer: AnswerKind
    seed: int
    """Of the run."""
    iteration: int
    """Part of every seed."""
    hinted: bool = False
    """After a wrong answer the question is asked again with the right one, in place of debate (STaR)."""
    overrides: tuple[AgentOverride, ...] = ()
    """What some agents have otherwise."""
    reworked: bool = False
    """After the debate, whose first answer differs from the vote is asked again with the vote's."""

    def of(self, agent: int) -> "Rules":
        """Returns the rules for the answers of one agent."""
        return change(self, debate=of_agent(self.overrides, agent, self.debate), overrides=()) if self.overrides else self

    @property
    def new_tokens(self) -> int:
        """Counts the tokens that an answer may have, its thought included."""
        thinks = self.debate.thinking != "Disabled"
        return self.debate.max_tokens + (self.debate.thinking_tokens if thinks else 0)

    def room(self, context: int) -> int:
        """Computes how many tokens a prompt may have: half the context at least, however long answers may be."""
        return max(context - self.new_tokens, context // 2)

    def opening(self, problem: Problem) -> tuple[Message, ...]:
        """Returns the chat that the first answer answers: what stands before the question, and the question. Where agents have
        system turns of their own, that of the longest."""
        system = max((self.debate.system, *(each.system or "" for each in self.overrides)), key=len)
        return (*problem.opening(system), Message("user", self.prompts.ask(problem.question)))

    @property
    def fast(self) -> bool:
        """Tells whether answers keep their order, agents share one summary, and unanimity ends the debate."""
        return self.debate.mode == "fast"

    def key(self, *parts: object) -> int:
        """Makes a seed of 53 bits (exact in JSON) for one call, from the run's seed and what the call is for."""
        text = "/".join(str(part) for part in (self.seed, self.iteration, *parts))
        return int.from_bytes(sha256(text.encode()).digest()[:7]) >> 3


def training_rules(spec: Spec, iteration: int) -> Rules:
    """Makes the rules for training questions: they alone may be asked again with a hint."""
    prompts = Prompts(spec.task.prompt, spec.debate.prompts)
    hinted = spec.examples == "hinted"
    reworked = spec.examples == "reworked"
    return Rules(spec.debate, prompts, spec.task.answer_kind, spec.seed, iteration, hinted, spec.agent_overrides, reworked)


def held_out_rules(spec: Spec, iteration: int) -> Rules:
    """Makes the rules for held-out questions: the same debate, or one answer where the trained model answers alone."""
    debate = replace(spec.debate, rounds=1) if spec.answers_alone(iteration) else spec.debate
    asked = spec.held_out_task
    return Rules(
        debate, Prompts(asked.prompt, spec.debate.prompts), asked.answer_kind, spec.seed, iteration, overrides=spec.agent_overrides
    )


def validation_rules(spec: Spec, iteration: int) -> Rules:
    """Makes the rules for validation questions: those of held-out ones, about the task that is trained on."""
    prompts = Prompts(spec.task.prompt, spec.debate.prompts)
    return change(held_out_rules(spec, iteration), prompts=prompts, answer=spec.task.answer_kind)


@dataclass(frozen=True, slots=True)
class Society:
    """The agents: of each its models and its server."""

    generators: tuple[str, ...]
    critics: tuple[str, ...]
    servers: tuple[str, ...]
    """servers[n]: where the models of agent n are served, beside its base model."""
    based: tuple[int, ...] = ()
    """Agents whose base is the spec's model, where others have one of their own; empty: all."""

    @property
    def size(self) -> int:
        """Counts the agents: N."""
        return len(self.generators)

    def model(self, agent: int, round_: int, rules: Rules) -> str:
        """Names the model of a turn: the generator in round 1, later the critic, or the generator where there are no critics."""
        return self.critics[agent] if round_ > 1 and rules.debate.critics else self.generators[agent]

    def host(self, seed: int, agent: int | None = None) -> int:
        """Tells at which agent's server the base is asked: the agent's own if that has it, else whichever the seed decides, so that
        all have their part."""
        based = self.based or tuple(range(self.size))
        return based[seed % len(based)] if agent is None or agent not in based else agent

    def models(self) -> set[str]:
        """Lists every model that may be asked."""
        return {BASE, *self.generators, *self.critics}

    def on(self, server: str) -> set[str]:
        """Lists the models that one server has to answer for."""
        mine = [n for n in range(self.size) if self.servers[n] == server]
        return {BASE, *(self.generators[n] for n in mine), *(self.critics[n] for n in mine)}


def load(store: Store, run: str, spec: Spec, models_from: int, agents: int, servers: Sequence[str]) -> Society:
    """Loads the first `agents` agents as they are after iteration `models_from` (0: the base plays all roles), each at its server.

    Where no critics are trained they are never asked; with one model, all agents are agent 0.
    """
    one_model = spec.recipe.one_model and models_from > 0

    def names(role: Role) -> tuple[str, ...]:
        return tuple(adapters.current(store, run, models_from, role, 0 if one_model else n).name for n in range(agents))

    critics = names("critic") if spec.debate.critics else (BASE,) * agents
    based = tuple(n for n in range(agents) if not spec.has_own_model(n)) if spec.bases_differ else ()
    return Society(names("generator"), critics, assign_servers(servers, agents), based)


def assign_servers(names: Sequence[str], agents: int) -> tuple[str, ...]:
    """Gives each agent its server: its own, or the one that all share."""
    return tuple(names) if len(names) == agents else (names[0],) * agents
