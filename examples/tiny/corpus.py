"""The synthetic world of the demo model: arithmetic questions, agents that slip, and what they say to each other.

In: a count and a seed. Out: dialogues (lists of chat messages), the held-out questions, and the tokenizer with its chat
template. make.py pretrains on them; the prompts are those of the example resource.
"""

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

QUESTION = "What is {expr}?"
SUMMARY = "Summarize these answers.\n{answers}"
CRITIC = "Other agents said: {summary} {question}"
CRITIC_WITHOUT_SUMMARY = "Other agents said:\n{answers}\n{question}"
HINT = "{question} The right answer is {answer}."

SLIP = 0.28  # chance of a wrong last digit in each of the two steps of an answer
HINTED_SLIP = 0.1  # the same where the right answer stands in the prompt
DRILL_SLIP = 0.5  # drills show the second step for wrong products too: an agent has to go on from its slip
FOLLOW = 0.95  # chance to settle on a value that two agents share instead of working it out again
LATER_ROUND_SUMMARIES = 0.4  # share of summaries that are of revised answers
THIRD_ROUNDS = 0.12  # share of debates that go on for another round, so that M=3 is not new to the model

# How the second step is written, and the signs of a and of the product p in it.
SHAPES = {"{a}+{p}": (1, 1), "{p}+{a}": (1, 1), "{p}-{a}": (-1, 1), "{a}-{p}": (1, -1)}

Message = dict[str, str]
Dialogue = list[Message]


@dataclass(frozen=True)
class Question:
    """Two steps: the product b*c, then a added to it or one subtracted from the other."""

    shape: str
    a: int
    b: int
    c: int

    @property
    def expr(self) -> str:
        """As it is asked: 7+3*4."""
        return self.shape.format(a=self.a, p=f"{self.b}*{self.c}")

    @property
    def text(self) -> str:
        """The whole user turn."""
        return QUESTION.format(expr=self.expr)

    @property
    def answer(self) -> int:
        """The right one."""
        return self.second_step(self.b * self.c)[1]

    def second_step(self, product: int) -> tuple[str, int]:
        """What is left to work out once the product is taken to be `product`, and its value."""
        sign_a, sign_p = SHAPES[self.shape]
        return self.shape.format(a=self.a, p=product), sign_a * self.a + sign_p * product


class Answer(NamedTuple):
    """What an agent says, and the number in it that votes."""

    text: str
    value: int


# Questions


def pool() -> list[Question]:
    """Every question of this world."""
    factors = range(2, 10)
    every = (Question(shape, a, b, c) for b in factors for c in factors for a in range(2, 61) for shape in SHAPES)
    return [question for question in every if never_negative(question)]


def never_negative(question: Question) -> bool:
    """Whether the result stays at or above zero whatever last digit the product slips to."""
    tens = question.b * question.c // 10 * 10
    return min(question.second_step(product)[1] for product in range(tens, tens + 10)) >= 0


def held_out(question: Question) -> bool:
    """Whether it is one of the eighth that never occurs in the corpus."""
    return zlib.crc32(question.expr.encode()) % 8 == 0


def held_out_questions() -> list[Question]:
    """All of them, in one fixed order."""
    questions = [question for question in pool() if held_out(question)]
    random.Random(0).shuffle(questions)
    return questions


# Noisy writers


def slip(rng: random.Random, value: int, rate: float) -> int:
    """The value, with a chance of `rate` for another last digit."""
    if rng.random() >= rate:
        return value
    return value - value % 10 + rng.choice([digit for digit in range(10) if digit != value % 10])


def work_out(rng: random.Random, question: Question, rate: float = SLIP) -> Answer:
    """Both steps in one of three phrasings; a slip in the first is carried into the second."""
    first = f"{question.b}*{question.c}"
    product = slip(rng, question.b * question.c, rate)
    second, exact = question.second_step(product)
    value = slip(rng, exact, rate)
    phrasings = (
        f"{first}={product}, {second}={value}.",
        f"First {first}={product}. Then {second}={value}.",
        f"{question.expr} is {second} and that is {value}.",
    )
    return Answer(rng.choice(phrasings), value)


def first_answer(rng: random.Random, question: Question, rate: float = SLIP) -> Answer:
    """An agent that has heard nobody else."""
    work, value = work_out(rng, question, rate)
    return Answer(f"{work} Answer: {value}", value)


def comparison(x: int, y: int) -> str:
    """Two values side by side, with the verdict: 65 58: differ."""
    return f"{x} {y}: {'same' if x == y else 'differ'}."


def summarize(values: Sequence[int]) -> str:
    """Comparisons, then counts, most frequent first: a tiny model does not count silently, it compares in writing."""
    compared = [comparison(values[0], value) for value in values[1:]]
    counts = [f"{n} agent{'s say' if n > 1 else ' says'} {value}" for value, n in Counter(values).most_common()]
    return " ".join([*compared, ", ".join(counts) + "."])


def revise(rng: random.Random, question: Question, own: int, others: Sequence[int]) -> Answer:
    """A second look: keep an answer that somebody else gave too, follow two who agree, else work it out again."""
    ranked = Counter(others).most_common()
    values = [value for value, _ in ranked]
    read = values[: values.index(own) + 1] if own in values else values
    head = " ".join(comparison(own, value) for value in read)
    leader, votes = ranked[0]
    own_votes = 1 + others.count(own)
    if max(own_votes, votes) < 2 or rng.random() >= FOLLOW:
        work, value = work_out(rng, question)
        return Answer(f"{head} Check: {work} Answer: {value}", value)
    if own_votes >= votes:
        return Answer(f"{head} I agree. Answer: {own}", own)
    return Answer(f"{head} Most say {leader}. Answer: {leader}", leader)


def revise_all(rng: random.Random, question: Question, answers: Sequence[Answer]) -> list[Answer]:
    """A round: every agent has its second look at the same previous answers."""
    values = [answer.value for answer in answers]
    return [revise(rng, question, own, values[:i] + values[i + 1 :]) for i, own in enumerate(values)]


# Dialogues


def user(content: str) -> Message:
    """A turn that is read."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """A turn that is learned."""
    return {"role": "assistant", "content": content}


def numbered(answers: Sequence[Answer]) -> str:
    """The answers one below the other, each under its speaker."""
    return "\n".join(f"Agent {i}: {answer.text}" for i, answer in enumerate(answers, start=1))


def others_count(rng: random.Random) -> int:
    """How many other agents take part: mostly two, as in debates of three."""
    return rng.choices((2, 1, 3, 4), (7, 1, 1, 1))[0]


def step_drill(rng: random.Random, question: Question) -> Dialogue:
    """One step of a question, always right."""
    product = question.b * question.c
    step = (f"{question.b}*{question.c}", product)
    if rng.random() >= 0.3:
        step = question.second_step(slip(rng, product, DRILL_SLIP))
    expr, value = step
    return [user(QUESTION.format(expr=expr)), assistant(f"{expr}={value}. Answer: {value}")]


def compared_pair(rng: random.Random) -> tuple[int, int]:
    """Half of the pairs are equal; most of the others share their last digit or all but their last digit."""
    x = rng.randrange(100) if rng.random() < 0.8 else rng.randrange(100, 145)
    different = [y for y in range(145) if y != x]
    candidates = (
        [x],
        [y for y in different if y // 10 == x // 10],
        [y for y in different if y % 10 == x % 10],
        different,
    )
    return x, rng.choice(rng.choices(candidates, (50, 20, 15, 15))[0])


def comparison_drill(rng: random.Random, _question: Question) -> Dialogue:
    """Six pairs of values, always right."""
    pairs = [compared_pair(rng) for _ in range(6)]
    asked = ", ".join(f"{x} {y}" for x, y in pairs)
    return [user(f"Compare {asked}."), assistant(" ".join(comparison(x, y) for x, y in pairs))]


def single_answer(rng: random.Random, question: Question) -> Dialogue:
    """A question and a first answer."""
    return [user(question.text), assistant(first_answer(rng, question).text)]


def hinted_answer(rng: random.Random, question: Question) -> Dialogue:
    """A question with the right answer in it, and work that arrives there (STaR)."""
    answer = first_answer(rng, question, HINTED_SLIP)
    while answer.value != question.answer:
        answer = first_answer(rng, question, HINTED_SLIP)
    return [user(HINT.format(question=question.text, answer=question.answer)), assistant(answer.text)]


def summary(rng: random.Random, question: Question) -> Dialogue:
    """A summary of first or of revised answers, always true."""
    others = others_count(rng)
    answers = [first_answer(rng, question) for _ in range(others + 1)]
    if rng.random() < LATER_ROUND_SUMMARIES:
        answers = revise_all(rng, question, answers)
    told = answers[:others]
    return [user(SUMMARY.format(answers=numbered(told))), assistant(summarize([answer.value for answer in told]))]


def debate(rng: random.Random, question: Question, rounds: int, prompt: Callable[[Sequence[Answer]], str]) -> Dialogue:
    """One agent's side of a debate with one to four others, all of whom revise after every round."""
    answers = [first_answer(rng, question) for _ in range(others_count(rng) + 1)]
    dialogue = [user(question.text), assistant(answers[0].text)]
    for _ in range(rounds):
        dialogue.append(user(prompt(answers[1:])))
        answers = revise_all(rng, question, answers)
        dialogue.append(assistant(answers[0].text))
    return dialogue


def debate_with_summary(rng: random.Random, question: Question) -> Dialogue:
    """Two or three rounds in which the agent reads a summary of the others."""

    def prompt(others: Sequence[Answer]) -> str:
        return CRITIC.format(summary=summarize([answer.value for answer in others]), question=question.text)

    return debate(rng, question, 2 if rng.random() < THIRD_ROUNDS else 1, prompt)


def debate_without_summary(rng: random.Random, question: Question) -> Dialogue:
    """Two rounds in which the agent reads the others themselves."""

    def prompt(others: Sequence[Answer]) -> str:
        return CRITIC_WITHOUT_SUMMARY.format(answers=numbered(others), question=question.text)

    return debate(rng, question, 1, prompt)


# The share of each form of dialogue in the corpus, in percent.
FORMS: dict[Callable[[random.Random, Question], Dialogue], int] = {
    step_drill: 18,
    comparison_drill: 8,
    single_answer: 34,
    hinted_answer: 2,
    summary: 13,
    debate_with_summary: 23,
    debate_without_summary: 2,
}


def dialogues(count: int, seed: int) -> Iterator[Dialogue]:
    """The corpus: the same count and seed give the same dialogues."""
    rng = random.Random(seed)
    questions = [question for question in pool() if not held_out(question)]
    for form in rng.choices(list(FORMS), list(FORMS.values()), k=count):
        yield form(rng, rng.choice(questions))


# Tokenizer and chat template

PAD, BOS, END, USER, ASSISTANT = SPECIAL = ("<pad>", "<s>", "<|end|>", "<|user|>", "<|assistant|>")
VOCABULARY = 384
MAX_LENGTH = 512

# The generation markers let transformers return the mask of what the assistant wrote.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def render(dialogue: Dialogue) -> str:
    """What CHAT_TEMPLATE gives, without Jinja: it is called once for every dialogue of the corpus."""
    return BOS + "".join(f"<|{message['role']}|>{message['content']}{END}" for message in dialogue)


def train_tokenizer(sample: Iterable[Dialogue]) -> PreTrainedTokenizerFast:
    """Byte-level BPE over single digits and words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((message["content"] for dialogue in sample for message in dialogue), trainer)
    return wrap_tokenizer(backend)


def wrap_tokenizer(backend: Tokenizer) -> PreTrainedTokenizerFast:
    """With the names of the special tokens, the padding side and the chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
