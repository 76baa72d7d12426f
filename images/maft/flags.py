"""Groups of flags that several programs take, and the records made of them.

No flag has a default of its own: defaults stand in the resource's schema, and the plan passes every value.
"""

import argparse

from maft import models
from maft.chat_template import ChatTemplate, Prompts, load_chat_template
from maft.debate.society import Rules


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which base model."""
    group = parser.add_argument_group("base model")
    group.add_argument("--model", required=True, help="folder, hub id or s3:// URL")
    group.add_argument("--revision", default="", help="commit or tag on the hub")
    group.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")


def add_debate(parser: argparse.ArgumentParser) -> None:
    """Who debates, where, and how."""
    add_model(parser)
    group = parser.add_argument_group("debate")
    group.add_argument("--iteration", type=int, required=True, help="l: where the output goes")
    group.add_argument(
        "--group",
        default="",
        metavar="NAMESPACE/NAME",
        help="of runs that are compared: it has questions, servers, calls",
    )
    group.add_argument("--models-from", type=int, required=True, help="iteration whose adapters play; 0: the base plays all roles")
    group.add_argument("--agents", type=int, required=True, help="N")
    group.add_argument("--one-model", action="store_true", help="every agent is agent 0's models")
    group.add_argument("--server", action="append", required=True, metavar="NAME=URL", help="one for all agents, or one per agent")
    group.add_argument("--answer", required=True, choices=("number", "choice", "text", "math"), help="kind of answer")
    group.add_argument("--rounds", type=int, required=True, help="M, the first answers included")
    group.add_argument("--mode", required=True, choices=("paper", "fast"), help="fast: one shared summary, stop on unanimity")
    group.add_argument("--no-summaries", action="store_true", help="agents see the other answers themselves")
    group.add_argument("--no-critics", action="store_true", help="generators play the later rounds too")
    group.add_argument("--cooperative", action="store_true", help="agents build on each other's answers")
    group.add_argument("--temperature", type=float, required=True)
    group.add_argument("--top-p", type=float, required=True)
    group.add_argument("--max-tokens", type=int, required=True, help="new tokens per answer and summary")
    group.add_argument("--seed", type=int, required=True, help="of the run")
    for name in ("question", "summarize", "revise", "concatenate", "cooperate"):
        group.add_argument(f"--prompt-{name}", required=True, metavar="TEMPLATE")


def add_datasets(parser: argparse.ArgumentParser) -> None:
    """What becomes a training example."""
    group = parser.add_argument_group("data sets")
    group.add_argument("--min-agreement", type=int, required=True, help="agents behind a label; 0: more than behind any other")
    group.add_argument("--critic-mix", type=float, required=True, help="w: share of corrected answers in a critic's set")
    group.add_argument(
        "--examples",
        required=True,
        choices=("first", "last", "hinted", "pairs"),
        help="first: answers that equal the vote, and dialogues for critics; last: last answers that do; hinted: right answers, by "
        "label; pairs: first answers that do and do not",
    )
    group.add_argument("--pooled", action="store_true", help="one set of all agents' examples, for agent 0")
    group.add_argument("--prompt-hint", default="", metavar="TEMPLATE", help="asked again after a wrong answer, with the right one")


def rules(arguments: argparse.Namespace) -> Rules:
    """The rules of debate that the flags give."""
    return Rules(
        rounds=arguments.rounds,
        summarize=not arguments.no_summaries,
        critics=not arguments.no_critics,
        cooperative=arguments.cooperative,
        fast=arguments.mode == "fast",
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
        iteration=arguments.iteration,
        hinted=bool(getattr(arguments, "prompt_hint", "")),
        prompts=Prompts(
            question=arguments.prompt_question,
            summarize=arguments.prompt_summarize,
            revise=arguments.prompt_revise,
            concatenate=arguments.prompt_concatenate,
            cooperate=arguments.prompt_cooperate,
            hint=getattr(arguments, "prompt_hint", ""),  # of the training questions' debate alone
        ),
    )


def chat_template(arguments: argparse.Namespace) -> ChatTemplate:
    """The chat template of the base model that the flags name."""
    path = models.local(arguments.model)
    return load_chat_template(path, arguments.revision or None, trust_remote_code=arguments.trust_remote_code)
