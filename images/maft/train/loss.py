"""Log-probabilities of targets without the logits of all of them at once, in sft and dpo.

The head is frozen, so all that has to be known of it is the gradient to the hidden states: each chunk of targets computes its
part of both at once, and nothing of the chunk is kept or computed again. A row of gradients is of its target alone: what the
objective makes of the log-probabilities only scales it. Torch's linear_cross_entropy gives one loss, for plain heads, and took
ten times as long on a CPU (torch 2.13); transformers' chunked loss computes every chunk twice.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

CHUNK = {"cpu": 2**24, "cuda": 2**26}  # logits of a chunk, 4 bytes each
LEAST = 64  # targets of a chunk, however large the vocabulary: with fewer, the head's weights are read too often


@dataclass(frozen=True, slots=True)
class Head:
    """A language-model head, and what the model does with what comes out of it."""

    weight: torch.Tensor
    """[vocabulary, hidden]"""
    bias: torch.Tensor | None = None
    scale: float = 1.0
    """Logits are multiplied by it."""
    cap: float | None = None
    """Then they go through cap * tanh(logits / cap)."""

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Computes [k, vocabulary] in single precision. hidden: [k, hidden]."""
        raw = linear(hidden.to(self.weight.dtype), self.weight, self.bias).float()
        raw = raw if self.scale == 1.0 else raw.mul_(self.scale)
        return raw if self.cap is None else raw.div_(self.cap).tanh_().mul_(self.cap)

    def rows(self) -> int:
        """Counts the targets of a chunk."""
        return max(LEAST, CHUNK.get(self.weight.device.type, 2**24) // int(self.weight.shape[0]))


def head_of(model: Any) -> Head | None:
    """Reads the model's head, scale and cap where its configuration names them in a known way; whether that is all of it is for
    a trial to tell (forward.py). None: it has no plain head."""
    module, config = model.get_output_embeddings(), model.config.get_text_config()
    if type(module) is not torch.nn.Linear:
        return None

    def number(name: str) -> float | None:
        value = getattr(config, name, None)
        return float(value) if isinstance(value, int | float) and value else None

    scale = 1 / (number("logits_scaling") or 1.0) * (number("logit_scale") or 1.0) * (number("lm_head_multiplier") or 1.0)
    if narrow := number("dim_model_base"):
        scale *= narrow / config.hidden_size
    return Head(module.weight, module.bias, scale, number("final_logit_softcapping"))


def log_probabilities(head: Head, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Computes [k], single precision, in nats. hidden: [k, hidden]; labels: [k]."""
    made: torch.Tensor = _InChunks.apply(hidden, labels, head)
    return made


class _InChunks(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, head: Head) -> torch.Tensor:
        each = torch.empty(len(labels), device=hidden.device)
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if wanted else None
        for start in range(0, len(labels), rows := head.rows()):
            part = slice(start, start + rows)
            logits, label = head.logits(hidden[part]), labels[part, None]
            picked, whole = logits.gather(1, label), logits.logsumexp(1, keepdim=True)
            each[part] = (picked - whole)[:, 0]
            if gradient is not None:
                gradient[part] = _slope(head, logits, label, picked, whole) @ head.weight
        ctx.save_for_backward(*([gradient] if wanted else []))
        return each

    @staticmethod
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale[:, None].to(gradient.dtype), None, None


def _slope(head: Head, logits: torch.Tensor, label: torch.Tensor, picked: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """[k, vocabulary], of a log-probability to what the head's weights make: (1 at the label) - softmax. In place of the logits
    where nothing else needs them."""
    bend = None if head.cap is None else 1 - (logits / head.cap).square_()
    slope = logits.sub_(whole).exp_().neg_().scatter_(1, label, 1 - (picked - whole).exp())
    slope = slope if bend is None else slope.mul_(bend)
    return (slope if head.scale == 1.0 else slope.mul_(head.scale)).to(head.weight.dtype)
