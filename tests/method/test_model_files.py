"""What a model folder names is there and whole: in a folder, and in a bucket before anything is downloaded."""

import hashlib
import json
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from s3server import S3Server, running, s3_fixture  # noqa: F401 - the fixture `s3`
from small import TINY
from test_bad_input import CONFIGS, changed
from unreliable import Request, unreliable

from maft import model_files, models
from maft.errors import BadInput
from maft.spec import ModelSpec
from maft.store import unfinished
from maft.store.files import FileStore
from maft.store.s3 import S3Store

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def safetensors(path: Path, tensors: Mapping[str, int], *, cut: int = 0) -> None:
    """Weights of so many bytes each, all zero."""
    header: dict[str, Any] = {}
    end = 0
    for name, size in tensors.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
        end += size
    written = json.dumps(header).encode()
    path.write_bytes((struct.pack("<Q", len(written)) + written + bytes(end))[: -cut or None])


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A model in two shards, with their index."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (*CONFIGS, "chat_template.jinja"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    weight_map = {}
    for number, shard in enumerate(SHARDS):
        names = [f"model.layers.{number}.{part}.weight" for part in ("q", "k")]
        safetensors(folder / shard, dict.fromkeys(names, 64))
        weight_map.update(dict.fromkeys(names, shard))
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 256}, "weight_map": weight_map}))
    return folder


def check(source: str | Path, **fields: Any) -> None:
    unset: dict[str, Any] = {"revision": "", "trust_remote_code": False, "max_length": 0, "cache_claim": ""}
    models.check(ModelSpec(source=str(source), **{**unset, "chat_template_arguments": {}, "date": "", **fields}))


def said(folder: Path, **fields: Any) -> str:
    """What is wrong with it."""
    with pytest.raises(BadInput) as caught:
        check(folder, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"model.source: {folder}")


def write(name: str, content: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base", "r": 8}')
    safetensors(folder / "adapter_model.safetensors", {"a": 8})


def adapter_alone(folder: Path) -> None:
    remove(INDEX, *SHARDS)(folder)
    adapter(folder)


def of_an_index(**weight_map: Any) -> Callable[[Path], object]:
    return write(INDEX, {"weight_map": weight_map})


def weights(name: str, *tensors: str, cut: int = 0) -> Callable[[Path], object]:
    return lambda folder: safetensors(folder / name, dict.fromkeys(tensors, 64), cut=cut)


def in_place_of_shards(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        remove(INDEX, *SHARDS)(folder)
        safetensors(folder / name, {"a": 8})

    return change


def both(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: [change(folder) for change in changes]


ADAPTER = " has no model.safetensors: it is an adapter (adapter_config.json) of 'org/base'; give the folder of a whole model"
NOT_READ = "is not read in its place"
BY_NAME: list[tuple[Callable[[Path], object], str]] = [
    (remove(SHARDS[1]), f"/{SHARDS[1]} is missing, and {INDEX} names it; copy the whole folder"),
    (remove(*SHARDS), f"/{SHARDS[0]} is missing, and {INDEX} names it; copy the whole folder"),
    (remove(INDEX), f"/{INDEX} is missing, which names the shards; copy the whole folder"),
    (adapter_alone, ADAPTER),
    (
        both(adapter_alone, remove("config.json")),
        ADAPTER,
    ),
    (adapter, " has an adapter (adapter_config.json) beside the model, for training alone; merge it, or take it away"),
    (both(adapter, write("adapter_config.json", b"[]")), "/adapter_config.json is damaged: it holds no object"),
    (in_place_of_shards("adapter_model.safetensors"), f"/model.safetensors is missing, and adapter_model.safetensors {NOT_READ}"),
    (in_place_of_shards("model.fp16.safetensors"), f"/model.safetensors is missing, and model.fp16.safetensors {NOT_READ}"),
    (in_place_of_shards("consolidated.safetensors"), f"/model.safetensors is missing, and consolidated.safetensors {NOT_READ}"),
    (remove(INDEX, *SHARDS), " has no *.safetensors weights; model.safetensors is missing"),
    (
        both(remove(INDEX, *SHARDS), write("pytorch_model.bin", b"x")),
        " has no *.safetensors weights; convert pickled weights first",
    ),
    (remove("tokenizer.json"), " has no tokenizer: tokenizer.json is missing; copy the whole folder"),
    (
        both(remove("tokenizer.json"), write("vocab.json", {})),
        "/merges.txt is missing, which belongs to vocab.json; copy the whole folder",
    ),
    (weights("model.safetensors", "a"), " has two models: model.safetensors, which training would read, and shards with an index"),
    (
        both(in_place_of_shards("model.safetensors"), weights("consolidated.safetensors", "a")),
        " has consolidated.safetensors beside model.safetensors: servers read both, training one; move it away",
    ),
    (
        both(in_place_of_shards("model.safetensors"), weights(SHARDS[1], "a")),
        f" has {SHARDS[1]} beside model.safetensors: servers read both",
    ),
    (remove("config.json"), " is no model folder (it has no config.json)"),
    (write(INDEX, {}), f"/{INDEX} is damaged: its weight_map names no shards"),
    (write(INDEX, {"weight_map": {}}), f"/{INDEX} is damaged: its weight_map names no shards"),
    (write(INDEX, {"weight_map": []}), f"/{INDEX} is damaged: its weight_map names no shards"),
    (of_an_index(a=5), f"/{INDEX} is damaged: its weight_map names no shards"),
    (of_an_index(a="../x.safetensors"), f"/{INDEX} is damaged: its weight_map names no shards"),
    (of_an_index(a="pytorch_model.bin"), f"/{INDEX} is damaged: its weight_map names no shards"),
    (write(INDEX, b"{"), f"/{INDEX} is damaged: not JSON: "),
    (write(INDEX, b"\xef\xbb\xbf{}"), f"/{INDEX} begins with a byte order mark; save it as UTF-8 without one"),
]
BY_HEADER: list[tuple[Callable[[Path], object], str]] = [
    (weights(SHARDS[1], "model.layers.1.q.weight", "model.layers.1.k.weight", cut=1), f"/{SHARDS[1]} is damaged: "),
    (weights(SHARDS[1], "model.layers.1.q.weight"), f"/{SHARDS[1]} lacks model.layers.1.k.weight, and {INDEX} says"),
    (weights(SHARDS[0]), f"/{SHARDS[0]} is damaged: it holds no tensor"),
    (write(SHARDS[0], b""), f"/{SHARDS[0]} is damaged: "),
    (write(SHARDS[0], b"\xff" * 99), f"/{SHARDS[0]} is damaged: "),
    (write(SHARDS[0], struct.pack("<Q", 9) + b"{}       x"), f"/{SHARDS[0]} is damaged: "),
    (
        write(SHARDS[0], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        f"/{SHARDS[0]} is a pointer of Git LFS, not the file",
    ),
    (both(in_place_of_shards("model.safetensors"), weights("model.safetensors", "a", cut=1)), "/model.safetensors is damaged: "),
]


def test_a_model_in_shards(sharded: Path) -> None:
    check(sharded)


def test_shards_may_be_links_as_in_the_cache_of_the_hub(sharded: Path) -> None:
    for shard in SHARDS:
        (sharded / shard).rename(sharded.parent / shard)
        (sharded / shard).symlink_to(sharded.parent / shard)
    check(sharded)
    (sharded.parent / SHARDS[1]).unlink()
    assert said(sharded).startswith(f"/{SHARDS[1]} is missing")


@pytest.mark.parametrize(("change", "says"), [*BY_NAME, *BY_HEADER])
def test_what_is_missing_or_damaged_is_named(sharded: Path, change: Callable[[Path], object], says: str) -> None:
    change(sharded)
    assert said(sharded).startswith(says)


@pytest.mark.parametrize(("change", "says"), BY_NAME)
def test_a_store_is_looked_at_before_anything_is_downloaded(sharded: Path, change: Callable[[Path], object], says: str) -> None:
    change(sharded)
    fetched = []

    def read(name: str) -> bytes:
        fetched.append(name)
        return (sharded / name).read_bytes()

    with pytest.raises(BadInput) as caught:
        model_files.check_names([path.name for path in sharded.iterdir()], read, "s3://bucket/model")
    assert str(caught.value).startswith(f"model.source: s3://bucket/model{says}")
    assert set(fetched) <= {INDEX, "adapter_config.json"}


@pytest.mark.s3
def test_nothing_of_a_model_is_downloaded_that_lacks_a_shard(
    sharded: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    prefix = tmp_path.name
    for path in sharded.iterdir():
        if path.name != SHARDS[1]:
            s3.client().upload_file(str(path), s3.bucket, f"{prefix}/{path.name}")
    with pytest.raises(BadInput, match=rf"/{SHARDS[1]} is missing, and {INDEX} names it"):
        check(s3.url(prefix))
    assert not (tmp_path / "cache").exists()
    s3.client().upload_file(str(sharded / SHARDS[1]), s3.bucket, f"{prefix}/{SHARDS[1]}")
    check(s3.url(prefix))
    assert not (tmp_path / "cache" / "models").exists()  # what describes it is enough to check it
    [described] = (tmp_path / "cache" / "described").iterdir()
    assert {path.name for path in described.iterdir()} == {path.name for path in sharded.iterdir()} - set(SHARDS)
    folder = Path(models.local(s3.url(prefix)))
    assert {path.name for path in sharded.iterdir()} == {path.name for path in folder.iterdir()} - {".complete"}
    assert models.described(s3.url(prefix)) == str(folder)
    check(s3.url(prefix))


@pytest.mark.s3
def test_a_download_goes_on_file_by_file(sharded: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is here in the size of the listing is not fetched again; what has another size is."""
    for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    for path in sharded.iterdir():
        s3.client().upload_file(str(path), s3.bucket, f"{tmp_path.name}/{path.name}")
    folder = Path(models.local(s3.url(tmp_path.name)))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / ".complete").unlink()
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[1]).write_bytes(whole[SHARDS[1]][:-1])
    kept = (folder / "config.json").stat().st_mtime_ns
    assert Path(models.local(s3.url(tmp_path.name))) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert (folder / "config.json").stat().st_mtime_ns == kept


@pytest.mark.s3
def test_a_model_that_is_written_over_while_it_is_fetched_is_not_kept(
    stored: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By bytes of the same size: a folder with the old one's name would have the new one's weights, for ever."""
    before, fetch, written = models.stored_state(stored), S3Store.fetch, list[str]()
    original = (tmp_path / "model" / SHARDS[1]).read_bytes()

    def written_over(self: S3Store, key: str, path: Path) -> None:
        if not written:
            written.append(key)
            s3.client().put_object(Bucket=s3.bucket, Key=f"{tmp_path.name}/{SHARDS[1]}", Body=original[:-1] + b"x")
        fetch(self, key, path)

    monkeypatch.setattr(S3Store, "fetch", written_over)
    with pytest.raises(OSError, match="was written anew while it was fetched; it is fetched again"):
        models.local(stored)
    folder = Path(models.local(stored))
    assert before not in folder.name and (folder / SHARDS[1]).read_bytes().endswith(b"x")
    s3.client().put_object(Bucket=s3.bucket, Key=f"{tmp_path.name}/{SHARDS[1]}", Body=original)
    assert (Path(models.local(stored)) / SHARDS[1]).read_bytes() == original


def weights_that_come(request: Request) -> bool:
    """Whole, and not the first byte that is asked for to see how many there are."""
    return request.line.startswith("GET ") and SHARDS[1] in request.line and request.headers.get("range") != "bytes=0-0"


@pytest.mark.s3
@pytest.mark.parametrize("times", [1, 2])
def test_a_bit_that_flips_on_the_way_is_seen(
    times: int, stored: str, sharded: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once: the file is fetched anew. Again: nobody knows what lies there, and the task is tried again."""
    flipped = list[Request]()

    def fault(request: Request) -> str:
        if not weights_that_come(request) or len(flipped) == times:
            return ""
        flipped.append(request)
        return "flipped"

    with unreliable(s3.endpoint) as proxy:
        monkeypatch.setattr(proxy, "fault", fault)
        source = stored.replace(quote(s3.endpoint, safe=""), quote(proxy.endpoint, safe=""))
        if times > 1:
            with pytest.raises(OSError, match=rf"{SHARDS[1]}: fetched twice with different content"):
                models.local(source)
            assert not list((tmp_path / "cache").rglob(f"*{SHARDS[1]}*"))
        assert content(Path(models.local(source))) == {**content(sharded), ".complete": b""}
    assert len(flipped) == times


@pytest.mark.s3
def test_a_byte_that_was_changed_where_it_lies_is_named(sharded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of equal size, on the disk of the server, which goes on giving the ETag of what was uploaded."""
    with running(tmp_path / "objects") as s3:
        for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
            monkeypatch.setenv(name, value)
        for path in sharded.iterdir():
            s3.client().upload_file(str(path), s3.bucket, f"m/{path.name}")
        with (tmp_path / "objects" / s3.bucket / "m" / SHARDS[1]).open("r+b") as lying:
            lying.seek(-1, os.SEEK_END)
            lying.write(b"x")
        with pytest.raises(BadInput) as caught:
            models.local(s3.url("m"))
        digest = hashlib.md5((sharded / SHARDS[1]).read_bytes()).hexdigest()
        assert re.fullmatch(
            rf"model\.source: store s3://maft/m: {SHARDS[1]}: what lies there has the MD5 \w{{32}}, and its ETag is {digest}: "
            "it was damaged after it was written; upload it again",
            str(caught.value),
        )
        assert not list((tmp_path / "cache").rglob(f"*{SHARDS[1]}*"))
        s3.client().upload_file(str(sharded / SHARDS[1]), s3.bucket, f"m/{SHARDS[1]}")
        assert content(Path(models.local(s3.url("m")))) == {**content(sharded), ".complete": b""}


@pytest.mark.s3
@pytest.mark.parametrize("change", [remove(SHARDS[0]), weights(SHARDS[0], "cut"), write("config.json", b"{}")])
def test_what_others_have_tidied_up_is_fetched_again(stored: str, change: Callable[[Path], object]) -> None:
    """Though it says that it is whole."""
    folder = Path(models.local(stored))
    whole = content(folder)
    change(folder)
    assert Path(models.described(stored)) != folder
    assert Path(models.local(stored)) == folder
    assert content(folder) == whole


@pytest.mark.s3
def test_names_that_no_model_has_are_left_where_they_are(stored: str, s3: S3Server, tmp_path: Path) -> None:
    for name in ("._config.json", "README copy.txt", "a+b.json"):
        s3.client().put_object(Bucket=s3.bucket, Key=f"{tmp_path.name}/{name}", Body=b"{}")
    folder = Path(models.local(stored))
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "model").iterdir()} | {".complete"}


@pytest.mark.s3
def test_a_cache_that_takes_nothing_is_told_with_what_to_do(stored: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAFT_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        BadInput, match=rf"model\.source: {tmp_path}/file/\S+, where s3://\S+ is kept: a part of the path is a file"
    ):
        models.local(stored)


def test_shards_beside_another_form_of_the_same_weights_are_a_model(sharded: Path) -> None:
    """As Mistral publishes them: the index says what is read."""
    weights("consolidated.safetensors", "a")(sharded)
    check(sharded)


@pytest.fixture
def stored(sharded: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of a model in a bucket, which is not in the cache yet."""
    for name, value in {**s3.environment(), "MAFT_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    for path in sharded.iterdir():
        s3.client().upload_file(str(path), s3.bucket, f"{tmp_path.name}/{path.name}")
    return s3.url(tmp_path.name)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.s3
def test_two_that_download_one_model_at_a_time_both_end_well(sharded: Path, stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two pods with one volume, whose ids of processes are equal. Both are at each file at the same time."""
    meetings = {path.name: threading.Barrier(2) for path in sharded.iterdir()}
    fetch = S3Store.fetch

    def met(store: S3Store, key: str, path: Path) -> None:
        meetings[key].wait(30)
        fetch(store, key, path)
        meetings[key].wait(30)

    monkeypatch.setattr(S3Store, "fetch", met)
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(models.local, (stored, stored))
    assert first == second
    assert content(Path(first)) == {**content(sharded), ".complete": b""}


@pytest.mark.s3
def test_what_a_killed_download_left_goes_and_what_another_one_writes_stays(stored: str) -> None:
    """Also where the model is whole by then: whoever came after the killed one has not waited a day."""
    folder = Path(models.local(stored))
    whole = content(folder)
    killed, another = (f".tmp-{number:032x}-{SHARDS[0]}.part" for number in (1, 2))
    old = (killed, f"{killed}.0aF3b9C1", f".tmp-{3:032x}-config.json.part", f"{SHARDS[0]}.7.part", f"{SHARDS[0]}.7.part.0aF3b9C1")
    fresh = {another: b"half", f"{another}.0aF3b9C1": b"half", f"{SHARDS[0]}.8.part": b"half"}
    for missing in ((), (SHARDS[0], ".complete")):
        for name in (*old, *fresh):
            (folder / name).write_bytes(b"half")
        for name in old:
            os.utime(folder / name, (time.time(), time.time() - unfinished.STALE - 60))
        for name in missing:
            (folder / name).unlink()
        assert Path(models.local(stored)) == folder
        assert content(folder) == {**whole, **fresh}


def test_of_a_download_that_fails_nothing_is_left_and_another_ones_part_stays(sharded: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    another = tmp_path / "cache" / f".tmp-{1:032x}-config.json.part"
    another.write_bytes(b"half")
    with pytest.raises(OSError, match=r"config\.json has 5 bytes in the listing, and \d+ came"):
        models._fetch_file(FileStore(sharded), "config.json", tmp_path / "cache", 5)
    assert content(tmp_path / "cache") == {another.name: b"half"}


@pytest.mark.parametrize(("change", "says"), [*BY_NAME, *BY_HEADER])
def test_weights_in_a_store_are_checked_by_their_headers(sharded: Path, change: Callable[[Path], object], says: str) -> None:
    """As in a folder; what is read of a file of weights is not more than its header."""
    change(sharded)
    sizes = {path.name: path.stat().st_size for path in sharded.iterdir()}

    def part(name: str, start: int, length: int) -> bytes:
        assert name.endswith(".safetensors") and start + length < 2000
        return (sharded / name).read_bytes()[start : start + length]

    with pytest.raises(BadInput) as caught:
        model_files.check_stored(sizes, lambda name: (sharded / name).read_bytes(), part, str(sharded))
    assert str(caught.value).startswith(f"model.source: {sharded}{says}") and "\n" not in str(caught.value)


def test_whole_weights_in_a_store_pass(sharded: Path) -> None:
    store = FileStore(sharded)
    model_files.check_stored(dict(store.sizes("")), store.read, store.read_part, "s3://bucket/model")


TOKENIZERS = [
    ("tokenizer.model",),
    ("spiece.model",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("qwen.tiktoken",),
    ("tekken.json",),
]


@pytest.mark.parametrize("names", TOKENIZERS)
def test_tokenizers_of_all_kinds_are_one(sharded: Path, names: tuple[str, ...]) -> None:
    remove("tokenizer.json")(sharded)
    for name in names:
        (sharded / name).write_text("{}")
    check(sharded)


@pytest.mark.parametrize(
    ("name", "auto_map", "missing"),
    [
        ("config.json", {"AutoConfig": "configuration_x.X", "AutoModelForCausalLM": "modeling_x.X"}, "modeling_x.py"),
        ("config.json", {"AutoModelForCausalLM": "modeling_x.X"}, "modeling_x.py"),
        ("tokenizer_config.json", {"AutoTokenizer": [None, "tokenization_x.X"]}, "tokenization_x.py"),
        ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_x.X", None]}, "tokenization_x.py"),
        ("config.json", [], "auto_map is no object"),
    ],
)
def test_code_that_is_named_is_there(sharded: Path, name: str, auto_map: Any, missing: str) -> None:
    (sharded / "configuration_x.py").write_text("")
    changed(name, auto_map=auto_map)(sharded)
    assert missing in said(sharded, trust_remote_code=True)
    if isinstance(auto_map, dict):
        changed(name, auto_map=dict.fromkeys(auto_map, "org/other--file.X"))(sharded)
        model_files.check_texts(sharded, own_code=True)
    check(sharded)  # nobody runs it


@pytest.mark.parametrize("source", ["./a\0b", "/" + "x" * 300, "/nowhere", "./"])
def test_a_source_that_is_no_folder(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = "" if source.startswith("/") else re.escape(f"; looked for from {tmp_path}")
    with pytest.raises(BadInput, match=rf" is no model folder \(it has no config\.json\){seen}$"):
        check(source)


def test_models_whose_names_differ_in_a_sign_have_folders_of_their_own() -> None:
    names = ["s3://b/qwen2.5", "s3://b/qwen2-5", "s3://b-qwen2/5", "s3://b/qwen2.5?endpoint=http://x", "s3://b/é", "s3://b/è"]
    folders = {models._plain(name) for name in names}
    assert len(folders) == len(names) and all(re.fullmatch("[A-Za-z0-9-]+", folder) for folder in folders)
    assert len(models._plain("s3://b/" + "x" * 500)) < 256
