"""`maft` reads resource files as kubectl does: shown against kubectl itself, which needs no cluster for it (`annotate --local`)."""

import json
import shutil
import subprocess
from typing import Any

import helm
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prepare import host
from test_dialect import BROKEN, FILES, READ, REFUSED, same

from maft_operator.spec import dialect
from maft_operator.spec.go_yaml import Unreadable

pytestmark = pytest.mark.cluster  # for its kubectl
# kubectl takes the last of two, and U+FFFD for half a character: maft refuses both.
STRICTER = ("is there twice", "half a character")


@pytest.fixture(scope="module")
def kubectl() -> str:
    if not host.unable():
        return str(helm.folder("kube") / "kubectl")
    if found := shutil.which("kubectl"):
        return found
    pytest.skip("no kubectl: the test cluster's needs root")


def read(kubectl: str, text: str) -> list[Any] | None:
    """The documents of a file as kubectl reads them; None where it refuses the file."""
    command = [kubectl, "annotate", "--local", "-f", "-", "x=y", "-o", "json"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=60)
    if done.returncode:
        assert any(reason in done.stderr for reason in (b"error parsing", b"unable to decode", b"no objects passed")), done.stderr
        return [] if b"no objects passed" in done.stderr else None
    found = []
    rest = done.stdout.decode().strip()
    while rest:
        one, end = json.JSONDecoder().raw_decode(rest)
        del one["metadata"]
        found.append(one)
        rest = rest[end:].strip()
    return found


def agree(kubectl: str, text: str) -> None:
    """Both read the same, or both refuse it."""
    theirs = read(kubectl, text)
    try:
        ours = dialect.documents(dialect.decoded(text.encode()))
    except Unreadable as error:
        assert theirs is None or any(reason in str(error) for reason in STRICTER), f"{text!r}\nkubectl: {theirs}\nmaft: {error}"
    else:
        assert theirs is not None and same(ours, theirs), f"{text!r}\nkubectl: {theirs}\nmaft: {ours}"


def test_the_table_of_values(kubectl: str) -> None:
    found = read(kubectl, "---\n".join(f"kind: A\nv: {text}\n" for text, _ in READ))
    assert found is not None and len(found) == len(READ)
    for (text, value), one in zip(READ, found, strict=True):
        assert same(value, one.get("v")), text


@pytest.mark.parametrize("text", REFUSED)
def test_the_table_of_what_is_refused(kubectl: str, text: str) -> None:
    assert read(kubectl, f"kind: A\nv: {text}\n") is None


@pytest.mark.parametrize(("text", "found"), FILES, ids=range(len(FILES)))
def test_whole_files(kubectl: str, text: str, found: list[Any]) -> None:
    assert same(read(kubectl, text), found)


@pytest.mark.parametrize("text", BROKEN)
def test_broken_files(kubectl: str, text: str) -> None:
    assert read(kubectl, text) is None


# --- whatever there is ---

PIECES = [text for text, _ in READ] + REFUSED
NUMERIC = st.text("0123456789abcdefoxXbBeE_+-.:", min_size=1, max_size=8)
WORDS = st.sampled_from(["y", "Yes", "yES", "oN", "off", "null", "~", ".inf", ".NaN", "<<", "=", "2026-11-26", "12:30:45"])
SIGNS = st.text("ab01 \t{}[],:?-&*!|>'\"%@`#\\/<~é\u2028\u00a0\n", max_size=9)
SCALARS = NUMERIC | WORDS | st.sampled_from(PIECES)
KEYS = SCALARS | st.sampled_from(["k", "'k'", '"l"', "? m\n", "<<"])


def blocks(depth: int) -> st.SearchStrategy[str]:
    """A value in block style, as it stands behind a key or a dash at that depth."""
    pad = "\n" + "  " * depth
    leaf = SCALARS.map(lambda text: f" {text}") | flows().map(lambda text: f" {text}")
    if depth > 3:
        return leaf
    inner = blocks(depth + 1)
    items = st.lists(inner, min_size=1, max_size=3).map(lambda found: "".join(f"{pad}-{one}" for one in found))
    pairs = st.lists(st.tuples(KEYS, inner), min_size=1, max_size=3)
    return leaf | items | pairs.map(lambda found: "".join(f"{pad}{key}:{one}" for key, one in found))


def flows() -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(KEYS, SCALARS), max_size=3).map(lambda found: ", ".join(f"{key}: {one}" for key, one in found))
    return pairs.map("{{{}}}".format) | st.lists(SCALARS | pairs, max_size=3).map(lambda found: f"[{', '.join(found)}]")


FEW = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.lists(NUMERIC | WORDS, min_size=20, max_size=40))
@FEW
def test_scalars(kubectl: str, scalars: list[str]) -> None:
    """Many in one file, of those that maft reads; what it refuses, kubectl refuses too."""

    def readable(text: str) -> bool:
        try:
            return bool(dialect.documents(f"v: {text}\n"))
        except Unreadable:
            return False

    good = [text for text in scalars if readable(text)]
    agree(kubectl, "kind: A\nv:\n" + "".join(f"- a: {text}\n" for text in good))
    for text in [text for text in scalars if text not in good][:2]:
        agree(kubectl, f"kind: A\nv: {text}\n")


@given(SIGNS | st.tuples(SIGNS, SCALARS, SIGNS).map("".join))
@FEW
def test_signs(kubectl: str, text: str) -> None:
    agree(kubectl, f"kind: A\nv: {text}\n")


@given(blocks(1))
@FEW
def test_documents(kubectl: str, text: str) -> None:
    agree(kubectl, f"kind: A\nv:{text}\n")
