"""What lists, pages and clients have in common: what can be printed, what is over, which context of a kubeconfig counts."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from maft_operator import kubeconfig
from maft_operator.ended import is_over
from maft_operator.printable import on_one_line, printable

STEERING = "a\x1b[2Jb\r\x07\x9b\u202ec\td\n\ne"


def test_nothing_that_steers_a_terminal_is_printed() -> None:
    unseen = "\N{REPLACEMENT CHARACTER}"
    assert printable(STEERING) == f"a{unseen}[2Jb{unseen}{unseen}{unseen}{unseen}c\td\n\ne"
    assert on_one_line(STEERING) == "a?[2Jb????c?d"
    assert printable("Größe ½ 漢字 ✓") == on_one_line("Größe ½ 漢字 ✓") == "Größe ½ 漢字 ✓"


@pytest.mark.parametrize(
    ("resource", "over"),
    [
        ({}, False),
        ({"status": None}, False),
        ({"status": {"phase": "Training"}}, False),
        ({"status": {"completionTime": "2026-01-01T00:00:00Z"}}, True),
        ({"metadata": {"generation": 2}, "status": {"phase": "Rejected", "observedGeneration": 2}}, True),
        ({"metadata": {"generation": 3}, "status": {"phase": "Rejected", "observedGeneration": 2}}, False),
        ({"metadata": {"generation": "3"}, "status": {"phase": "Rejected", "observedGeneration": "2"}}, True),
        ({"status": {"phase": "Rejected"}}, True),
        ({"status": ["Rejected"]}, False),
        ({"status": {"phase": "Ready"}}, False),
    ],
)
def test_what_is_over(resource: dict[str, Any], over: bool) -> None:
    assert is_over(resource) == over


def config(path: Path, present: str, **namespaces: str) -> str:
    contexts = [{"name": name, "context": {"namespace": space} if space else None} for name, space in namespaces.items()]
    path.write_text(yaml.safe_dump({"contexts": contexts, **({"current-context": present} if present else {})}))
    return str(path)


WRONG = ["contexts: [", "contexts: 5", "contexts: {a: b}", "contexts: [[1], {name: 5}]", "[" * 5000, "{a: " * 5000, "\0", "!!x y"]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong[:12])
def test_of_several_files_the_first_that_names_a_context_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """As kubectl takes them; what is missing, broken or of another form is passed over here, and told when a client is made."""
    broken, other = tmp_path / "broken", tmp_path / "list"
    broken.write_text(wrong)
    other.write_text("[]")
    one = config(tmp_path / "one", "", a="of-a")
    two, three = config(tmp_path / "two", "b", b="of-b"), config(tmp_path / "three", "c", c="", a="again")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "missing"), str(broken), "", str(other), one, two, three]))
    assert (kubeconfig.present(), kubeconfig.contexts()) == ("b", ["a", "b", "c", "a"])
    spaces = [kubeconfig.namespace(name) for name in ("", "a", "c", "nobody")]
    assert spaces == ["of-b", "of-a", "default", "default"]
    monkeypatch.setenv("KUBECONFIG", one)
    assert (kubeconfig.present(), kubeconfig.namespace()) == ("", "default")
    config(tmp_path / "one", "d", d="of-d")
    assert (kubeconfig.present(), kubeconfig.namespace()) == ("d", "of-d"), "a file that has changed is read anew"


def test_without_a_variable_it_is_the_file_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kubeconfig.paths() == [tmp_path / ".kube" / "config"]
