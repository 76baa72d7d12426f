"""Whatever of a user's files is wrong, `prepare` ends with one line about it: never with a traceback."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import TINY, a_spec

from maft.errors import BadInput
from maft.prepare import __main__ as prepare
from maft.prepare import apart
from maft.program import Assignment
from maft.spec import Spec
from maft.store.files import FileStore

FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors")
ROWS = b"".join(b'{"question": "%d+1?", "answer": "%d"}\n' % (i, i + 1) for i in range(8))
Change = Callable[[Path], object]


def prepared(folder: Path, **spec: Any) -> str:
    """What `prepare` says; empty where it publishes the questions."""
    store = FileStore(folder / "store")
    try:
        prepare.main(Assignment(store=store, run="ns/run", given_spec=a_spec(**spec)))
    except BadInput as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        assert not list(store.list("ns/run/problems/"))
        return str(error)
    return ""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    (tmp_path / "model").mkdir()
    for name in FILES:
        shutil.copy(TINY / name, tmp_path / "model" / name)
    return tmp_path / "model"


def with_model(model: Path) -> str:
    """What is said of it."""
    said = prepared(model.parent, model={"source": str(model)})
    assert said.startswith("model.source: ") or not said
    return said


def with_questions(folder: Path, data: bytes, **task: Any) -> str:
    (folder / "q.jsonl").write_bytes(data)
    return prepared(folder, task={"source": str(folder / "q.jsonl"), "train": 4, "heldOut": 4, **task})
