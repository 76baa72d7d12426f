"""What a model said, split into thoughts and reply: the tags of families, who opened them, what only talks about them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linear import within

from maft.answers.extract import extract
from maft.answers.thoughts import ENDS, HEADINGS, PAIRS, WRAPPERS, Said, split

FINAL = "<|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_every_pair_of_tags(opening: str, closing: str) -> None:
    assert split(f"{opening}\nmaybe 7\n{closing}\n\nIt is 8.") == Said("maybe 7", "It is 8.", False)
    assert split(f"maybe 7\n{closing}\n\nIt is 8.") == Said("maybe 7", "It is 8.", False)
    assert split(f"maybe 7\n{closing}\n\nIt is 8.", opened=True) == Said("maybe 7", "It is 8.", False)
    heading = (opening, closing) in HEADINGS
    assert split(f"{opening}\nmaybe 7") == (Said("", f"{opening}\nmaybe 7", False) if heading else Said("maybe 7", "", True))
    assert extract(f"{opening}\nthe answer is 7\n{closing}\n\nIt is 8.", "number") == "8"


@pytest.mark.parametrize(
    ("text", "thought", "reply"),
    [
        ("It is 8.", "", "It is 8."),
        ("", "", ""),
        ("<think>\n\n</think>\n\nIt is 8.", "", "It is 8."),
        ("  <THINK>a</Think> b ", "a", "b"),
        ("<think>a</think> b <think>c</think> d", "a\n\nc", "b\nd"),
        ("<think>a</think><think>b</think>c", "a\n\nb", "c"),
        ("It is 8. <think>or 7?</think> Yes, 8.", "or 7?", "It is 8.\nYes, 8."),
        ("a</think> b </think> c", "a\n\nb", "c"),
        ("<think>a <think> b</think> c</think> d", "a <think> b\n\nc", "d"),
        ("<think>a [/THINK] b</think> c", "a [/THINK] b", "c"),
        # spaces in a tag
        ("<think >a</think>b", "a", "b"),
        ("<think>a</ think >b", "a", "b"),
        ("< think >\na\n</think >\nb", "a", "b"),
        ("a < think b", "", "a < think b"),
        # headings are no thoughts, nor are words of a sentence
        ("[Reasoning]\n3 + 4 = 7\n[Answer]\n7", "", "[Reasoning]\n3 + 4 = 7\n[Answer]\n7"),
        ("[reasoning] a [/Reasoning]\nIt is 8.", "a", "It is 8."),
        ("Thinking...\nIt is 7.", "", "Thinking...\nIt is 7."),
        ("Thinking...\na\n...done thinking.\n\nIt is 8.", "a", "It is 8."),
        # what stands around a reply
        ("<think>a</think><response>It is 8.</response>", "a", "It is 8."),
        ("<think>a</think>\n<answer>\n8\n</answer>", "a", "8"),
        ("<think>a</think>It is 8.<|im_end|>", "a", "It is 8."),
        ("<|channel>thought\na\n<channel|>It is 8.<turn|>", "a", "It is 8."),
        ("It is 8.<|end|><|endoftext|>", "", "It is 8."),
        # words about tags
        ("The tag `<think>` opens a thought. The answer is 5.", "", "The tag `<think>` opens a thought. The answer is 5."),
        ('"<think>x</think>" is a thought. It is 5.', "", '"<think>x</think>" is a thought. It is 5.'),
        ("Write <think> first. It is 5.", "", "Write <think> first. It is 5."),
        ("<think>a</think>It is 5:\n```\n<think>\nb\n</think>\n```", "a", "It is 5:\n```\n<think>\nb\n</think>\n```"),
        ("<think>a</think>It is 5:\n```\n</think>\n```", "a", "It is 5:\n```\n</think>\n```"),
        ("<think>a</think>It is 5:\n```xml\n<think>\n```\nDone.", "a", "It is 5:\n```xml\n<think>\n```\nDone."),
        ("<think>I write '</think>' at the end.</think>It is 5.", "I write '</think>' at the end.", "It is 5."),
        # a code block that a thought left open
        ("```python\nx = 5</think>It is 8.", "```python\nx = 5", "It is 8."),
        ("<think>```\n</think>\n```\nx\n```\nIt is 8.", "```", "```\nx\n```\nIt is 8."),
        # other ways to say it
        ("Here is my thought process: a\nHere is my response: It is 8.", "a", "It is 8."),
        (f"<|channel|>analysis<|message|>a<|end|>{FINAL}It is 8.<|return|>", "a", "It is 8."),
        ("<|channel|>final<|message|>It is 8.", "", "It is 8."),
        (f"<|start|>assistant<|channel|>commentary to=f <|constrain|>json<|message|>{{}}<|call|>{FINAL}8", "{}", "8"),
        (f"<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|end|>{FINAL}8", "a\n\nb", "8"),
        (f"a<|end|>{FINAL}It is 8.", "a", "It is 8."),
        ("<|channel|>analysis<|message|>so 7.<|end|>", "so 7.", ""),
        (" to=self<|message|>a<|eom|><|start|>assistant to=user<|message|>It is 8.<|eot|>", "a", "It is 8."),
        ("analysisWe need 7.assistantfinalIt is 8.", "We need 7.", "It is 8."),
        ("analysis of it: 8", "", "analysis of it: 8"),
        ("Here are my reasoning steps:\na\n[BEGIN FINAL RESPONSE]\nIt is 8.\n[END FINAL RESPONSE]", "a", "It is 8."),
        ("Here are my reasoning steps:\nIt is 8.", "", "Here are my reasoning steps:\nIt is 8."),
        (f"{FINAL}8<|end|><|start|>user<|message|>What is 9?", "", "8"),
        (f"{FINAL}8<|end|><|start|>user<|message|>9?<|end|>{FINAL}9", "", "8"),
        (f"<|start|>user<|message|>What is 8?<|end|>{FINAL}8", "What is 8?", "8"),
    ],
)
def test_thoughts_and_replies(text: str, thought: str, reply: str) -> None:
    said = split(text)
    assert (said.thought, said.reply, said.open) == (thought, reply, False)


@pytest.mark.parametrize(
    ("text", "opened"),
    [
        ("<think>\nSo far the answer is 41, but I have to", False),
        ("So far the answer is 41, but", True),
        ("<think>\nSo far 41", True),
        ("", True),
        ("It is 41.\n<think>\nlet me check", False),
        ("<think>a</think>\n<think>b", False),
        ("[THINK]the answer is 41 </think>", False),
        ("<|channel|>analysis<|message|>the answer is 41", False),
        ("analysisWe get 41.", False),
    ],
)
def test_a_thought_that_never_closed_is_no_reply(text: str, opened: bool) -> None:
    said = split(text, opened=opened)
    assert said.open and said.reply == ""
    assert extract(text, "number") is None or opened


def test_what_the_prompt_opened_may_be_opened_again() -> None:
    assert split("<think>\na\n</think>\nb", opened=True) == split("a</think>b", opened=True) == Said("a", "b", False)


tags = st.sampled_from(
    [
        "<think>",
        "</think>",
        "[THINK]",
        "[/THINK]",
        "<|channel>",
        "<channel|>",
        "```",
        "`",
        '"',
        "\n",
        " ",
        "a",
        "8. ",
        *ENDS,
        *WRAPPERS,
    ]
)
texts = st.lists(tags, max_size=12).map("".join)


@given(texts, st.booleans())
def test_every_word_is_in_the_thought_or_in_the_reply(text: str, opened: bool) -> None:
    said = split(text, opened=opened)
    assert said.reply == said.reply.strip() and said.thought == said.thought.strip()
    assert not said.open or said.reply == ""
    kept = said.thought + said.reply
    assert said.open or (kept.count("Ж"), kept.count("8")) == (text.count("Ж"), text.count("8"))


@given(st.text(alphabet="ab8. \n", max_size=40), st.text(alphabet="ab8. \n", max_size=40))
def test_a_thought_and_a_reply_come_back_as_they_were(thought: str, reply: str) -> None:
    assert split(f"<think>{thought}</think>{reply}") == Said(thought.strip(), reply.strip(), False)
    assert split(f"{thought}</think>{reply}", opened=True) == Said(thought.strip(), reply.strip(), False)


MANY = 100_000
HOSTILE = {
    "open": "<think>" * MANY,
    "open in lines": "a<think>" * MANY,
    "close": "</think>" * MANY,
    "open and close": "<think></think>" * MANY,
    "other pairs": "<think>[/THINK]" * MANY,
    "text between": "a<think>b</think>" * MANY,
    "blocks": "```a\n" * MANY,
    "blocks that close": "```\n" * MANY,
    "tags in blocks": "```\n<think>\n" * MANY,
    "one block": "```\n" + "<think></think>\n" * MANY,
    "channels": "<|channel|>" * MANY,
    "messages": "<|message|>" * MANY,
    "headers": "<|channel|>final<|message|>" * MANY,
    "starts": "<|start|>" + "a" * MANY,
    "quoted": "`<think>" * MANY,
    "quoted, open": '"<think>a' * MANY,
    "angles": "<" * 3 * MANY,
    "spaces": " " * 3 * MANY + "<think>",
    "ends": "<|im_end|>" * MANY + "x",
    "wrappers": "<answer>" * MANY,
    "run together": "analysisA" + "assistantfinal" * MANY,
    "recipients": "to=" * MANY + "<|message|>",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("opened", [False, True])
def test_hostile_text_is_split_in_linear_time(name: str, opened: bool) -> None:
    with within(2.5):  # the slowest takes 0.4 s; quadratic ones take minutes
        split(HOSTILE[name], opened=opened)
