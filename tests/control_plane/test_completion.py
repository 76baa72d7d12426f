"""Shells complete every command and flag; bash, fish and zsh themselves are asked, and kubectl by its protocol."""

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maft_operator import completion
from maft_operator.__main__ import _parser
from maft_operator.kubectl.__main__ import COMPARED, TASKS
from maft_operator.kubectl.__main__ import parser as of_kubectl
from maft_operator.kubectl.complete import FILES, NO_FILES, candidates
from maft_operator.plan.graph import ProgramName

COMPLETED = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
name=$(complete -p maft | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$name" maft "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def shown(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every flag that help shows, with its command."""
    commands = {name: made for action in parser._actions for name, made in completion.subcommands(action).items()}
    for name, command in commands.items():
        for action in completion.actions(command):
            if action.option_strings and action.help != argparse.SUPPRESS:
                yield name, action


@pytest.fixture(scope="module", name="scripts")
def scripts_fixture(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("completion")
    for shell in completion.SHELLS:
        (folder / shell).write_text(completion.script(_parser(), shell))
    return {shell: folder / shell for shell in completion.SHELLS}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_knows_every_command_and_flag(shell: str, scripts: dict[str, Path]) -> None:
    text = scripts[shell].read_text()
    flags = list(shown(_parser()))
    assert len(flags) > 30 and {"run", "compare", "completion", "operator"} <= {command for command, _ in flags}
    for command, action in flags:
        assert re.search(rf"\b{command}\b", text), command
        for flag in action.option_strings:
            word = flag.lstrip("-")
            written = rf"-{'l' if flag.startswith('--') else 's'} '?{word}\b" if shell == "fish" else rf"{re.escape(flag)}\b"
            assert re.search(written, text), f"{command} {flag}"
    assert not re.search(r"--serve\b|-l serve\b", text) and "SUPPRESS" not in text


def completed(script: Path, *words: str, folder: Path | None = None) -> set[str]:
    """What bash offers for the last of the words."""
    line = ["bash", "-c", COMPLETED, "-", str(script), *words]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=folder)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return set(done.stdout.split())


@pytest.mark.programs
def test_bash_completes(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("")
    (tmp_path / "runs").mkdir()
    bash = scripts["bash"]
    assert completed(bash, "maft", "comp") == {"compare", "completion"}
    assert completed(bash, "maft", "compare", "--se") == {"--set", "--seeds"}
    assert completed(bash, "maft", "completion", "") >= set(completion.SHELLS)
    assert "run.yaml" in completed(bash, "maft", "validate", "r", folder=tmp_path)
    assert completed(bash, "maft", "run", "x.yaml", "--dir", "ru", folder=tmp_path) == {"runs"}


@pytest.mark.programs
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_their_scripts(shell: str, scripts: dict[str, Path]) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this machine")
    assert subprocess.run([shell, "-n", scripts[shell]], capture_output=True, timeout=60).returncode == 0
    if shell == "fish":
        ask = "complete --do-complete 'maft compare --se'"
        done = subprocess.run(["fish", "-c", f"source {scripts[shell]}; {ask}"], capture_output=True, text=True, timeout=60)
        assert {line.split("\t")[0] for line in done.stdout.splitlines()} == {"--set", "--seeds"}, done.stderr


@pytest.mark.parametrize("line", ["source {path}", 'eval "$(< {path})"', "fpath=({path.parent} $fpath); compinit -u -D"])
def test_zsh_takes_the_script_however_it_is_read(line: str, tmp_path: Path, scripts: dict[str, Path]) -> None:
    if not shutil.which("zsh"):
        pytest.skip("no zsh on this machine")
    path = tmp_path / "_maft"  # the name by which zsh finds it in a folder
    path.write_text(scripts["zsh"].read_text())
    lines = f"autoload -U compinit; compinit -u -D; {line.format(path=path)}; print $_comps[maft]"
    done = subprocess.run(["zsh", "-fc", lines], capture_output=True, text=True, timeout=60)
    assert done.stderr == "" and done.stdout in ("_shtab_maft\n", "_maft\n")


@pytest.mark.programs
def test_as_a_command() -> None:
    maft = [sys.executable, "-m", "maft_operator", "completion"]
    done = subprocess.run([*maft, "bash"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.rstrip("\n") == completion.script(_parser(), "bash").rstrip("\n")
    wrong = subprocess.run([*maft, "cmd"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2 and "bash, zsh, fish" in wrong.stderr.replace("'", "")


# --- kubectl ---


def offered(*words: str) -> set[str]:
    pairs, _ = candidates(of_kubectl(), words, lambda flags: [f"{flags.namespace or 'present'}-one", "two"])
    return {word for word, _ in pairs}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("l",), {"list", "logs"}),
        (("-n", "team", "re"), {"report"}),
        (("logs", "--ta"), {"--task", "--tail"}),
        (("logs", "one", "--task", "pre"), {"prepare", "preflight"}),
        (("logs", "one", "--task", "ex"), {"export"}),
        (("logs", "one", "--task", "co"), set()),
        (("logs", "one", "--kind", "comparisons", "--task", ""), {"compare"}),
        (("report", "--kind", ""), {"runs", "comparisons"}),
        (("logs", ""), {"present-one", "two"}),
        (("logs", "-n", "team", ""), {"team-one", "two"}),
        (("--namespace=team", "watch", "te"), {"team-one"}),
        (("logs", "-f", "t"), {"two"}),  # a flag without a value is none of the names
        (("logs", "one", ""), set()),
        (("list", ""), set()),
        (("list", "-o", ""), {"wide", "name"}),
        (("nothing", "--na"), {"--namespace"}),
    ],
)
def test_what_may_follow(words: tuple[str, ...], expected: set[str]) -> None:
    assert offered(*words) == expected


def test_the_logs_of_every_program_can_be_asked_for() -> None:
    assert {*get_args(ProgramName)} == {*TASKS, *COMPARED} - {"serve"}


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("logs", ""), "runs"),
        (("watch", "--kind", "comparisons", ""), "comparisons"),
        (("report", "--kind", "comparisons", ""), "comparisons"),
        (("watch", "--kind=societies", ""), "societies"),
        (("ask", ""), "societies"),
    ],
)
def test_names_are_those_of_the_kind_that_the_command_takes(words: tuple[str, ...], kind: str) -> None:
    assert candidates(of_kubectl(), words, lambda given: [given.kind])[0] == [(kind, "")]


def test_kubectl_learns_every_flag_and_what_it_means() -> None:
    for command, action in shown(of_kubectl()):
        pairs = dict(candidates(of_kubectl(), [command, "--"], lambda _: [])[0])
        assert all(pairs[flag] == action.help for flag in action.option_strings if flag.startswith("--")), command


def test_where_files_fit_kubectl_is_told() -> None:
    assert candidates(of_kubectl(), ["report", "one", "--to", ""], lambda _: []) == ([], FILES)
    assert candidates(of_kubectl(), ["report", "one", "-n", ""], lambda _: []) == ([], NO_FILES)


@given(
    st.lists(
        st.text(max_size=4) | st.sampled_from(["logs", "watch", "--task", "-n", "--to", "-f", "=", "--task=", "-A"]), max_size=6
    )
)
def test_any_words_are_answered(words: list[str]) -> None:
    pairs, directive = candidates(of_kubectl(), words, lambda _: ["one"])
    assert directive in (FILES, NO_FILES) and all(word.startswith(words[-1] if words else "") for word, _ in pairs)
