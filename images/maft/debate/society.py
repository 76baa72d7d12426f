"""Who plays: the agents of one iteration, the model behind each role, the server that has it, and the rules of debate."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from maft.chat_template import Prompts
from maft.records import BASE


@dataclass(frozen=True, slots=True)
class Rules:
    """How a debate goes. rounds: M, the first answers included; max_tokens: new tokens per answer and summary;
    fast: canonical order, one shared summary, stop on unanimity; seed: of the run; iteration: part of every seed;
    hinted: after a wrong answer the question is asked again with the right one, in place of debate (STaR)."""

    rounds: int
    summarize: bool
    critics: bool
    cooperative: bool
    fast: bool
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    iteration: int
    prompts: Prompts
    hinted: bool = False

    def key(self, *parts: object) -> int:
        """A seed of 53 bits (exact in JSON) for one call, from the run's seed and what the call is for."""
        text = "/".join(str(part) for part in (self.seed, self.iteration, *parts))
        return int.from_bytes(sha256(text.encode()).digest()[:7]) >> 3


@dataclass(frozen=True, slots=True)
class Society:
    """generators[n] and critics[n]: the models of agent n; servers[n]: where they are served, beside the base model."""

    generators: tuple[str, ...]
    critics: tuple[str, ...]
    servers: tuple[str, ...]

    @property
    def size(self) -> int:
        """N."""
        return len(self.generators)

    def model(self, agent: int, round_: int, rules: Rules) -> str:
        """Round 1 is the generator's; later rounds the critic's, or the generator's where there are no critics."""
        return self.critics[agent] if round_ > 1 and rules.critics else self.generators[agent]

    def models(self) -> set[str]:
        """Every model that may be asked."""
        return {BASE, *self.generators, *self.critics}

    def on(self, server: str) -> set[str]:
        """The models that one server has to answer for."""
        mine = [n for n in range(self.size) if self.servers[n] == server]
        return {BASE, *(self.generators[n] for n in mine), *(self.critics[n] for n in mine)}


def seat(names: Sequence[str], agents: int) -> tuple[str, ...]:
    """The server of each agent: its own, or the one that all share."""
    return tuple(names) if len(names) == agents else (names[0],) * agents
