"""docs/serving.md and docs/comparing.md tried as a new user would, on one machine; on a cluster: test_pages_on_cluster.py.

The stand-in for vLLM answers (MAFT_SERVE), and the pages' commands run as they stand.
"""

import copy
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml
from conftest import MOCK, wait_until
from small import ROOT
from societies import trained
from tried import COMPARING, EXAMPLE, SERVING, Block, Going, Terminal, blocks, calls, checkout, of

from maft_operator import __main__ as maft
from maft_operator.kubectl import __main__ as kubectl_maft
from maft_operator.local.ports import check_free
from maft_operator.spec import comparison, files
from maft_operator.spec.schema import COMPARISON, GROUP, SOCIETY, checked

BOTH = [pytest.param(page, block, id=f"{page.stem}-{i}") for page in (SERVING, COMPARING) for i, block in enumerate(blocks(page))]
programs, nightly = pytest.mark.programs, pytest.mark.nightly


def resources(block: Block) -> list[dict[str, Any]]:
    """What a block of YAML says, as whole resources of ours: a part of a spec with the rest of the example."""
    made = []
    for document in yaml.safe_load_all(block.text):
        if "apiVersion" in document:
            made += [document] if document["apiVersion"].startswith(f"{GROUP}/") else []
        elif "spec" in document:
            made.append(society(**document["spec"]))
        else:
            made.append(compared(**document))
    return made


def society(**spec: Any) -> dict[str, Any]:
    whole = files.load(ROOT / "examples" / "society.yaml", kinds=(SOCIETY,))
    return {**whole, "spec": {**whole["spec"], **spec}}


def compared(*, template: Any = None, **spec: Any) -> dict[str, Any]:
    whole = copy.deepcopy(files.load(ROOT / "examples" / "comparison.yaml", kinds=(COMPARISON,)))
    return {**whole, "spec": {**whole["spec"], **spec, "template": {**whole["spec"]["template"], **(template or {})}}}


@pytest.mark.parametrize(("page", "block"), [one for one in BOTH if one.values[1].language == "yaml"])  # type: ignore[union-attr]
def test_every_resource_of_the_pages_is_one_that_is_taken(page: Path, block: Block) -> None:
    for resource in resources(block):
        if resource["kind"] == COMPARISON:
            assert comparison.read(resource).template.spec.storage
        else:
            assert checked(resource, resource["kind"])["spec"]["run"]


@pytest.mark.parametrize(("page", "block"), [one for one in BOTH if one.values[1].language == "sh"])  # type: ignore[union-attr]
def test_every_command_of_the_pages_is_one_that_there_is(page: Path, block: Block) -> None:
    """By the programs' own parsers; files that are named exist, and what only stands for something is called an example."""
    ours = 0
    for program, *words in (words for command in block.commands for words in calls(command)):
        if program in ("maft", ".venv/bin/maft"):
            ours += bool(maft._parser().parse_args(words).call)
        elif program == "kubectl" and words[0] == "maft":
            ours += bool(kubectl_maft.parser().parse_args(words[1:]).call)
        named = [word for word in words if word.startswith("examples/")]
        assert all((ROOT / name).exists() for name in named)
    assert ours or "kubectl" in block.text or block.text.startswith(EXAMPLE)


def test_the_grid_of_the_page_makes_the_rows_that_it_says() -> None:
    """Four of multiagent, two of debate and one of base."""
    [block] = [one for one in of(COMPARING, "Fields", "yaml") if "grid" in one.text]
    [resource] = resources(block)
    one = comparison.read(resource)
    rows = {child.label: child.method for child in one.children}
    assert Counter(rows.values()) == {"multiagent": 4, "debate": 2, "base": 1}
    assert "makes four rows of `multiagent`, two of `debate`" in COMPARING.read_text()


# --- serving ---


@pytest.fixture(name="terminal")
def terminal_fixture(tmp_path: Path) -> Terminal:
    """In a checkout with the run that `make demo` leaves, but for its training."""
    trained(tmp_path / "runs", run="default/arithmetic")
    return Terminal(checkout(tmp_path), {"MAFT_SERVE": f"{sys.executable} {MOCK}"})


@pytest.fixture(name="port")
def port_fixture() -> Iterator[None]:
    """The pages' own port, as `maft serve` has it where nothing else is said."""
    try:
        check_free("127.0.0.1", 8080)
    except OSError:
        pytest.skip("somebody else has port 8080 here")
    yield


def is_ready(going: Going) -> None:
    wait_until(lambda: going.process.poll() is not None or "Ready: " in going.log.read_text(), 600, going.log.read_text)


def is_a_debate(lines: list[str]) -> bool:
    """Three agents in two rounds, in the order in which they are done, then the answer and the vote."""
    *turns, answer, vote = lines
    heads = [re.fullmatch(r"(round \d, agent \d): (-?\d+)   \(.+\)", line) for line in turns]
    order = [head[1] for head in heads if head]
    value = re.fullmatch(r"answer (-?\d+), margin \d of 3; agents? [1-3](?:, [1-3])* agrees?", vote)
    rounds = [[f"round {m}, agent {n}" for n in (1, 2, 3)] for m in (1, 2)]
    return value is not None and answer.endswith(value[1]) and [sorted(order[:3]), sorted(order[3:])] == rounds


@programs
@pytest.mark.timeout(1500)
def test_a_question_is_debated_as_the_page_shows(terminal: Terminal, port: None) -> None:
    """And again by the society that is kept running, with the same words, by curl and the openai client, too."""
    section = "In two minutes"
    [first, several] = of(SERVING, section)
    [shown] = of(SERVING, section, "")
    [command] = first.commands
    debate = terminal.run(command).splitlines()
    assert is_a_debate(debate) and is_a_debate(shown.text.splitlines())
    [serve, ask, models, chat] = several.commands
    with terminal.until_interrupted(serve) as going:
        is_ready(going)
        assert "Ready: http://127.0.0.1:8080/v1 " in going.log.read_text()
        again = terminal.run(ask).splitlines()
        known = [one["id"] for one in json.loads(terminal.run(models))["data"]]
        choice = json.loads(terminal.run(chat))["choices"][0]
        [program] = of(SERVING, section, "python")
        printed = terminal.run(f"{sys.executable} - <<'E'\n{program.text}E")
        assert going.interrupt() == 130, going.log.read_text()
    assert again[-2:] == debate[-2:] and sorted(again) == sorted(debate)
    assert known[:3] == ["society", "society/majority", "society/generator-1"] and "society/critic-3" in known
    assert choice["message"]["content"] == debate[-2]
    assert printed == f"{debate[-2]} {choice['maft']['margin']}\n"
    [answer] = of(SERVING, "The answer", "json")
    assert {*re.findall(r'"(\w+)":', answer.text)} == {"maft", *choice["maft"], *choice["maft"]["agents"][0]}


def question(number: int) -> str:
    return f"What is {number // 20 + 11}+{number % 20 + 21}?"


@programs
@nightly  # a whole run, with its training
@pytest.mark.timeout(1800)
def test_the_next_run_learns_from_what_was_kept_as_the_page_says(terminal: Terminal, port: None) -> None:
    [block] = of(SERVING, "Questions that are kept")
    [serve, run] = block.commands
    asked = [question(number) for number in range(220)]
    with terminal.until_interrupted(serve) as going:
        is_ready(going)
        client = openai.OpenAI(base_url="http://127.0.0.1:8080/v1", api_key="none", timeout=120)

        def ask(text: str) -> None:
            client.chat.completions.create(model="society", messages=[{"role": "user", "content": text}])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, asked))
        assert going.interrupt() == 130, going.log.read_text()
    kept = [json.loads(line)["question"] for line in lines(terminal.folder / "runs/default/arithmetic/asked")]
    assert len({*kept}) == len(kept) >= 150
    assert "multiagent finetuning, iteration" in terminal.run(run, 1500)
    problems = terminal.folder / "runs" / "default" / "asked" / "problems"
    drawn = [json.loads(line)["question"] for name in ("train", "validation") for line in lines(problems, name)]
    assert len(drawn) == 150 and {*drawn} <= {*kept}


def lines(folder: Path, name: str = "*") -> list[str]:
    return [line for file in sorted(folder.glob(f"{name}.jsonl")) for line in file.read_text().splitlines()]


@nightly  # half a minute of imports; it asks a society in test_endpoint_lm_eval.py
def test_lm_eval_takes_the_command_of_the_page() -> None:
    """Its questions come from the hub, so it is read and not run."""
    harness = pytest.importorskip("lm_eval._cli.harness")
    [block] = [one for one in blocks(SERVING) if one.section == "lm-eval"]
    [[program, *words]] = [words for command in block.commands for words in calls(command)]
    asked = harness.HarnessCLI()._parser.parse_args(words)
    assert (program, asked.model, asked.apply_chat_template) == ("lm-eval", "local-chat-completions", True)


# --- comparing ---


@programs
def test_the_example_is_checked_and_planned_as_the_page_says(terminal: Terminal) -> None:
    """What of it needs no cluster."""
    [_, block] = [one for one in of(COMPARING, "Try it") if "examples/" in one.text]
    [validate, plan] = [command for command in block.commands if command.startswith("maft ")]
    assert terminal.run(validate) == "examples/comparison.yaml: default/methods, a comparison of 6 runs, is valid\n"
    named = [line.partition(" ")[0] for line in terminal.run(plan).splitlines() if not line.startswith("#")]
    assert len({*named}) == 6 and {name.rpartition("-")[0] for name in named} == {
        f"methods-{method}-{seed}" for method in ("base", "debate", "multiagent") for seed in (0, 1)
    }


@programs
@nightly  # two whole runs of the demo, with their training
@pytest.mark.timeout(3000)
def test_methods_are_compared_on_one_machine_as_the_page_says(terminal: Terminal) -> None:
    [block] = [one for one in of(COMPARING, "Try it") if "maft compare" in one.text]
    [command] = block.commands
    printed = terminal.run(command, 2700)
    made = json.loads((terminal.folder / "runs" / "default" / "methods" / "compare" / "compare.json").read_text())
    assert {row["method"] for row in made["rows"]} == {"base", "debate", "multiagent"}
    assert all(row["method"] in printed for row in made["rows"])
