"""What a folder of a model has to hold: the files that others name, whole, and in a form that transformers and vLLM read.

`models` calls it before anything is loaded. Of weights the headers are read, never a tensor.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from maft.errors import BadInput, one_line, shown

CONFIG, ADAPTER = "config.json", "adapter_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_OBJECTS = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json")
_SECTIONS = ("quantization_config", "rope_parameters", "rope_scaling", "text_config")  # of config.json, where they are there
# Any of these is a tokenizer; what its class wants besides, transformers says.
_TOKENIZERS = re.compile(r"tokenizer\.json|vocab\.txt|vocab\.json|tekken\.json|tokenization_\w+\.py|.*\.model|.*\.tiktoken")
_POINTER = b"version https://git-lfs"
_HEADER = 100_000_000  # bytes at most, as safetensors has it
Read = Callable[[str], bytes]
ReadPart = Callable[[str, int, int], bytes]
"""Name, first byte, how many."""


def check_texts(folder: Path, *, own_code: bool) -> None:
    """Raises BadInput for the first file of JSON, or template, that cannot be read. own_code: the model's own code will be run."""
    names, read = _inside(folder)
    _check_model(names, read, str(folder))
    for name in sorted(names.intersection(_OBJECTS)):
        content = _object(read(name), f"{folder}/{name}")
        if name == CONFIG and not own_code:
            _check_sections(content, f"{folder}/{name}")
        if own_code:
            _check_code(content, names, f"{folder}/{name}")
    for name in sorted(name for name in names if name.endswith(".jinja")):
        _text(read(name), f"{folder}/{name}")


def _check_sections(config: Mapping[str, Any], where: str) -> None:
    """transformers would name neither the file nor the field."""
    for field in _SECTIONS:
        section = config.get(field)
        if section and not isinstance(section, dict):
            raise BadInput(f"model.source: {where}: {field} is {shown(section)}; expected an object")


def check_weights(folder: Path) -> None:
    """Raises BadInput for the first file that is missing, and for weights that are not whole."""
    names, read = _inside(folder)
    _check_whole(names, read, lambda name: _tensors(folder / name), str(folder))


def weight_files(folder: Path) -> list[Path]:
    """Lists the files that hold a folder's weights, as transformers chooses them; BadInput for what `check_weights` refuses."""
    check_weights(folder)
    shards = [WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(set(_weight_map(_inside(folder)[1], str(folder)).values()))
    return [folder / shard for shard in shards]


def shapes(sizes: Mapping[str, int], read: Read, part: ReadPart, where: str) -> dict[str, tuple[int, ...]]:
    """Reads the shape of each tensor, by name, from the headers of what transformers would load; empty: there are no weights."""
    indexed = sorted(set(_weight_map(read, where).values())) if INDEX in sizes else []
    files = [WEIGHTS] if WEIGHTS in sizes else indexed
    headers = [_header(name, sizes.get(name, 0), part, where)[0] for name in files]
    return {name: tuple(entry["shape"]) for header in headers for name, entry in header.items()}


def folder_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Reads them in a folder."""
    names, read = _inside(folder)
    sizes = {name: (folder / name).stat().st_size for name in names}
    return shapes(sizes, read, lambda name, first, count: _part(folder / name, first, count), str(folder))


def _part(file: Path, first: int, count: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(first)
        return opened.read(count)


def check_stored(sizes: Mapping[str, int], read: Read, part: ReadPart, where: str) -> None:
    """Raises BadInput as `check_weights` does, for files of those bytes in a store: of weights only headers are read."""
    _check_whole(sizes.keys(), read, lambda name: _stored_tensors(name, sizes[name], part, where), where)


def _check_whole(names: Collection[str], read: Read, tensors_of: Callable[[str], frozenset[str]], where: str) -> None:
    check_names(names, read, where)
    tensors = _weight_map(read, where) if INDEX in names else {}
    files = sorted({*tensors.values(), *({WEIGHTS} & set(names))})
    kept = {name: tensors_of(name) for name in files}
    for tensor, shard in sorted(tensors.items()):
        if tensor not in kept[shard]:
            raise BadInput(f"model.source: {where}/{shard} lacks {tensor}, and {INDEX} says that it is there")


def check_names(names: Collection[str], read: Read, where: str) -> None:
    """Raises BadInput for what a folder or a prefix of a store lacks, by its names and its index alone."""
    _check_model(names, read, where)
    if INDEX in names:
        for shard in sorted(set(_weight_map(read, where).values()).difference(names)):
            raise BadInput(f"model.source: {where}/{shard} is missing, and {INDEX} names it; copy the whole folder")
        if WEIGHTS in names and WEIGHTS not in _weight_map(read, where).values():
            raise BadInput(
                f"model.source: {where} has two models: {WEIGHTS}, which training would read, and shards with an index, which"
                " servers would; move one of them away"
            )
    elif WEIGHTS not in names:
        raise BadInput(_no_weights(names, where))
    elif others := sorted(name for name in names if name.endswith(".safetensors") and name != WEIGHTS):
        raise BadInput(f"model.source: {where} has {others[0]} beside {WEIGHTS}: servers read both, training one; move it away")
    if not any(_TOKENIZERS.fullmatch(name) for name in names):
        raise BadInput(f"model.source: {where} has no tokenizer: tokenizer.json is missing; copy the whole folder")
    if "vocab.json" in names and not {"tokenizer.json", "merges.txt"}.intersection(names):
        raise BadInput(f"model.source: {where}/merges.txt is missing, which belongs to vocab.json; copy the whole folder")


def _inside(folder: Path) -> tuple[set[str], Read]:
    """The names of files in a folder, and how to read one."""
    return {path.name for path in folder.iterdir() if path.is_file()}, lambda name: _bytes(folder / name)


def _check_model(names: Collection[str], read: Read, where: str) -> None:
    if ADAPTER in names:
        raise BadInput(_adapter(names, read, where))
    if CONFIG not in names:
        raise BadInput(f"model.source: {where} is no model folder (it has no {CONFIG})")


def _adapter(names: Collection[str], read: Read, where: str) -> str:
    base = _object(read(ADAPTER), f"{where}/{ADAPTER}").get("base_model_name_or_path")
    if WEIGHTS in names or INDEX in names:
        return f"model.source: {where} has an adapter ({ADAPTER}) beside the model, for training alone; merge it, or take it away"
    return f"model.source: {where} has no {WEIGHTS}: it is an adapter ({ADAPTER}) of {base!r}; give the folder of a whole model"


def _no_weights(names: Collection[str], where: str) -> str:
    if not any(name.endswith(".safetensors") for name in names):
        pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in names)
        hint = "convert pickled weights first" if pickled else f"{WEIGHTS} is missing"
        return f"model.source: {where} has no *.safetensors weights; {hint}"
    if any(_SHARD.fullmatch(name) for name in names):
        return f"model.source: {where}/{INDEX} is missing, which names the shards; copy the whole folder"
    other = min(name for name in names if name.endswith(".safetensors"))
    return f"model.source: {where}/{WEIGHTS} is missing, and {other} is not read in its place"


def _weight_map(read: Read, where: str) -> Mapping[str, str]:
    """Which shard each tensor is in, as the index says."""
    weight_map = _object(read(INDEX), f"{where}/{INDEX}").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(_is_plain(shard) for shard in weight_map.values()):
        raise BadInput(f"model.source: {where}/{INDEX} is damaged: its weight_map names no shards")
    return weight_map


def _is_plain(shard: Any) -> bool:
    return isinstance(shard, str) and shard.endswith(".safetensors") and "/" not in shard


def _stored_tensors(name: str, size: int, part: ReadPart, where: str) -> frozenset[str]:
    """The names in a header, whose offsets tell how long the file has to be."""
    header, begins = _header(name, size, part, where)
    damaged = f"model.source: {where}/{name} is damaged"
    try:
        whole = begins + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
    except (TypeError, KeyError, IndexError, ValueError):
        raise BadInput(f"{damaged}: its header names no offsets") from None
    if not header:
        raise BadInput(f"{damaged}: it holds no tensor")
    if whole != size:
        raise BadInput(f"{damaged}: it has {size} bytes, and its header says {whole}; copy it again")
    return frozenset(header)


def _header(name: str, size: int, part: ReadPart, where: str) -> tuple[dict[str, Any], int]:
    """What is said of each tensor of a file of that size, and the byte at which tensors begin."""
    begin = part(name, 0, 8)
    _no_pointer(part(name, 0, len(_POINTER)), f"{where}/{name}")
    length = int.from_bytes(begin, "little")
    if len(begin) < 8 or not 0 < length <= min(_HEADER, size):
        raise BadInput(f"model.source: {where}/{name} is damaged: it does not begin as safetensors do")
    header = _object(part(name, 8, length), f"{where}/{name}")
    return {key: value for key, value in header.items() if key != "__metadata__"}, 8 + length


def _tensors(file: Path) -> frozenset[str]:
    """The names in a header; safetensors finds out whether the file is as long as its header says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            names = frozenset(opened.keys())
    except (SafetensorError, OSError) as error:
        with file.open("rb") as opened:
            _no_pointer(opened.read(len(_POINTER)), str(file))
        raise BadInput(f"model.source: {file} is damaged: {one_line(error, 300)}") from error
    if not names:
        raise BadInput(f"model.source: {file} is damaged: it holds no tensor")
    return names


def _check_code(content: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """`auto_map` names files of the folder, or of a repository of the hub (`REPOSITORY--FILE.CLASS`)."""
    named = content.get("auto_map", {})
    if not isinstance(named, dict):
        raise BadInput(f"model.source: {where} is damaged: its auto_map is no object")
    for reference in (r for one in named.values() for r in (one if isinstance(one, list) else [one])):
        if isinstance(reference, str) and "--" not in reference and (file := f"{reference.partition('.')[0]}.py") not in names:
            raise BadInput(f"model.source: {Path(where).parent}/{file} is missing, and {Path(where).name} names it")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadInput(f"model.source: {file}: {error.strerror}") from None


def _object(data: bytes, where: str) -> dict[str, Any]:
    text = _text(data, where)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"model.source: {where} is damaged: not JSON: {one_line(error, 300)}") from None
    if not isinstance(value, dict):
        raise BadInput(f"model.source: {where} is damaged: it holds no object")
    return value


def _text(data: bytes, where: str) -> str:
    """Neither transformers nor vLLM reads what other systems write in front of a text; a template would show it to the model."""
    _no_pointer(data, where)
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"model.source: {where} begins with a byte order mark; save it as UTF-8 without one")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"model.source: {where} is damaged: not UTF-8 text (byte {error.start})") from None


def _no_pointer(data: bytes, where: str) -> None:
    if data.startswith(_POINTER):
        raise BadInput(f"model.source: {where} is a pointer of Git LFS, not the file; run `git lfs pull`")
