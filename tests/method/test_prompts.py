"""Prompts: templates filled in one pass, and chats as the tokens that a model sees and is trained on."""

import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from maft.chat_template import ChatTemplate, load_chat_template
from maft.debate.prompts import Prompts, fill, longest, numbered
from maft.errors import BadInput
from maft.records import Message, Problem
from maft.spec import PromptsSpec
from maft.template_facts import Options

PROMPTS = Prompts(
    first="Q: {question}",
    later=PromptsSpec(
        summarize="Sum up:\n{answers}",
        revise="They say {summary}. Again: {question}",
        concatenate="They say {answers}. Again: {question}",
        cooperate="Together: {summary}. Now: {question}",
        hint="It is {answer}: {question}",
    ),
)


# --- the longest question ---

WORDS = "Which of the following statements about the river is the least probable? "


@pytest.mark.parametrize(
    "other", ["是" * 60, "7" * 60, "+-=" * 20, "🙂" * 30, "ж" * 60], ids=["han", "digits", "signs", "emoji", "cyrillic"]
)
def test_the_longest_question_is_the_one_of_most_tokens(other: str) -> None:
    template = load_chat_template(str(TINY), None)
    questions = [*(Problem(str(n), f"{WORDS}{n}", "1") for n in range(100)), Problem("other", other, "1")]

    def tokens(problem: Problem) -> int:
        return len(template.prompt([Message("user", problem.question)]))

    assert tokens(questions[-1]) != tokens(questions[0])
    assert longest(questions, tokens) == max(questions, key=tokens)


def test_a_hundred_thousand_questions_are_not_all_counted() -> None:
    asked: list[Problem] = []
    questions = [Problem(str(n), f"What is {n}?", "1") for n in range(100_000)]
    questions[500] = Problem("long", "What is that?", "1", history=(Message("user", "x" * 99),))

    def tokens(problem: Problem) -> int:
        asked.append(problem)
        return len(problem.text)

    assert longest(questions, tokens) == questions[500] and len(asked) < 100
    assert longest([], tokens) is None


# --- texts ---


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        ("{question}", {"question": "7+3?"}, "7+3?"),
        ("{question} {question}", {"question": "x"}, "x x"),
        ("{summary}: {question}", {"question": "what is {summary}?", "summary": "{question}"}, "{question}: what is {summary}?"),
        ("{question}", {"question": "{answers} {question} \\1 \\g<0>"}, "{answers} {question} \\1 \\g<0>"),
        ("\\frac{1}{2} {x} {} {question}", {"question": "q"}, "\\frac{1}{2} {x} {} q"),
        ('{"a": "{question}"}', {"question": "q"}, '{"a": "q"}'),
        ("{{question}}", {"question": "q"}, "{q}"),
        ("{ question }", {"question": "q"}, "{ question }"),
        ("{Question}", {"question": "q"}, "{Question}"),
        ("none", {"question": "q"}, "none"),
    ],
)
def test_fill(template: str, values: dict[str, str], expected: str) -> None:
    assert fill(template, **values) == expected


@given(st.text(), st.text())
def test_what_is_filled_in_arrives_whole(question: str, summary: str) -> None:
    assert fill("<{question}|{summary}>", question=question, summary=summary) == f"<{question}|{summary}>"


def test_the_first_turn_and_the_summary() -> None:
    assert PROMPTS.ask("7+3?") == "Q: 7+3?"
    assert PROMPTS.summary(["10", "{question}\n11"]) == "Sum up:\nAgent 1: 10\nAgent 2: {question}\n11"
    assert numbered([]) == ""


@pytest.mark.parametrize(
    ("summary", "cooperative", "expected"),
    [
        ("both 10", False, "They say both 10. Again: 7+3?"),
        (None, False, "They say Agent 1: 10\nAgent 2: {summary}. Again: 7+3?"),
        ("both 10", True, "Together: both 10. Now: 7+3?"),
        (None, True, "Together: Agent 1: 10\nAgent 2: {summary}. Now: 7+3?"),
        ("", False, "They say . Again: 7+3?"),
    ],
)
def test_later_turns(summary: str | None, cooperative: bool, expected: str) -> None:
    assert PROMPTS.again("7+3?", summary=summary, others=["10", "{summary}"], cooperative=cooperative) == expected


# --- tokens ---

TURN = "<|{{ m.role }}|>{{ m.content }}<|end|>"
ASK = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
LINES = "{% for m in messages %}" + TURN + "\n{% endfor %}" + ASK
SPECIAL_FIRST = "<|start|>{% for m in messages %}" + TURN + "{% endfor %}" + ASK
# Leaves out what earlier answers thought, as templates of reasoning models do.
REWRITING = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content if loop.last else m.content.split('</think>')[-1] }}<|end|>\n{% endfor %}" + ASK
)
# No end token; a merge of ":" and "4" goes over the border between prompt and answer.
PLAIN = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
# Says "thinking" before an answer only where it asks for one.
LATE = "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}<|assistant|>(now){% endif %}"
TEMPLATES = {"lines": LINES, "special first": SPECIAL_FIRST, "rewriting": REWRITING, "plain": PLAIN, "late": LATE}
MARKS = ["<|end|>", "<|user|>", "<|assistant|>", "<|start|>"]


def tokenizer(template: str | None) -> Any:
    """Bytes as tokens, and the merge ":4"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, ":4"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[(":", "4")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", extra_special_tokens=MARKS[1:])
    made.chat_template = template
    return made


TOKENIZERS = {name: tokenizer(template) for name, template in TEMPLATES.items()}
CHATS = {name: ChatTemplate(tokenizer, "tiny") for name, tokenizer in TOKENIZERS.items()}


def chat(*texts: str) -> list[Message]:
    return [Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]


def marked(name: str, ids: Sequence[int], completion: Sequence[bool]) -> list[str]:
    """The texts of the stretches where the loss counts."""
    runs = groupby(zip(ids, completion, strict=True), key=lambda pair: pair[1])
    return [TOKENIZERS[name].decode([i for i, _ in run]) for counts, run in runs if counts]


texts = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=12)
dialogues = st.lists(st.tuples(texts, texts), min_size=1, max_size=3).map(lambda turns: chat(*(t for turn in turns for t in turn)))


@pytest.mark.parametrize("name", TEMPLATES)
@given(messages=dialogues)
@settings(max_examples=25)
def test_the_model_is_trained_on_what_it_sees(name: str, messages: list[Message]) -> None:
    tokens, prompt = CHATS[name].tokens(messages, every_turn=False), CHATS[name].prompt(messages[:-1])
    assert tokens.ids[: len(prompt)] == tuple(prompt)
    assert tokens.completion == tuple(i >= len(prompt) for i in range(len(tokens.ids)))
    assert TOKENIZERS[name].decode(tokens.ids[len(prompt) :]) == messages[-1].content + "<|end|>"


@pytest.mark.parametrize("name", ["lines", "special first"])
@given(messages=dialogues)
@settings(max_examples=25)
def test_every_answer_can_count(name: str, messages: list[Message]) -> None:
    tokens, last = (CHATS[name].tokens(messages, every_turn=every) for every in (True, False))
    assert tokens.ids == last.ids
    assert marked(name, tokens.ids, tokens.completion) == [m.content + "<|end|>" for m in messages[1::2]]


def test_the_exact_tokens_of_a_chat() -> None:
    tokens = CHATS["lines"].tokens(chat("7+3?", "10", "sure?", "yes"), every_turn=False)
    shown = TOKENIZERS["lines"].decode(tokens.ids)
    assert shown == "<|user|>7+3?<|end|>\n<|assistant|>10<|end|>\n<|user|>sure?<|end|>\n<|assistant|>yes<|end|>"
    assert marked("lines", tokens.ids, tokens.completion) == ["yes<|end|>"]


def test_a_merge_over_the_border_does_not_move_it() -> None:
    [apart] = {len(CHATS["plain"].prompt(chat("q")))}
    whole = TOKENIZERS["plain"]("user:q\nassistant:4")["input_ids"]
    assert len(whole) == apart  # ":4" is one token, so the prompt is no prefix of the whole text
    tokens = CHATS["plain"].tokens(chat("q", "4"), every_turn=False)
    assert tokens.ids[:apart] == tuple(CHATS["plain"].prompt(chat("q")))
    assert TOKENIZERS["plain"].convert_ids_to_tokens(tokens.ids[apart:]) == ["4", "<|end|>"]


def test_turns_whose_thoughts_the_template_drops_are_left_out_and_counted() -> None:
    first, last = thought("add", "10"), thought("check", "yes")
    messages = [Message("user", "7+3?"), first, Message("user", "sure?"), last]
    once, every = (CHATS["rewriting"].tokens(messages, every_turn=every) for every in (False, True))
    shown = TOKENIZERS["rewriting"].decode(every.ids)
    assert "add</think>" not in shown
    assert shown.endswith("<think>check</think>yes<|end|>")
    assert marked("rewriting", every.ids, every.completion) == ["<think>check</think>yes<|end|>"]
    assert (once.ids, once.completion, once.left_out) == (every.ids, every.completion, 0)
    assert every.left_out == 1


def thought(text: str, reply: str) -> Message:
    """An answer with a thought, with the tokens that a server sampled."""
    ids = TOKENIZERS["rewriting"](f"<think>{text}</think>{reply}<|end|>", add_special_tokens=False)["input_ids"]
    return Message("assistant", reply, text, tuple(ids))


def test_a_thought_is_read_and_does_not_count_where_it_is_not_trained_on() -> None:
    messages = [Message("user", "7+3?"), thought("add", "10")]
    tokens = CHATS["rewriting"].tokens(messages, every_turn=False, thoughts=False)
    assert tokens.ids == CHATS["rewriting"].tokens(messages, every_turn=False).ids
    assert marked("rewriting", tokens.ids, tokens.completion) == ["10<|end|>"]


def test_one_answer_is_both_the_last_and_every() -> None:
    messages = [Message("user", "7+3?"), thought("add", "10")]
    assert CHATS["rewriting"].tokens(messages, every_turn=True) == CHATS["rewriting"].tokens(messages, every_turn=False)


@pytest.mark.parametrize("template", [None, ""])
def test_a_model_without_a_chat_template(template: str | None) -> None:
    with pytest.raises(BadInput, match=r"model\.source: org/base has no chat template; use an instruction-tuned model"):
        ChatTemplate(tokenizer(template), "org/base")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for", "unexpected 'end of template'"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].role.name.first }}", "has no attribute 'name'"),
    ],
)
def test_a_chat_template_that_fails(template: str, message: str) -> None:
    with pytest.raises(BadInput, match=rf"model\.source: the chat template of org/base fails: .*{message}"):
        ChatTemplate(tokenizer(template), "org/base").prompt(chat("7+3?"))


def test_a_chat_template_that_fails_for_an_argument() -> None:
    template = tokenizer("{{ 'Effort: ' + (effort or '') }}" + LINES)
    says = r"model\.chatTemplateArguments\.effort: 3: the chat template of org/base fails: can only concatenate"
    with pytest.raises(BadInput, match=says):
        ChatTemplate(template, "org/base", Options(arguments={"other": 1, "effort": 3}))


def test_a_tokenizer_without_an_end_token() -> None:
    endless = tokenizer(LINES)
    endless.eos_token = None
    with pytest.raises(BadInput, match=r"model\.source: the tokenizer of org/base names no end token"):
        ChatTemplate(endless, "org/base")


# --- from a folder ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer(LINES).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_whole_folder(folder: Path) -> None:
    assert load_chat_template(str(folder), None).prompt(chat("7+3?")) == CHATS["lines"].prompt(chat("7+3?"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "has no usable tokenizer: "),
        ("tokenizer.json", b"{", "has no usable tokenizer: "),
        ("tokenizer.json", b"{}", "has no usable tokenizer: "),
        ("tokenizer_config.json", b"{", "has no usable tokenizer: Expecting property name"),
        ("tokenizer_config.json", b"[]", "has no usable tokenizer: tokenizer_config.json holds no object"),
        ("tokenizer_config.json", b"\xff", "has no usable tokenizer: "),
        ("chat_template.jinja", None, "has no chat template; "),
        ("chat_template.jinja", b"{% for", "fails: unexpected 'end of template'"),
        ("chat_template.jinja", b"{{ messages[1].nothing.at_all }}", "fails: "),
    ],
)
def test_a_damaged_folder(folder: Path, name: str, content: bytes | None, message: str) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        load_chat_template(str(folder), None)
    assert str(caught.value).startswith("model.source: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


LOADED = """
import sys
from maft import models, program
program.without_torch()
from maft.chat_template import load_chat_template
from maft.errors import BadInput
from maft.records import Message, Problem
from maft.spec import ModelSpec
print(load_chat_template(sys.argv[1], None).prompt([Message("user", "7+3?")]))
try:
    load_chat_template(sys.argv[2], None)
except BadInput as error:
    print(error)
fields = {"revision": "", "trust_remote_code": False, "max_length": 0, "cache_claim": "", "chat_template_arguments": {}, "date": ""}
models.check(ModelSpec(source=sys.argv[3], **fields))
print("torch" in sys.modules)
import torch
print(torch.ones(1).item())
"""


@pytest.mark.programs
def test_configurations_and_tokenizers_need_no_torch(folder: Path, tmp_path: Path) -> None:
    """As in programs that only ask servers: transformers would import it. Who needs it finds it all the same."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "Qwen2Tokenizer"}))
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-c", LOADED, str(folder), str(tmp_path / "empty"), str(TINY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    prompt, error, imported, one = done.stdout.splitlines()
    assert prompt == str(CHATS["lines"].prompt(chat("7+3?")))
    assert error.startswith(f"model.source: {tmp_path}/empty has no usable tokenizer: ")
    assert (imported, one) == ("False", "1.0")
