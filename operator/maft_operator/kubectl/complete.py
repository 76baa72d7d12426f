"""`kubectl_complete-maft`: what may follow on a command line of `kubectl maft`. kubectl asks it, and hands on to the shell.

Its arguments are the words so far, the last one unfinished; it prints a word a line with what it means, then a number for kubectl.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from maft_operator import kubeconfig
from maft_operator.completion import subcommands
from maft_operator.kubectl.__main__ import parser, tasks

NO_FILES, FILES = 4, 0  # how kubectl goes on where none of them fits
PATIENCE = 3.0  # seconds that the cluster may take to name its runs
Pair = tuple[str, str]
Names = Callable[[argparse.Namespace], Iterable[str]]


def main() -> None:
    """Prints what may follow."""
    pairs, directive = candidates(parser(), sys.argv[1:], names)
    for word, text in pairs:
        print(f"{word}\t{text}" if text else word)
    print(f":{directive}")


def candidates(whole: argparse.ArgumentParser, words: Sequence[str], runs: Names) -> tuple[list[Pair], int]:
    """Lists what the last word may become, each with what it means. runs: the names there are, for the flags so far."""
    *before, last = words or [""]
    command, given, waiting = _walked(whole, before)
    if waiting:
        choices = tasks(given.kind) if waiting.dest == "task" else waiting.choices or ()
        return _fitting(((str(choice), "") for choice in choices), last), FILES if waiting.dest == "to" else NO_FILES
    if last.startswith("-"):
        return _fitting(_flags(command), last), NO_FILES
    offered = [pair for action in command._actions for pair in _commands(action)]
    named = next((action for action in command._actions if action.dest == "run"), None)
    if not offered and named and not given.run:
        given.kind = given.kind or ("societies" if named.metavar == "SOCIETY" else "runs")
        offered = [(name, "") for name in runs(given)]
    return _fitting(offered, last), NO_FILES


def _walked(
    whole: argparse.ArgumentParser, words: Sequence[str]
) -> tuple[argparse.ArgumentParser, argparse.Namespace, argparse.Action | None]:
    """The command that the words have come to, the flags that they give, and the flag whose value is next."""
    command, given, waiting = whole, argparse.Namespace(run="", namespace="", context="", kind=""), None
    for word in words:
        flag, _, value = word.partition("=")
        action = command._option_string_actions.get(flag)
        below = {name: made for each in command._actions for name, made in subcommands(each).items()}
        if waiting is not None:
            setattr(given, waiting.dest, word)
            waiting = None
        elif action is not None and action.nargs is None:  # it takes a value
            setattr(given, action.dest, value)
            waiting = None if value else action
        elif word in below:
            command = below[word]
        elif not word.startswith("-"):
            given.run = word
    return command, given, waiting


def _commands(action: argparse.Action) -> Iterator[Pair]:
    if isinstance(action, argparse._SubParsersAction):
        yield from ((choice.dest, choice.help or "") for choice in action._choices_actions)


def _flags(command: argparse.ArgumentParser) -> Iterator[Pair]:
    for action in command._actions:
        if action.help != argparse.SUPPRESS:
            yield from ((flag, action.help or "") for flag in action.option_strings if flag.startswith("--"))


def _fitting(pairs: Iterable[Pair], beginning: str) -> list[Pair]:
    return [(word, text) for word, text in pairs if word.startswith(beginning)]


def names(given: argparse.Namespace) -> list[str]:
    """Asks the cluster for names; none where it does not answer in time, for whatever reason."""
    try:
        return asyncio.run(_names(given))
    except Exception:  # a shell that completes shows no errors
        return []


async def _names(given: argparse.Namespace) -> list[str]:
    from maft_operator.cluster.connection import connected
    from maft_operator.cluster.user_api import UserApi
    from maft_operator.kubectl import tables
    from maft_operator.kubectl.asked import KINDS, Where

    async with asyncio.timeout(PATIENCE), connected(in_cluster=False, context=given.context) as client:
        namespace = given.namespace or kubeconfig.namespace(given.context)
        where = Where(UserApi(client), namespace, KINDS[given.kind])
        return [row.name async for page in where.pages("") for row in tables.read(page).rows]


if __name__ == "__main__":
    main()
