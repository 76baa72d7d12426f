"""What has to be known to read the numbers of a report: what was not trained, which answers were cut off. Pure."""

from collections.abc import Sequence

import msgspec

from maft import stopping
from maft.answers.likeness import META
from maft.report.read import Iteration, ReportedRun, Stage
from maft.scores import left_out
from maft.shortage import MORE_TOKENS, Shortage, shortage
from maft.summaries import Threshold

NAMED = 3  # iterations or debates in a sentence


def untrained(run: ReportedRun) -> str:
    """Says which iterations trained nothing, why, and what to change; empty if all trained something."""
    none = [i for i in run.iterations if i.training.untrained]
    if not none:
        return ""
    why, change = _shortage(run, none[-1])
    still = ", so the agents are still the base model" if run.still_base(none[-1].number) else ""
    which = f"iteration{'s' if len(none) > 1 else ''} {_listed([str(i.number) for i in none])}"
    return f"Nothing was trained in {which}{still}: {why}. To change that, {change}."


def partly(run: ReportedRun) -> str:
    """Says how many adapters were trained in iterations that trained some and not all; empty if there are none."""
    some = [i for i in run.iterations if i.training.complete and 0 < i.training.trained < len(i.training.adapters)]
    if not some:
        return ""
    shares = [f"{i.training.trained} of {len(i.training.adapters)} in iteration {i.number}" for i in some]
    return f"Not all adapters were trained ({_listed(shares)}); for the others there were {_shortage(run, some[-1]).why}."


def cut(run: ReportedRun) -> str:
    """Warns of debates in which too many answers were cut off; empty if there are none."""
    many = [stage for stage in run.stages if stage.whole.too_many_cut]
    if not many:
        return ""
    shares = [f"{stage.whole.cut:,} of {stage.whole.asked:,} ({_where(stage)})" for stage in many]
    return f"Many answers were cut off, and such answers never train: {_listed(shares)}. To change that, {MORE_TOKENS}."


def remarks(run: ReportedRun) -> tuple[str, ...]:
    """Lists what stands below the table in a terminal."""
    return tuple(remark for remark in (untrained(run), cut(run), _choice(run), alike(run)) if remark)


def alike(run: ReportedRun) -> str:
    """Says from which cosine on answers count as the same; empty where they are compared otherwise."""
    if META not in run.meta:
        return ""
    text = msgspec.convert(run.meta[META], Threshold).text
    return f"Votes and accuracies are the encoder's opinion: {text}."


def _choice(run: ReportedRun) -> str:
    """What validation questions have decided."""
    words = stopping.words(run.spec, run.decision) if run.spec and run.decision else ""
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _shortage(run: ReportedRun, iteration: Iteration) -> Shortage:
    """Of the datasets of agents that were not trained."""
    trained = {(a.role, a.agent) for a in iteration.training.adapters if a.trained}
    small = [c for c in iteration.training.counts if (c.role, c.agent) not in trained]
    minimum = run.spec.training.min_examples if run.spec else None
    return shortage(max((count.kept for count in small), default=0), left_out(small), minimum)


def _where(stage: Stage) -> str:
    if stage.part == "training":
        return f"training questions of iteration {stage.iteration}"
    if stage.part == "validation":
        return f"validation questions after iteration {stage.iteration}"
    return f"held-out questions after iteration {stage.iteration}" if stage.iteration else "held-out questions, untrained"


def _listed(parts: Sequence[str]) -> str:
    """`a, b and c`; of many the last ones."""
    if len(parts) > NAMED:
        return f"{', '.join(parts[-NAMED:])} and {len(parts) - NAMED} more"
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
