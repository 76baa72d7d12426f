"""Examples as the trainer takes them: tokens, and which of them count, as the spec has it."""

from typing import Any

from maft.chat_template import ChatTemplate
from maft.errors import BadInput
from maft.records import Example
from maft.spec import TrainingSpec
from maft.train.dpo import Pair


def sample(training: TrainingSpec, template: ChatTemplate, example: Example) -> Any:
    """Tokenizes an example: Tokens, or for dpo a Pair. BadInput where dpo gets a single answer."""
    if training.method != "dpo":
        return template.tokens(example.messages, every_turn=training.loss_on == "all", thoughts=training.train_thoughts)
    if example.rejected is None:
        raise BadInput("training.method: dpo needs pairs, and this dataset has single answers; make the datasets anew")
    rejected = (*example.messages[:-1], example.rejected)
    chosen, refused = (template.tokens(m, every_turn=False, thoughts=training.train_thoughts) for m in (example.messages, rejected))
    return Pair(chosen, refused)
