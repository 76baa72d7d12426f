"""Stages and numbers in words, for terminals and for the status of resources alike. Pure."""

from collections.abc import Mapping
from typing import Any

from maft_operator.plan.graph import Kind, Task

_WORDS: dict[Kind, str] = {
    "prepare": "prepare: checks and questions",
    "debate": "debate of the training questions",
    "train": "training",
    "evaluate": "debate of the held-out questions",
    "report": "report",
    "compare": "the table",
    "diversity": "diversity of the agents",
}


def title(task: Task) -> str:
    """A stage in words, with its iteration."""
    who = task.name.rpartition("-")[2] if task.kind == "train" else ""
    agent = f" of agent {who}" if who.isdigit() else ""
    untrained = " (untrained)" if task.kind == "evaluate" and task.iteration == 0 else ""
    prefix = f"iteration {task.iteration}: " if task.iteration and task.kind != "report" else ""
    return f"{prefix}{_WORDS[task.kind]}{agent}{untrained}"


def said(task: Task, summary: Mapping[str, Any]) -> str:
    """A finished stage's numbers in a few words."""
    if task.kind == "prepare":
        probe = f", {summary['probe']} for the probe" if "probe" in summary else ""
        return f"{summary.get('train')} training and {summary.get('heldOut')} held-out questions{probe}"
    if task.kind == "debate":
        sets = sorted(summary.get("kept", {}).items(), reverse=True)  # generators first
        kept = ", ".join(f"{role} {'/'.join(map(str, counts))}" for role, counts in sets if counts)
        abstained = f", {summary['abstained']} without a label" if summary.get("abstained") else ""
        agreement = f"{100 * summary['agreement']:.0f} % agreement"
        return f"{summary['questions']} questions, {agreement}{abstained}; kept {kept}{probed(summary)}"
    if task.kind == "train":
        kept = f", {summary['kept']} kept as before (too few examples)" if summary["kept"] else ""
        losses = [f"{row[5]} → {row[6]}" for row in summary["adapters"] if row[5] is not None]
        number = f"{summary['trained']} adapter" + ("s" if summary["trained"] > 1 else "")
        return f"{number}{kept}; loss {', '.join(losses)}" if losses else f"nothing trained{kept}"
    if task.kind == "evaluate":
        return f"{summary['questions']} questions, {percent(summary['debate'])} % right{_how(summary)}"
    if task.kind == "diversity":
        return f"{summary['nll']} nats per token under the others' models, KL {summary['kl']}"
    return str(summary.get("report", ""))


def _how(evaluation: Mapping[str, Any]) -> str:
    """Programs of an earlier version may have left both numbers out."""
    if evaluation.get("rounds", 2) > 1:
        return f" after the debate, {percent(evaluation['majority'])} % before"
    return " by majority" if evaluation.get("agents", 1) > 1 else ""


def probed(summary: Mapping[str, Any]) -> str:
    """What the probe says of the majority, with a warning where it is mostly wrong."""
    if "probe" not in summary:
        return ""
    harmful = " - WARNING: fewer than half, so training reinforces wrong answers" if summary["probe"][0] < 0.5 else ""
    return f"; majority right on {percent(summary['probe'])} % of {summary['probe'][2]} probe questions{harmful}"


def percent(score: list[float]) -> str:
    """A mean in percent with its standard error."""
    return f"{100 * score[0]:.1f} ± {100 * score[1]:.1f}"
