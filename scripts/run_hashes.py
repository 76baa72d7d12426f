"""Hashes what a run computed, whatever the format of its files: `python scripts/run_hashes.py FOLDER/NAMESPACE/NAME`.

For changes that must not touch the method: run the same file on the deterministic engine before and after, and compare what this
prints. Texts and votes come from the transcripts, examples from the datasets; names are folded to snake case and numbers of formats
left out, so that only contents count.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def main(run: Path) -> None:
    """Prints a line for each kind of output and iteration."""
    for iteration in sorted((run / "iterations").iterdir(), key=lambda folder: int(folder.name)):
        for stage in ("debate", "evaluation"):
            transcripts = [t for file in sorted((iteration / stage).glob("part-*.jsonl"), key=_number) for t in _lines(file)]
            if transcripts:
                show(iteration.name, f"{stage} texts", [_texts(t) for t in transcripts])
                show(iteration.name, f"{stage} votes", [t["votes"] for t in transcripts])
        for file in sorted((iteration / "datasets").glob("*.jsonl")):
            show(iteration.name, f"examples {file.stem}", list(_lines(file)))
        for file in sorted((iteration / "adapters").glob("*/adapter_model.safetensors")):
            print(iteration.name, f"weights {file.parent.name}", hashlib.sha256(file.read_bytes()).hexdigest()[:16])


def show(iteration: str, what: str, content: object) -> None:
    """One line: iteration, what, hash."""
    data = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    print(iteration, what, hashlib.sha256(data).hexdigest()[:16])


def _texts(transcript: Json) -> Json:
    return {key: transcript[key] for key in ("index", "problem", "turns", "summaries")}


def _number(file: Path) -> int:
    """Which part of several a file is."""
    return int(file.stem.removeprefix("part-"))


def _lines(file: Path) -> Iterator[Json]:
    for line in file.read_text().splitlines():
        yield {key: value for key, value in _snake(json.loads(line)).items() if key != "format"}


def _snake(value: Any) -> Any:
    if isinstance(value, dict):
        return {re.sub("([A-Z])", lambda m: f"_{m[1].lower()}", key): _snake(item) for key, item in value.items()}
    return [_snake(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "iterations").is_dir():
        sys.exit("usage: python scripts/run_hashes.py FOLDER/NAMESPACE/NAME, the folder of a run that has begun")
    main(Path(sys.argv[1]))
