"""Stages and what they said, in words: for terminals and for the status of resources alike. Pure."""

from collections.abc import Mapping

from maft.shortage import LEFT_OUT, MORE_TOKENS, main_reason
from maft.summaries import (
    HARMFUL,
    Answers,
    AnySummary,
    CompareSummary,
    DebateSummary,
    DiversitySummary,
    EvaluateSummary,
    ExportSummary,
    Failure,
    PreflightSummary,
    PrepareSummary,
    ProbeScore,
    ReportSummary,
    ShardSummary,
    TrainSummary,
)
from maft_operator.plan.graph import ProgramName, Task

_STAGES: dict[ProgramName, str] = {
    "prepare": "prepare: checks and questions",
    "preflight": "preflight: the model, tried on random weights",
    "debate": "debate of the training questions",
    "train": "training",
    "evaluate": "debate of the held-out questions",
    "report": "report",
    "compare": "the table",
    "diversity": "diversity of the agents",
    "export": "export",
}


def title(task: Task) -> str:
    """Names a stage, with its iteration."""
    one_of_several = len(task.agents) == 1 and task.run.spec.training.topology == "PerAgent"
    agent = f" of agent {task.agents[0]}" if one_of_several else ""
    shard = "" if task.shard is None else f", part {task.shard + 1} of {task.programs}"
    untrained = " (untrained)" if task.kind == "evaluate" and task.iteration == 0 else ""
    prefix = f"iteration {task.iteration}: " if task.iteration and task.kind != "report" else ""
    stage = "debate of the validation questions" if task.validates else _STAGES[task.kind]
    return f"{prefix}{stage}{agent}{untrained}{shard}"


def sentence(summary: AnySummary | None) -> str:
    """Tells a finished stage's numbers in a few words; nothing where there are none."""
    match summary:
        case PrepareSummary():
            others = (("probe", summary.probe), ("validation", summary.validation))
            more = "".join(f", {count} for the {what}" for what, count in others if count)
            return f"{summary.train} training and {summary.held_out} held-out questions{more}{_alike(summary)}{_warned(summary)}"
        case PreflightSummary():
            return _preflight(summary)
        case DebateSummary() | ShardSummary():
            return _debate(summary)
        case TrainSummary():
            return _training(summary)
        case EvaluateSummary() | DiversitySummary():
            return _measured(summary)
        case ExportSummary():
            return "; ".join(f"{one.to}: {one.place}" for one in summary.targets)
        case ReportSummary(report=text) | CompareSummary(report=text) | Failure(error=text):
            return text
    return ""


def _preflight(summary: PreflightSummary) -> str:
    thinks = ", thinks" if summary.thinks else ""
    context = f" of {summary.context}" if summary.context else ""
    prompts = f"prompts of up to {summary.longest_prompt}{context} tokens"
    memory = f", training needs about {summary.training_bytes / 2**30:.1f} GiB" if summary.training_bytes else ""
    asks = f"{prompts}{memory}{_cost(summary)}"
    return f"{summary.architecture}{thinks}, {summary.modules} layers with adapters, {asks}{_warned(summary)}"


def _warned(summary: PrepareSummary | PreflightSummary) -> str:
    return f" - WARNING: {'; '.join(summary.warnings)}" if summary.warnings else ""


def _alike(summary: PrepareSummary) -> str:
    return f"; {summary.semantic.text}" if summary.semantic else ""


def _cost(summary: PreflightSummary) -> str:
    if not summary.requests:
        return ""
    kept = f", {summary.stored_bytes / 2**30:.2g} GiB kept" if summary.stored_bytes else ""
    return f"; at most {summary.requests:,} requests, {summary.tokens:,} tokens written{kept}"


def _debate(summary: DebateSummary | ShardSummary) -> str:
    if isinstance(summary, ShardSummary):
        return f"{summary.questions} questions"
    roles = sorted(summary.kept.items(), reverse=True)  # generators first
    kept = ", ".join(f"{role} {'/'.join(map(str, counts))}" for role, counts in roles if counts)
    abstained = f", {summary.abstained} without a label" if summary.abstained else ""
    agreement = f"{100 * summary.agreement:.0f} % agreement"
    rest = f"{_left_out(summary.left_out)}{whole(summary.answers)}{probed(summary.probe)}"
    return f"{summary.questions} questions, {agreement}{abstained}; kept {kept}{rest}"


def _left_out(counts: Mapping[str, int]) -> str:
    """The commonest reason."""
    reason = main_reason(counts)
    return f", left out most: {LEFT_OUT[reason].words} ({counts[reason]})" if reason in LEFT_OUT else ""


def _training(summary: TrainSummary) -> str:
    kept = f", {summary.kept} kept as before (too few examples)" if summary.kept else ""
    turns = f", {summary.turns_left_out} turns left out" if summary.turns_left_out else ""
    rows = f", memory ran out: rows of {summary.batch_tokens:,} tokens" if summary.batch_tokens else ""
    losses = [f"{a.loss_first} → {a.loss_last}" for a in summary.adapters if a.loss_first is not None]
    if not losses:
        return f"nothing trained{kept}{turns}{rows}"
    return f"{summary.trained} adapter{'s' if summary.trained > 1 else ''}{kept}{turns}{rows}; loss {', '.join(losses)}"


def _measured(summary: EvaluateSummary | DiversitySummary) -> str:
    if isinstance(summary, DiversitySummary):
        kl = "" if summary.kl is None else f", KL {summary.kl}"
        return f"{summary.nll} nats per {'byte' if summary.per_byte else 'token'} under the others' models{kl}"
    return f"{summary.questions} questions, {summary.debate.percent} % right{_how(summary)}{_gain(summary)}{whole(summary.answers)}"


def _gain(summary: EvaluateSummary) -> str:
    gain = summary.validation.gain if summary.validation else None
    if gain is None:
        return ""
    points = f"{100 * gain.mean:+.1f} ± {100 * gain.stderr:.1f}".replace("-", "−")
    return f"; {points} points over iteration {gain.over}, the best before"


def _how(summary: EvaluateSummary) -> str:
    if summary.rounds > 1:
        return f" after the debate, {summary.majority.percent} % before"
    return " by majority" if summary.agents > 1 else ""


def whole(answers: Answers) -> str:
    """Tells how many answers are not whole, with a warning where too many are cut off."""
    warning = f" - WARNING: {MORE_TOKENS}" if answers.too_many_cut else ""
    return f"; {answers.text}{warning}" if answers.text else ""


def probed(probe: ProbeScore | None) -> str:
    """Tells what the probe says of the majority, with a warning where it is mostly wrong."""
    if probe is None:
        return ""
    harmful = " - WARNING: fewer than half, so training reinforces wrong answers" if probe.mean < HARMFUL else ""
    return f"; majority right on {probe.percent} % of {probe.questions} probe questions{harmful}"
