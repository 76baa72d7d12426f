"""The table of targets. A target's module is imported when it is used: a tracker's library may take seconds."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

from maft.errors import BadInput
from maft.export.target import Request, Sent, Target
from maft.spec import REPORTS

TARGETS: Mapping[str, Target] = {
    "peft": Target("[FOLDER]", "adapters as PEFT folders, each with a card", "folders"),
    "vllm": Target("[FOLDER]", "the same and the command with which vLLM serves them", "vllm_lines"),
    "kserve": Target("[FILE]", "an LLMInferenceService of KServe, with adapters from the bucket", "kserve"),
    "mlflow": Target("URL[#EXPERIMENT]", "parameters, metrics by iteration, the report, adapters", "mlflow"),
    "wandb": Target("[FOLDER]", "a run of Weights & Biases in offline mode, with the report", "wandb_runs", "wandb", ("wandb",)),
    "trackio": Target("PROJECT", "a run of a trackio project", "trackio_runs", "trackio", ("trackio",)),
    "otel": Target("URL", "the stages as one OpenTelemetry trace (OTLP over HTTP)", "traces"),
    "hub": Target(
        "OWNER/NAME",
        "adapters, and with --report the report, as a model repository of the hub",
        "hub",
        "export",
        ("huggingface_hub",),
    ),
    "oci": Target(
        "HOST/NAME:TAG", "adapters as a ModelPack artifact of a registry, with --report the report as another", "oci", "export"
    ),
    "merged": Target("[FOLDER]", "whole models, one for each adapter", "merged", "train", ("torch", "peft")),
    "gguf": Target("[FOLDER]", "the same as GGUF files, for llama.cpp, Ollama and LM Studio", "gguf_files", "gguf", ("gguf",)),
}

_ADDRESSED = ("mlflow", "otel", "hub", "oci", "trackio")  # those of spec.export, and one whose project has a name


def parse(text: str) -> tuple[str, str]:
    """Takes `KIND` or `KIND=WHERE` apart; BadInput, with the list, for a kind that there is not."""
    kind, equals, where = text.partition("=")
    if kind not in TARGETS:
        raise BadInput(f"--to {kind}: no such target; there are {', '.join(TARGETS)}")
    needed = not TARGETS[kind].takes.startswith("[")
    if not where and (needed or equals):
        raise BadInput(f"--to {text}: expected --to {kind}={_asked(TARGETS[kind].takes)}")
    return kind, where


def check(kind: str, where: str) -> None:
    """Refuses an address that no target of that kind has; BadInput. Where folders can be made, only making them tells."""
    if kind in _ADDRESSED:
        import_module(f"maft.export.{TARGETS[kind].module}").check(where)


def check_installed(kind: str) -> None:
    """BadInput where a package that the target needs is missing here."""
    for package in TARGETS[kind].packages:
        if find_spec(package) is None:
            raise _lacking(kind, package)


def _asked(takes: str) -> str:
    """Writes what has to stand after `=`, also where all of it may be left out."""
    return takes[1:-1] if takes.startswith("[") else takes


def send(kind: str, request: Request) -> Sent:
    """Hands the run on to a target of that kind; BadInput where a package for it is missing, before anything is written."""
    check_installed(kind)
    report = REPORTS.get(kind, False) if request.report is None else request.report
    try:
        made: Sent = import_module(f"maft.export.{TARGETS[kind].module}").send(replace(request, report=report))
    except ModuleNotFoundError as error:
        raise _lacking(kind, str(error.name)) from None
    return made


def _lacking(kind: str, package: str) -> BadInput:
    extra = TARGETS[kind].extra
    how = f"pip install 'maft[{extra}]'" if extra else "install maft anew"
    return BadInput(f"--to {kind}: needs the package {package}; {how}")
