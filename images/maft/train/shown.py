"""What is shown of a training: its loss as it goes, and in the end the adapters that came out."""

from collections.abc import Sequence

from prometheus_client import Gauge

from maft import program
from maft.records import Adapter
from maft.summaries import AdapterSummary, TrainSummary

SHOWN = 20  # adapters in a summary, which holds 4 KiB


def loss_gauge(progress: program.Progress) -> Gauge:
    """Makes the gauge of the loss; not a number until the first step is done."""
    made = progress.gauge("train_loss", "Loss of the last step, nats per completion token (dpo, kto: per example)")
    made.set(float("nan"))
    return made


def summary(made: Sequence[Adapter]) -> TrainSummary:
    """Picks what status and tables show; of many adapters the first."""
    rows = tuple(
        AdapterSummary(
            role=a.role,
            agent=a.agent,
            name=a.name,
            examples=a.examples,
            steps=a.steps,
            loss_first=a.loss_first,
            loss_last=a.loss_last,
        )
        for a in made[:SHOWN]
    )
    return TrainSummary(
        adapters=rows,
        trained=sum(a.trained for a in made),
        kept=sum(not a.trained for a in made),
        turns_left_out=sum(a.turns_left_out for a in made),
        batch_tokens=min((a.batch_tokens for a in made if a.batch_tokens), default=0),
    )
