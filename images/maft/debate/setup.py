"""What all debates of one program share: who plays, by which rules, where, and how each of them is asked."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from maft.answers.equality import Checker
from maft.answers.likeness import Likeness
from maft.chat_template import ChatTemplate
from maft.debate.engine import Engine, Request
from maft.debate.society import Rules, Society

VERDICT = 32  # tokens of a yes or no, and of the words that small models put before it; one that thinks has as many as an answer


@dataclass(frozen=True, slots=True)
class Setup:
    """What all debates of one program share."""

    rules: Rules
    society: Society
    engine: Engine
    template: ChatTemplate
    checker: Checker
    contexts: Mapping[str, int]
    """Tokens, by server."""
    judge: ThreadPoolExecutor
    """Comparing answers may block, the event loop may not. A thread for each worker of the checker."""
    own: Mapping[int, ChatTemplate] = field(default_factory=dict)
    """By agent: the templates of those that have another one than the base."""
    likeness: Likeness | None = None
    """Where vectors of answers are compared."""

    def template_of(self, agent: int | None) -> ChatTemplate:
        """Returns the template by which that agent's models are asked; None: the base."""
        return self.template if agent is None else self.own.get(agent, self.template)

    def rules_of(self, agent: int | None) -> Rules:
        """Returns the rules for what that agent says; None: for what nobody says, as a summary or a verdict."""
        return self.rules if agent is None else self.rules.of(agent)

    def request(
        self,
        model: str,
        prompt: Sequence[int],
        room: int,
        seed: int,
        agent: int | None = None,
        *,
        asked: int | None = None,
        greedy: bool = False,
    ) -> Request:
        """Makes the request for one answer. room: tokens that the context has left for it; agent: whose it is, None: nobody's;
        asked: whose model it is that answers then, None: the base; greedy: a verdict, without chance, of which the first words
        count."""
        whose = asked if agent is None else agent  # whether it thinks goes with its template, how it is sampled does not
        template, debate = self.template_of(whose), self.rules_of(agent).debate
        most = VERDICT if greedy and not template.thinks else self.rules_of(whose).new_tokens
        return Request(
            model=model,
            prompt=prompt,
            seed=seed,
            temperature=0.0 if greedy else debate.temperature,
            top_p=1.0 if greedy else debate.top_p,
            max_tokens=min(most, room),
            stop_token_ids=template.stops,
            skip_special_tokens=not template.keeps_special,
        )
