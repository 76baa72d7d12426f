"""Shows what a new hyperparameter takes: `python scripts/adding_a_field.py`, on a scratch copy of the sources.

Adds `training.maxGradNorm` to the resource definition, the record and the line that uses it; makes the generated files anew; prints
what git says has changed, what `maft plan` says of the field, and that a training with another value gives other weights.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
GENERATED = ("docs/resource.md", "examples/arithmetic.plan", "examples/arithmetic-cluster.plan", "examples/gsm8k.plan")
EDITS = {  # file: what stands there, what comes in its place
    "crds/multiagentfinetunes.yaml": (
        "                    epochs: {type: integer, default: 2,",
        "                    maxGradNorm: {type: number, default: 1, exclusiveMinimum: true, minimum: 0, maximum: 1000000, "
        "description: Norm at which a step's gradient is cut.}\n"
        "                    epochs: {type: integer, default: 2,",
    ),
    "images/maft/spec.py": ("    weight_decay: float\n", "    weight_decay: float\n    max_grad_norm: float\n"),
    "images/maft/train/course.py": (
        "torch.nn.utils.clip_grad_norm_(self._parameters, CLIP)",
        "torch.nn.utils.clip_grad_norm_(self._parameters, self._training.max_grad_norm)",
    ),
}
TRAINING = """
import hashlib, sys
from pathlib import Path
from maft import lora, models
from maft.records import Message
from maft.spec import decode_spec
from maft.train.trainer import Trainer
spec = decode_spec(sys.stdin.read())
chats = [[Message("user", f"What is {n}+2*3?"), Message("assistant", f"Answer: {n + 6}")] for n in range(8)]
template = models.chat_template(spec.model, spec.debate.thinking)
examples = [template.tokens(chat, every_turn=False) for chat in chats]
Trainer(lora.load_base(spec.model), spec.training, lambda loss: None).train(examples, Path(sys.argv[1]), seed=1, previous=None)
print(hashlib.sha256((Path(sys.argv[1]) / "adapter_model.safetensors").read_bytes()).hexdigest()[:16])
"""


def main() -> None:
    """Prints the changed files, the plan's line and the hashes of two trainings."""
    with tempfile.TemporaryDirectory(prefix="maft-field-") as folder:
        copy = Path(folder) / "maft"
        copy_sources(copy)
        for name, (before, after) in EDITS.items():
            edit(copy / name, before, after)
        for example in GENERATED[1:]:
            (copy / example).write_text(python(copy, "-m", "maft_operator", "plan", example.replace(".plan", ".yaml")))
        python(copy, "scripts/comparison_definition.py")
        python(copy, "scripts/resource_reference.py")
        print(run(copy, "git", "diff", "--stat"), end="")
        plan = (copy / "examples/arithmetic.plan").read_text().splitlines()
        print(next(line.strip() for line in plan if "maxGradNorm" in line))
        for value in ("1", "0.001"):
            print(f"weights with maxGradNorm {value}:", train(copy, value), end="")


def copy_sources(copy: Path) -> None:
    """What git knows, as a repository of its own."""
    names = run(ROOT, "git", "ls-files").splitlines()
    for name in names:
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    run(copy, "git", "init", "-q")
    run(copy, "git", "add", "-A")
    run(copy, "git", "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-qm", "before")


def edit(file: Path, before: str, after: str) -> None:
    """Replaces one place."""
    text = file.read_text()
    assert text.count(before) == 1, f"{file}: {before!r} stands there {text.count(before)} times"
    file.write_text(text.replace(before, after))


def train(copy: Path, value: str) -> str:
    """The hash of the weights that a training with this value gives, by the spec that `maft plan` shows."""
    plan = python(copy, "-m", "maft_operator", "plan", "examples/arithmetic.yaml", "--set", f"training.maxGradNorm={value}")
    spec = plan[plan.index("SPEC='") + 6 : plan.index("\n}'\n") + 2]
    with tempfile.TemporaryDirectory() as folder:
        return python(copy, "-c", TRAINING, folder, given=spec)


def python(copy: Path, *arguments: str, given: str = "") -> str:
    """What Python prints with the copy's packages."""
    return run(copy, sys.executable, *arguments, given=given)


def run(where: Path, *command: str, given: str = "") -> str:
    """What a command prints; it has to succeed."""
    environment = {**os.environ, "PYTHONPATH": f"{where}/operator:{where}/images"}
    done = subprocess.run(command, check=False, cwd=where, env=environment, input=given, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)[:200]}: {done.stderr[-2000:]}"
    return done.stdout


if __name__ == "__main__":
    main()
