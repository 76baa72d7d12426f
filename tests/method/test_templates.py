"""Chat templates of published models: what is seen in generation and in training, what was said, thoughts, ends of turns."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

import family_templates
import pytest
from family_list import FAMILIES
from family_rules import Mode, said
from family_table import verified
from family_templates import DATE, template, tokenizer

from maft.chat_template import ChatTemplate, load_chat_template
from maft.errors import BadInput
from maft.records import Message
from maft.spec import Thinking
from maft.template_facts import Options

pytestmark = pytest.mark.tokenizers

MODES: list[tuple[str, Thinking]] = [(k, m) for k, family in FAMILIES.items() for m in family.modes]
WORKING = [(k, m) for k, m in MODES if isinstance(FAMILIES[k].modes[m], Mode)]
THINKING = [(k, m) for k, m in WORKING if FAMILIES[k].modes[m].thinks]
SYSTEM = "Answer in one word, s'il te plaît."
QUESTIONS = ("What is 7+3?", "Agent 1: 11.\nAgent 2: it is 10 .\nWhat is it?", "Sure? {x} <b>")
REPLIES = ("Answer: 10", "It is **10**, isn't it .\n\n- 7+3 = 10", "Ja, «zehn» – 十 🙂")
THOUGHTS = ("7 and 3 is 10.", "One says 11,\n\nwhich is wrong.", "Sure.")


def mode_of(key: str, thinking: Thinking) -> Mode:
    mode = FAMILIES[key].modes[thinking]
    assert isinstance(mode, Mode)
    return mode


def ends(key: str) -> str:
    return "".join(FAMILIES[key].end)


def sampled(key: str, thinking: Thinking, reply: str, thought: str = "") -> tuple[int, ...]:
    """The tokens of an answer as a server tells them: with the end of the turn."""
    text = said(FAMILIES[key], mode_of(key, thinking), reply, thought) + ends(key)
    return tuple(tokenizer(key)(text, add_special_tokens=False)["input_ids"])


def chat(key: str, thinking: Thinking, *, thoughts: bool = False, ids: bool = True) -> list[Message]:
    """Three turns, each with its answer."""
    messages = []
    for question, reply, thought in zip(QUESTIONS, REPLIES, THOUGHTS if thoughts else ("", "", ""), strict=True):
        tokens = sampled(key, thinking, reply, thought) if ids else ()
        messages += [Message("user", question), Message("assistant", reply, thought, tokens)]
    return messages


def counted(ids: Sequence[int], completion: Sequence[bool]) -> list[tuple[int, ...]]:
    """The stretches where the loss counts."""
    runs = groupby(zip(ids, completion, strict=True), key=lambda pair: pair[1])
    return [tuple(i for i, _ in run) for counts, run in runs if counts]


# --- prompts ---


@pytest.mark.parametrize(("key", "thinking"), WORKING)
def test_a_prompt_is_what_transformers_makes_of_the_chat(key: str, thinking: Thinking) -> None:
    """Token by token, but for what closes a thought that the template always opens."""
    made, family = template(key, thinking), FAMILIES[key]
    messages = [{"role": m.role, "content": m.content} for m in chat(key, thinking)[:-1]]
    if key == "smolvlm":
        messages = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    switch = {family.switch: thinking == "Enabled"} if family.switch and thinking != "Auto" else {}
    text = tokenizer(key).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, strftime_now=date.fromisoformat(DATE).strftime, **switch
    )
    ids = tokenizer(key)(text + made._facts.suffix, add_special_tokens=False)["input_ids"]
    assert made.prompt(chat(key, thinking)[:-1]) == ids
    assert bool(made._facts.suffix) == (key == "deepseek_r1_distill" and thinking == "Disabled")


@pytest.mark.parametrize(("key", "thinking"), WORKING)
def test_where_an_answer_begins(key: str, thinking: Thinking) -> None:
    mode, made = mode_of(key, thinking), template(key, thinking)
    shown = tokenizer(key).decode(made.prompt([Message("user", QUESTIONS[0])]))
    assert shown.rpartition(QUESTIONS[0])[2].endswith(mode.prompt)
    assert made.thinks == mode.thinks


@pytest.mark.parametrize("key", FAMILIES)
def test_a_system_turn_arrives(key: str) -> None:
    """Once, before the first question, however many turns follow."""
    messages = [Message("system", SYSTEM), *chat(key, "Auto")[:-1]]
    for length in (2, len(messages)):
        shown = tokenizer(key).decode(template(key).prompt(messages[:length]))
        assert shown.count(SYSTEM) == 1
        before, _, after = shown.partition(SYSTEM)
        assert QUESTIONS[0] not in before
        assert after.startswith(f"\n\n{QUESTIONS[0]}") == (FAMILIES[key].system != "turn")
    assert template(key)._facts.system == (FAMILIES[key].system != "folded")


@pytest.mark.parametrize("key", FAMILIES)
def test_a_prompt_begins_once(key: str) -> None:
    """The begin token stands at the start alone, whether the template or the tokenizer would write it."""
    family, tokens = FAMILIES[key], template(key).tokens(chat(key, "Auto"), every_turn=False)
    if family.bos:
        begin = tokenizer(key).convert_tokens_to_ids(family.bos)
        assert [i for i, token in enumerate(tokens.ids) if token == begin] == [0]


@pytest.mark.parametrize("key", FAMILIES)
def test_prompts_are_the_same_on_any_day(key: str) -> None:
    family, messages = FAMILIES[key], [Message("user", QUESTIONS[0])]
    shown = tokenizer(key).decode(template(key).prompt(messages))
    for form in ("%Y-%m-%d", "%d %b %Y", "%d %B %Y", "%B %d, %Y"):
        assert date.today().strftime(form) not in shown
    assert family.dated in shown
    later = ChatTemplate(tokenizer(key), family.name, Options(date="2032-03-04")).prompt(messages)
    assert (later != template(key).prompt(messages)) == bool(family.dated)


def test_a_date_that_is_an_argument() -> None:
    """Llama 3.1 has it as a text, with one of its own where none is given."""
    made = ChatTemplate(tokenizer("llama3_1"), "x", Options(arguments={"date_string": "1 Apr 2030"}, date=DATE))
    assert "Today Date: 1 Apr 2030" in tokenizer("llama3_1").decode(made.prompt([Message("user", "?")]))


@pytest.mark.parametrize(("key", "thinking"), [case for case in MODES if case not in WORKING])
def test_thinking_that_a_template_cannot_have(key: str, thinking: Thinking) -> None:
    family = FAMILIES[key]
    with pytest.raises(BadInput) as caught:
        ChatTemplate(tokenizer(key), family.name, Options(thinking=thinking))
    assert str(caught.value).startswith(f"debate.thinking: {thinking}, and ")
    assert str(family.modes[thinking]) in str(caught.value)


@pytest.mark.parametrize("key", FAMILIES)
def test_the_arguments_of_a_template(key: str) -> None:
    family = FAMILIES[key]
    assert template(key).arguments_known == {*family.arguments, *filter(None, (family.switch,))}


# --- ends ---


@pytest.mark.parametrize("key", FAMILIES)
def test_the_end_of_an_answer(key: str) -> None:
    family, made, names = FAMILIES[key], template(key), tokenizer(key)
    assert tuple(names.convert_ids_to_tokens(list(made.turn_end))) == family.end
    assert {made.turn_end[-1], names.convert_tokens_to_ids(family.eos)} == set(made.stops)
    # What stands between a thought and its reply in harmony must not end an answer.
    assert names.convert_tokens_to_ids("<|end|>") not in made.stops or family.end == ("<|end|>",)


@pytest.mark.parametrize("key", FAMILIES)
def test_the_table_says_what_is_found(key: str) -> None:
    for column, found in family_templates.described(key).items():
        verified(key, column, found)


# --- what is trained on ---


@pytest.mark.parametrize(("key", "thinking", "thoughts"), [(*c, False) for c in WORKING] + [(*c, True) for c in THINKING])
def test_what_was_sampled_is_trained_on(key: str, thinking: Thinking, thoughts: bool) -> None:
    made, messages = template(key, thinking), chat(key, thinking, thoughts=thoughts)
    for turn in (2, 4, 6):
        tokens, prompt = made.tokens(messages[:turn], every_turn=False), made.prompt(messages[: turn - 1])
        assert list(tokens.ids[: len(prompt)]) == prompt
        assert counted(tokens.ids, tokens.completion) == [messages[turn - 1].ids]
        assert tokens.ids[len(prompt) :] == messages[turn - 1].ids


@pytest.mark.parametrize(("key", "thinking"), WORKING)
def test_what_was_said_without_tokens(key: str, thinking: Thinking) -> None:
    """As a model of the family says it; white space before it is the template's affair."""
    made, messages = template(key, thinking), chat(key, thinking, ids=False)
    for turn in (2, 4, 6):
        tokens = made.tokens(messages[:turn], every_turn=False)
        [ids] = counted(tokens.ids, tokens.completion)
        expected = said(FAMILIES[key], mode_of(key, thinking), messages[turn - 1].content) + ends(key)
        assert tokenizer(key).decode(ids).lstrip() == expected.lstrip()
        assert list(tokens.ids[: -len(ids)]) == made.prompt(messages[: turn - 1])


@pytest.mark.parametrize(("key", "thinking"), THINKING)
def test_a_thought_without_tokens(key: str, thinking: Thinking) -> None:
    made, messages = template(key, thinking), chat(key, thinking, thoughts=True, ids=False)
    tokens = made.tokens(messages, every_turn=False)
    [ids] = counted(tokens.ids, tokens.completion)
    text = tokenizer(key).decode(ids)
    assert text.endswith(ends(key))
    parts = made.split(text.removesuffix(ends(key)))
    assert (parts.thought, parts.reply) == (THOUGHTS[-1], REPLIES[-1])


@pytest.mark.parametrize(("key", "thinking"), WORKING)
def test_every_answer_where_the_model_sees_it_as_it_said_it(key: str, thinking: Thinking) -> None:
    made, messages = template(key, thinking), chat(key, thinking)
    tokens = made.tokens(messages, every_turn=True)
    answers = [m.ids for m in messages[1::2]]
    earlier = mode_of(key, thinking).earlier
    assert counted(tokens.ids, tokens.completion) == (answers if earlier else answers[-1:])
    assert tokens.left_out == (0 if earlier else 2)


@pytest.mark.parametrize(("key", "thinking"), THINKING)
def test_answers_whose_thoughts_are_dropped_are_left_out(key: str, thinking: Thinking) -> None:
    made, messages = template(key, thinking), chat(key, thinking, thoughts=True)
    tokens = made.tokens(messages, every_turn=True)
    assert (counted(tokens.ids, tokens.completion), tokens.left_out) == ([messages[-1].ids], 2)
    shown = tokenizer(key).decode(tokens.ids)
    assert [thought in shown for thought in THOUGHTS] == [False, False, True]


@pytest.mark.parametrize(("key", "thinking"), THINKING)
def test_a_thought_that_is_not_trained_on(key: str, thinking: Thinking) -> None:
    """It is read; what counts begins behind it."""
    made, messages = template(key, thinking), chat(key, thinking, thoughts=True)
    tokens = made.tokens(messages, every_turn=False, thoughts=False)
    [ids] = counted(tokens.ids, tokens.completion)
    assert tokens.ids == made.tokens(messages, every_turn=False).ids
    text = tokenizer(key).decode(ids)
    # In harmony the reply is a message of its own, with a header that counts.
    assert text.rpartition("<|message|>")[2].strip() == REPLIES[-1] + ends(key)
    assert THOUGHTS[-1] not in text


@pytest.mark.parametrize(("key", "thinking"), WORKING)
def test_a_cut_answer_stays_open(key: str, thinking: Thinking) -> None:
    said_so_far = sampled(key, thinking, REPLIES[0])[: -len(FAMILIES[key].end)]
    messages = [Message("user", QUESTIONS[0]), Message("assistant", REPLIES[0], "", said_so_far, cut=True)]
    assert tuple(template(key, thinking).tokens(messages, every_turn=False).ids[-len(said_so_far) :]) == said_so_far


# --- what a server says ---


def returned(key: str, thinking: Thinking, ids: Sequence[int]) -> str:
    """A server's text of these tokens: without the stop token, and without special ones unless it is asked for them."""
    shown = ids[:-1] if ids[-1] in template(key, thinking).stops else ids
    return str(tokenizer(key).decode(shown, skip_special_tokens=not template(key, thinking).keeps_special))


@pytest.mark.parametrize(("key", "thinking", "thought"), [(*c, "") for c in WORKING] + [(*c, THOUGHTS[1]) for c in THINKING])
def test_thought_and_reply_of_what_a_server_returns(key: str, thinking: Thinking, thought: str) -> None:
    text = returned(key, thinking, sampled(key, thinking, REPLIES[1], thought))
    if thinking != "Disabled" and not thought and mode_of(key, thinking).prompt.endswith("<think>\n"):
        return  # the prompt opened a thought: without a closing tag it is all that there is
    parts = template(key, thinking).split(text)
    assert (parts.thought, parts.reply, parts.open) == (thought, REPLIES[1], False)


@pytest.mark.parametrize(("key", "thinking"), THINKING)
def test_a_thought_that_does_not_end(key: str, thinking: Thinking) -> None:
    """Cut in the middle: no reply, whatever it says."""
    whole = sampled(key, thinking, "", "The answer is 41, or so.")
    cut = whole[: -len(whole) // 2]
    text = returned(key, thinking, cut)
    parts = template(key, thinking).split(text)
    assert (parts.reply, parts.open) == ("", True)


def test_a_thought_where_none_was_asked_for() -> None:
    """Gemma 4 says an empty channel with thoughts switched off: its tokens must not run into the reply."""
    ids = tokenizer("gemma4")("<|channel>thought\n<channel|>Answer: 10<turn|>", add_special_tokens=False)["input_ids"]
    assert template("gemma4", "Disabled").split(returned("gemma4", "Disabled", ids)).reply == "Answer: 10"


# --- templates that are none of these ---


def of(text: str, key: str = "lfm2") -> ChatTemplate:
    made = family_templates.of_bytes(FAMILIES[key])
    made.chat_template = text
    return ChatTemplate(made, "org/model")


@pytest.mark.parametrize("content", ["", "{{ m.content[:3] }}", "{{ m.content[:3] | tojson }}"], ids=["all", "its end", "as JSON"])
def test_a_template_that_drops_what_users_say(content: str) -> None:
    with pytest.raises(BadInput, match=r"^model\.source: the chat template drops what users say; use an instruction-tuned model$"):
        of("{% for m in messages %}<|im_start|>{{ m.role }}" + content + "<|im_end|>{% endfor %}")


@pytest.mark.parametrize(("opening", "closing"), [("<reasoning>", "</reasoning>"), ("[THINK]", "[/THINK]"), ("<cot>", "</cot>")])
def test_a_thought_ends_as_its_prompt_began_it(opening: str, closing: str) -> None:
    """Of a transcript without tokens; the template itself says nowhere how a thought ends."""
    made = of(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant\n{opening}{{% endif %}}"
    )
    ids = made.tokens([Message("user", "3+4?"), Message("assistant", "It is 7.", "Add them.")], every_turn=False).ids
    assert f"{opening}\nAdd them.\n{closing}\n\nIt is 7." in made.tokenizer.decode(ids)


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
BEGINS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def plain(*names: str, special: tuple[str, ...] = ()) -> Any:
    """A tokenizer that ends with </s>, with these tokens added as plain ones."""
    return family_templates.of_bytes(replace(FAMILIES["lfm2"], bos="", eos="</s>", end=(), special=special, plain=names))


def test_an_end_that_was_added_as_a_plain_token() -> None:
    """Finetunes of Llama and Mistral say <|im_end|>, never the tokenizer's own end."""
    tokens = plain("<|im_start|>", "<|im_end|>", "\n")
    tokens.chat_template = CHATML + BEGINS
    made = ChatTemplate(tokens, "org/model")
    assert tokens.convert_ids_to_tokens(made.turn_end) == ["<|im_end|>"]
    assert tokens.convert_ids_to_tokens(made.stops) == ["<|im_end|>", "</s>"]
    text = tokens.decode(made.tokens([Message("user", "?"), Message("assistant", "7")], every_turn=False).ids)
    assert text.endswith("<|im_start|>assistant\n7<|im_end|>")


def test_white_space_is_no_end() -> None:
    tokens = plain("\n\n")
    tokens.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}assistant: "
    assert tokens.convert_ids_to_tokens(ChatTemplate(tokens, "org/model").stops) == ["</s>"]


@pytest.mark.parametrize("special", [True, False])
def test_tags_that_the_tokenizer_has_and_the_template_does_not_name(special: bool) -> None:
    """A server would leave out special ones, and the thought would be voted for."""
    tags = ("<think>", "</think>")
    tokens = plain(*(() if special else tags), special=("<|im_start|>", "<|im_end|>", *(tags if special else ())))
    tokens.chat_template = CHATML + BEGINS
    made = ChatTemplate(tokens, "org/model")
    ids = tokens("<think>Maybe 7.</think>It is 8.", add_special_tokens=False)["input_ids"]
    assert made.keeps_special == special
    assert made.split(tokens.decode(ids, skip_special_tokens=not made.keeps_special)).reply == "It is 8."


def test_a_template_that_never_begins_an_answer() -> None:
    with pytest.raises(BadInput, match=r"org/model does not write '<\|im_start\|>assistant' where an answer begins"):
        of(CHATML)


@pytest.mark.parametrize("turns", ["messages | selectattr('role', 'ne', 'assistant')", "messages[:1] + messages[2:]"])
def test_a_template_that_drops_what_assistants_say(turns: str) -> None:
    with pytest.raises(BadInput, match=r"the chat template of org/model drops what assistants say"):
        of(CHATML.replace("messages", turns) + BEGINS)


def test_arguments_are_what_a_template_reads_before_it_sets_it() -> None:
    made = of(
        "{% macro show(m, style) %}{{ m.content if style is not defined else m.content }}{% endmacro %}"
        "{% set mood = mood | default('calm') %}{% if not tone is defined %}{% set tone = 'plain' %}{% endif %}"
        "{% for m in messages %}{% if m.thinking is defined %}{% set hint = m.thinking %}{% endif %}{{ hint }}"
        "{{ show(m) }}{{ extra }}<|im_end|>{% endfor %}{{ namespace(x=1).x }}{{ bos_token }}{{ strftime_now('%Y') }}"
    )
    assert made.arguments_known == {"mood", "tone", "extra"}


def test_a_template_beside_a_processor(tmp_path: Path) -> None:
    """Where older models that see keep it."""
    made = family_templates.of_bytes(FAMILIES["smolvlm"])
    made.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").rename(tmp_path / "kept")
    with pytest.raises(BadInput, match="has no chat template"):
        load_chat_template(str(tmp_path), None)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": (tmp_path / "kept").read_text()}))
    messages = [Message("user", QUESTIONS[0])]
    assert load_chat_template(str(tmp_path), None).prompt(messages) == template("smolvlm").prompt(messages)


# --- what a run says, and what a debate asks of a template ---


@pytest.mark.parametrize(("thinking", "argument"), [("Disabled", True), ("Enabled", False)])
def test_an_argument_that_contradicts_the_spec(thinking: Thinking, argument: bool) -> None:
    options = Options(arguments={"enable_thinking": argument}, thinking=thinking)
    with pytest.raises(BadInput, match=rf"^model\.chatTemplateArguments\.enable_thinking: \w+, and debate\.thinking is {thinking}"):
        ChatTemplate(tokenizer("qwen3"), "x", options)


def test_an_argument_that_switches_thoughts_off_is_the_spec_that_does() -> None:
    made = ChatTemplate(tokenizer("qwen3"), "x", Options(arguments={"enable_thinking": False}))
    assert template("qwen3").thinks and not made.thinks
    asked = [Message("user", "?")]
    assert made.prompt(asked) == template("qwen3", "Disabled").prompt(asked)
    on = ChatTemplate(tokenizer("qwen3"), "x", Options(arguments={"enable_thinking": True}))
    assert on.thinks and on.prompt(asked) == template("qwen3", "Enabled").prompt(asked)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            Options(arguments={"enable_thinking": "false"}),
            r"model\.chatTemplateArguments\.enable_thinking: 'false'; expected true or",
        ),
        (Options(arguments={"tokenize": True}), r"model\.chatTemplateArguments\.tokenize: is set by maft; leave it out"),
        (Options(arguments={"messages": []}), r"model\.chatTemplateArguments\.messages: is set by maft"),
        (Options(arguments={"chat_template": "x"}), r"model\.chatTemplateArguments\.chat_template: is set by maft"),
        (Options(date="2026-02-30"), r"model\.date: '2026-02-30' is no day"),
        (Options(date="0000-01-01"), r"model\.date: '0000-01-01' is no day"),
    ],
)
def test_what_cannot_be_said_to_a_template_is_told_by_its_field(options: Options, says: str) -> None:
    with pytest.raises(BadInput, match=f"^{says}"):
        ChatTemplate(tokenizer("qwen3"), "x", options)


@pytest.mark.parametrize("key", FAMILIES)
def test_published_templates_write_debates_of_many_rounds(key: str) -> None:
    template(key).check_rounds(6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "{% if messages|length > 4 %}{{ raise_exception('at most two turns') }}{% endif %}" + CHATML,
            r"in round 3 the chat template of org/model fails: at most two turns; set it to 2",
        ),
        (CHATML.replace("in messages", "in messages[-3:]"), r"in round 3 .* leaves out what was said before; set it to 2, or take"),
    ],
)
def test_a_template_that_ends_before_the_debate_does(change: str, says: str) -> None:
    made = of(change + BEGINS)
    made.check_rounds(2)
    with pytest.raises(BadInput, match=rf"^debate\.rounds: 4, and {says}"):
        made.check_rounds(4)
