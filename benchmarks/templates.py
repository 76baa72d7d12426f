"""Chat templates and tokens in the client: `python benchmarks/templates.py`. Writes benchmarks/templates.json and prints Markdown.

A debate's prompts (three rounds, each with the others' answers) and its training examples, by the published templates and real
tokenizers of `make prepare`; the same by transformers' apply_chat_template alone stands beside it. One thread; the best of five.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support")]

import family_templates  # noqa: E402

from maft.records import Message  # noqa: E402

OUTPUT = Path(__file__).with_suffix(".json")
FAMILIES = ("llama3_1", "qwen3", "gemma3", "gpt_oss")  # those with a tokenizer of their own
LEAST = 20_000  # tokens a second
TURN = "These are the answers of the other agents.\n" + "\n".join(
    f"Agent {n}: 7 + 3 * 4 - 5: first 3 * 4 = 12, then 7 + 12 = 19, and 19 - 5 = 14. The answer is {n + 10}." for n in range(1, 6)
)
SAID = "First 3 * 4 = 12. Then 7 + 12 = 19, and 19 - 5 = 14, as two of the others found. The answer is 14."
CHAT = [Message(("user", "assistant")[n % 2], (f"What is 7 + 3 * 4 - 5? {TURN}", SAID)[n % 2]) for n in range(6)]
REPEAT = 20


def rate(work: Callable[[], Sequence[object]]) -> float:
    """Tokens a second, of the best of five."""
    work()
    best = 0.0
    for _ in range(5):
        begun = time.perf_counter()
        tokens = sum(len(work()) for _ in range(REPEAT))
        best = max(best, tokens / (time.perf_counter() - begun))
    return best


def measured(key: str) -> dict[str, int]:
    """Of a family: its prompts, its training examples, and transformers' own prompts."""
    template, tokenizer = family_templates.template(key), family_templates.tokenizer(key)
    plain = [{"role": m.role, "content": m.content} for m in CHAT[:-1]]

    def theirs() -> Sequence[object]:
        made: Sequence[object] = tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
        return made

    rates = {
        "prompt": rate(lambda: template.prompt(CHAT[:-1])),
        "example": rate(lambda: template.tokens(CHAT, every_turn=False).ids),
        "transformers": rate(theirs),
    }
    return {name: int(round(value, -2)) for name, value in rates.items()}


def markdown(results: dict[str, dict[str, int]]) -> str:
    """A row per family."""
    lines = ["| tokens a second | prompts | training examples | transformers' prompts |\n|---|---|---|---|\n"]
    for key, rates in results.items():
        cells = [family_templates.FAMILIES[key].name, *(f"{rates[name]:,}" for name in ("prompt", "example", "transformers"))]
        lines.append(f"| {' | '.join(cells)} |\n")
    return "".join(lines)


def main() -> int:
    """Measures; 1 where something is slower than it has to be."""
    results = {key: measured(key) for key in FAMILIES}
    OUTPUT.write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))
    return int(min(rates[name] for rates in results.values() for name in ("prompt", "example")) < LEAST)


if __name__ == "__main__":
    sys.exit(main())
