"""What a run will ask of the servers and keep in the store, at most: counted from its rules, before anything is paid for. Pure.

Debates that end early ask less; answers that end early write less. Hours of GPUs follow from tokens only once a server's speed is
known: the status counts them as they are spent.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from maft.debate.society import Rules, held_out_rules, training_rules, validation_rules
from maft.records import trained_roles
from maft.spec import Spec

NUMBER = 4  # bytes: adapters are kept in single precision
TOKEN = 32  # bytes of a transcript per token written: id, text, a share of the prompt (31 were measured with short sums)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one debate, or of many."""

    requests: int = 0
    tokens: int = 0
    """Written."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.requests + other.requests, self.tokens + other.tokens)


def of_debates(spec: Spec) -> Cost:
    """Counts those of all debates of the run."""
    asked, held_out = spec.task.train + spec.task.probe, spec.held_out_task.held_out
    debates = [_debate(training_rules(spec, i), spec.agents, asked) for i in range(1, spec.iterations + 1)]
    debates += [_debate(held_out_rules(spec, i), spec.held_out_agents(i), held_out) for i in _held_out(spec)]
    validated, asked = [i for i in range(spec.iterations + 1) if spec.validated(i)], spec.evaluation.validation
    debates += [_debate(validation_rules(spec, i), spec.held_out_agents(i), asked) for i in validated]
    return sum(debates, Cost())


def _held_out(spec: Spec) -> list[int]:
    """Iterations whose agents debate the held-out questions: with validation one alone, whichever is the best."""
    evaluated = [i for i in range(spec.iterations + 1) if spec.evaluated(i)]
    return [i for i in evaluated if not spec.validated(i) or i == spec.iterations]


def _debate(rules: Rules, agents: int, questions: int) -> Cost:
    later = rules.debate.rounds - 1
    summaries = later * (1 if rules.fast else agents) if rules.debate.summarize and not rules.hinted else 0
    answers = agents * (2 if rules.hinted else 1 + later + rules.reworked)
    pairs = answers * (answers - 1) // 2 + answers if rules.answer == "judge" else 0  # with each other, and with the reference
    requests = questions * (answers + summaries + 2 * pairs)
    return Cost(requests, requests * max(each.new_tokens for each in (rules, *map(rules.of, range(agents)))))


def stored(spec: Spec, adapter: int, agents: Iterable[int]) -> int:
    """Estimates the bytes of the adapters of these agents in all iterations. adapter: the parameters of one."""
    trained = sum(agent in spec.trained_agents for agent in agents)
    return spec.iterations * trained * len(trained_roles(spec.debate)) * adapter * NUMBER


def transcript_bytes(debates: Cost) -> int:
    """Estimates the bytes of transcripts."""
    return debates.tokens * TOKEN
