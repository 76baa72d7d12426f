"""`maft completion SHELL`: a script by which a shell completes the command's words, made from its command line."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from maft_operator.spec.schema import BadSpec

SHELLS = ("bash", "zsh", "fish")
_FOLDERS = ("dir", "to")
_HELP = """Prints a script for your shell. For this shell: `source <(maft completion bash)`; for all to come: redirect it into
~/.local/share/bash-completion/completions/maft, into _maft in a folder of zsh's $fpath, or for fish into
~/.config/fish/completions/maft.fish."""


def add(commands: Any, whole: Callable[[], argparse.ArgumentParser]) -> None:
    """Adds the subcommand. whole: makes the command line that is completed."""
    parser = commands.add_parser("completion", help="print a script by which a shell completes commands", description=_HELP)
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(call=lambda arguments: _print(whole(), arguments.shell))


def _print(parser: argparse.ArgumentParser, shell: str) -> int:
    print(script(parser, shell))
    return 0


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Makes the script. What is a path is completed as one."""
    try:
        import shtab
    except ModuleNotFoundError:
        raise BadSpec("the package shtab is missing; pip install 'maft[completion]'") from None
    for action in actions(parser):
        if action.type is Path or action.dest in _FOLDERS:
            action.complete = shtab.DIRECTORY if action.dest in _FOLDERS else shtab.FILE  # type: ignore[attr-defined]
    made: str = shtab.complete(parser, shell)
    # Of the ways in which a script is read by hand it knows one; by the other, `source`, it would complete at once and fail.
    return made.replace("$zsh_eval_context[-1] == eval ", "$zsh_eval_context[-1] == (eval|file) ")


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yields what a command line and its subcommands take."""
    for action in parser._actions:  # argparse has no public way to them
        yield action
        for command in subcommands(action).values():
            yield from actions(command)


def subcommands(action: argparse.Action) -> dict[str, argparse.ArgumentParser]:
    """Lists the subcommands that an action stands for, by name; none where it is another."""
    return dict(action.choices) if isinstance(action, argparse._SubParsersAction) else {}
