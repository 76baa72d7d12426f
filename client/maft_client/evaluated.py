"""A committed evaluation as the numbers that a client gives. Pure."""

from maft.records import Evaluation
from maft_client.results import Json, Score


def row_of(evaluation: Evaluation) -> Json:
    """Writes it as a record of `Results`."""
    scores = {
        "accuracy": evaluation.votes[-1],
        "majority": evaluation.votes[0],
        "answer": evaluation.answers[0],
        "consensus": evaluation.consensus,
    }
    made: Json = {"iteration": evaluation.iteration, "questions": evaluation.questions}
    for name, score in scores.items():
        made |= {name: score.mean, f"{name}Stderr": score.stderr}
    usage = {"promptTokens": evaluation.usage.prompt_tokens, "completionTokens": evaluation.usage.completion_tokens}
    return {**made, "wrongToRight": evaluation.wrong_to_right, "rightToWrong": evaluation.right_to_wrong, **usage}


def score_in(row: Json, name: str) -> Score:
    """Reads a score of such a record."""
    return Score(row[name], row[f"{name}Stderr"])
