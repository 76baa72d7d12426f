"""What is made before the tests: which steps for which need, what a failure says, and that a cluster which was up stays up."""

import sys
from pathlib import Path

import prepare
import pytest
from conftest import ROOT

ALL = set(prepare.NEEDS)
RELEASE_ONLY = {"cosign"}  # make release-check builds it


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prepare, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(prepare, "CACHE", tmp_path / "cache")
    for name in ("CI", "KUBECONFIG", "MAFT_REQUIRE_CLUSTER", "MAFT_KEEP_CLUSTER"):
        monkeypatch.delenv(name, raising=False)


def what(steps: list[prepare.Step]) -> list[str]:
    return [step.what for step in steps]


def test_every_tool_is_built_once_and_the_longest_first() -> None:
    folders = [p.parent.name for p in (ROOT / "tests" / "support").glob("**/tools/*/go.mod")]
    built = what(prepare.builds(ALL))
    assert sorted(built) == sorted(set(folders) - RELEASE_ONLY)
    assert built[0] == "kube"
    assert what(prepare.builds({"s3"})) == ["versitygw"]


def test_images_come_after_the_packages_and_the_environment() -> None:
    assert what(prepare.downloads(ALL)) == [
        "packages",
        "environment",
        "moto",
        "mlflow",
        "trackers",
        "llama",
        "tokenizers",
        "pretrained model",
        "images",
    ]
    assert what(prepare.downloads({"tokenizers"})) == ["tokenizers"]
    assert what(prepare.downloads({"s3"})) == ["moto"]
    assert what(prepare.downloads({"pretrained"})) == ["pretrained model"]


def test_who_cannot_have_a_cluster_goes_on_without(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prepare.host, "unable", lambda: "the test cluster needs root")
    assert prepare.possible(ALL) == ALL - prepare.OWN
    assert capsys.readouterr().err == "prepare: no cluster: the test cluster needs root; its tests are left out\n"
    monkeypatch.setenv("CI", "true")
    with pytest.raises(prepare.Failed, match=r"^the test cluster needs root; or set KUBECONFIG"):
        prepare.possible(ALL)
    assert prepare.possible({"s3"}) == {"s3"}


def test_a_cluster_of_the_users_is_not_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/else")
    assert prepare.possible(ALL) == ALL - prepare.OWN


def steps(*commands: str) -> list[prepare.Step]:
    return [prepare.Step(f"step {n}", ("sh", "-c", command)) for n, command in enumerate(commands)]


def test_a_step_that_fails_ends_what_comes_after_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prepare, "downloads", lambda needs: steps("echo out of luck >&2; exit 1", f"touch {tmp_path}/after"))
    monkeypatch.setattr(prepare, "builds", lambda needs: [])
    with pytest.raises(prepare.Failed, match=r"^step 0 failed; the end of \S+step-0.log:\nout of luck\n$"):
        prepare.make(ALL)
    assert not (tmp_path / "after").exists()


def test_a_step_that_takes_longer_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(prepare, "PATIENCE", 0.05)
    monkeypatch.setattr(prepare, "downloads", lambda needs: steps("sleep 0.3"))
    monkeypatch.setattr(prepare, "builds", lambda needs: [])
    prepare.make(ALL)
    assert capsys.readouterr().err == "prepare: step 0 ...\nprepare: step 0: ready after 0 s\n"


@pytest.mark.parametrize(
    ("up_before", "command", "asked"),
    [
        (False, [sys.executable, "-c", "raise SystemExit(7)"], ["status", "down"]),
        (True, [sys.executable, "-c", "raise SystemExit(7)"], ["status"]),
        (False, [], []),
    ],
)
def test_the_cluster_ends_with_the_command_that_it_was_started_for(
    monkeypatch: pytest.MonkeyPatch, up_before: bool, command: list[str], asked: list[str]
) -> None:
    calls: list[str] = []

    def cluster(word: str) -> int:
        calls.append(word)
        return 0 if up_before else 1

    monkeypatch.setattr(prepare, "cluster", cluster)
    monkeypatch.setattr(prepare, "make", lambda needs: None)
    monkeypatch.setattr(prepare, "bring_up", lambda: None)
    monkeypatch.setattr(prepare.host, "unable", lambda: "")
    monkeypatch.setattr(prepare.signal, "signal", lambda *_: None)  # this process hears Ctrl-C on
    assert prepare.prepared(ALL, command) == (7 if command else 0)
    assert calls == asked


def test_the_command_knows_that_all_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.signal, "signal", lambda *_: None)
    seen = "import os; raise SystemExit(os.environ['MAFT_PREPARED'] != '1')"
    assert prepare.after([sys.executable, "-c", seen]) == 0


def test_needs_and_command_are_told_apart() -> None:
    assert prepare.arguments(["s3", "--", "x", "--", "-y"]) == ({"s3"}, ["x", "--", "-y"])
    assert prepare.arguments([]) == (ALL, [])
    with pytest.raises(SystemExit):
        prepare.arguments(["nothing"])
