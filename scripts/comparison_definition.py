"""Writes crds/multiagentcomparisons.yaml: the frame below, with the spec of a run as its template, as runs have it.

Rules about changes stay out of the template: of a comparison all of it stays as it was.
"""

import copy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RUNS, COMPARISONS = (ROOT / "crds" / f"{name}.yaml" for name in ("multiagentfinetunes", "multiagentcomparisons"))
HEAD = """\
# A comparison of methods, made by scripts/comparison_definition.py: spec.template is the spec of a run (multiagentfinetunes.yaml).
"""
CHANGED = "spec.template is immutable; make a comparison with another name"
SCORE = {
    "type": "object",
    "properties": {
        "mean": {"type": "number", "description": "Share of the questions."},
        "stderr": {"type": "number", "description": "Standard error over questions."},
        "text": {"type": "string", "description": "Both in percent."},
    },
}


def definition() -> dict[str, Any]:
    """Makes the whole definition."""
    runs = yaml.safe_load(RUNS.read_text())
    run = runs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    columns = [("Phase", ".status.phase"), ("Runs", ".status.runs.text"), ("Best", ".status.best.text")]
    return {
        "apiVersion": runs["apiVersion"],
        "kind": runs["kind"],
        "metadata": {"name": "multiagentcomparisons.maft.dev"},
        "spec": {
            "group": "maft.dev",
            "scope": "Namespaced",
            "names": {
                "kind": "MultiAgentComparison",
                "listKind": "MultiAgentComparisonList",
                "plural": "multiagentcomparisons",
                "singular": "multiagentcomparison",
                "shortNames": ["maftcompare"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": "v1alpha1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        *({"name": name, "type": "string", "jsonPath": path} for name, path in columns),
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    "schema": {"openAPIV3Schema": schema(run)},
                }
            ],
        },
    }


def schema(run: dict[str, Any]) -> dict[str, Any]:
    """Makes the schema of the resource."""
    return {
        "type": "object",
        "required": ["spec"],
        "description": "Methods, seeds and a grid over one template: runs on the same questions, and the paper's table of them.",
        "x-kubernetes-validations": [
            {
                "rule": "size(self.metadata.name) <= 40",
                "message": "metadata.name is longer than 40 characters; names of runs are made from it, so choose a shorter one",
            },
            {
                "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "message": "metadata.name: runs are named after it: small letters, digits and -, a letter first",
            },
        ],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec(run["spec"]),
            "status": status(run["status"]["properties"]["conditions"]),
        },
    }


def spec(run: dict[str, Any]) -> dict[str, Any]:
    """Makes what users say. run: the schema of a run's spec."""
    template = copy.deepcopy(run)
    template["description"] = (
        "Spec of the runs, as of a MultiAgentFinetune; method and baselines of it are not used. Immutable, but for podTemplate, "
        "which runs have that are made later."
    )
    template["x-kubernetes-validations"] = [r for r in template["x-kubernetes-validations"] if "oldSelf" not in r["rule"]]
    methods = run["properties"]["method"]["enum"]
    return {
        "type": "object",
        "required": ["template", "methods"],
        "description": "What is compared. template stays; methods, seeds and grid may change until the comparison is over.",
        "x-kubernetes-validations": [{"rule": rule, "message": CHANGED} for rule in immutable(run)],
        "properties": {
            "template": template,
            "methods": {
                "type": "array",
                "minItems": 1,
                "maxItems": len(methods),
                "x-kubernetes-list-type": "set",
                "x-kubernetes-validations": [
                    {
                        "rule": "size(self) == 1 || !('all' in self)",
                        "message": "methods: all stands alone; leave the others out",
                    }
                ],
                "items": {"type": "string", "enum": ["all", *methods]},
                "description": "Methods and baselines, in the order in which their runs are made, or all (docs/methods.md).",
            },
            "seeds": {
                "type": "integer",
                "default": 3,
                "minimum": 1,
                "maximum": 100,
                "description": "Runs of each method: with template.seed, then one more, and so on.",
            },
            "grid": {
                "type": "object",
                "default": {},
                "maxProperties": 4,
                "additionalProperties": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 20,
                    "items": {"x-kubernetes-preserve-unknown-fields": True},
                },
                "description": "Values of fields below agents, iterations, debate and training, by path, such as"
                " training.learningRate: [0.0001, 0.0003]; every method is run with every combination.",
            },
            "search": search(),
            "maxParallel": {
                "type": "integer",
                "default": 1,
                "minimum": 1,
                "maximum": 100,
                "description": "Runs under way at a time, each with servers of its own. Runs that would ask the base the"
                " same wait for each other.",
            },
            "suspend": {
                "type": "boolean",
                "default": False,
                "description": "Stops all runs and makes no others; they go on from what is committed.",
            },
            "ttlSecondsAfterFinished": {
                "type": "integer",
                "minimum": 0,
                "maximum": 315360000,
                "description": "Seconds after the end until the comparison and its runs are deleted, but for one of which a run"
                " failed with BudgetSpent or DeadlineExceeded; the bucket stays.",
            },
        },
    }


def search() -> dict[str, Any]:
    """Makes what is said of a search in place of a grid."""
    ends = {name: {"type": "number", "description": f"{word} value."} for name, word in (("low", "Lowest"), ("high", "Highest"))}
    parameter = {
        "type": "object",
        "description": "low and high, or values.",
        "properties": {
            **ends,
            "log": {"type": "boolean", "default": False, "description": "Drawn by its logarithm, as suits learning rates."},
            "values": {
                "type": "array",
                "minItems": 2,
                "maxItems": 20,
                "items": {"x-kubernetes-preserve-unknown-fields": True},
                "description": "Values to choose from.",
            },
        },
    }
    return {
        "type": "object",
        "required": ["trials", "parameters"],
        "description": "In place of grid: Optuna chooses values of fields from what trials before were on the validation questions"
        " (template.evaluation.validation). Each method that trains has its own trials; the best of each is in the table.",
        "properties": {
            "trials": {"type": "integer", "minimum": 1, "maximum": 400, "description": "Of each method, each with all seeds."},
            "seed": {"type": "integer", "default": 0, "minimum": 0, "maximum": 2147483647, "description": "Of the sampler."},
            "sampler": {
                "type": "string",
                "default": "tpe",
                "enum": ["tpe", "random"],
                "description": "tpe learns from the trials before, after a first half (10 at most) by chance; random does not.",
            },
            "parameters": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 8,
                "additionalProperties": parameter,
                "description": "By path of a field below agents, iterations, debate and training: low and high (with log: true by"
                " the logarithm), or values.",
            },
        },
    }


def immutable(run: dict[str, Any]) -> list[str]:
    """Makes a rule for each field of the template that rules can see."""
    rules = []
    for name, field in run["properties"].items():
        new, old = f"self.template.{name}", f"oldSelf.template.{name}"
        if field.get("x-kubernetes-preserve-unknown-fields"):
            continue
        known = "default" in field or name in run["required"]
        rules.append(f"{new} == {old}" if known else f"has({new}) == has({old}) && (!has({new}) || {new} == {old})")
    return rules


def status(conditions: dict[str, Any]) -> dict[str, Any]:
    """Makes what the operator says."""
    whole = {"type": "integer"}
    return {
        "type": "object",
        "description": "How far the comparison is. Written by the operator.",
        "default": {"observedGeneration": -1},  # as runs have it
        "properties": {
            "observedGeneration": {
                "type": "integer",
                "format": "int64",
                "description": "Generation of the spec that this is about.",
            },
            "phase": {"type": "string", "description": "For people: Running, Comparing, Suspended, Complete, Failed, Rejected."},
            "startTime": {"type": "string", "format": "date-time", "description": "When the first run was made."},
            "completionTime": {"type": "string", "format": "date-time", "description": "When the comparison was over."},
            "conditions": conditions,
            "runs": {
                "type": "object",
                "description": "Runs by what became of them.",
                "properties": {
                    **{name: {**whole, "description": text} for name, text in COUNTS.items()},
                    "text": {"type": "string", "description": "Those that are over, of how many."},
                },
            },
            "rows": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "description": "One for each run.",
                "items": {
                    "type": "object",
                    "properties": {
                        "method": {"type": "string", "description": "With where it stands in the grid."},
                        "seed": {"type": "integer", "format": "int64", "description": "Seed of the run."},
                        "run": {"type": "string", "description": "Name of its resource."},
                        "phase": {"type": "string", "description": "Of the run; Waiting before it is made."},
                        "reason": {
                            "type": "string",
                            "description": "Why it is not made, waits or failed.",
                        },
                        "trial": {"type": "integer", "description": "Its number in a search, from 0."},
                        "validated": {"type": "number", "description": "Accuracy on the validation questions, of a trial."},
                        "accuracy": {**SCORE, "description": "On the held-out questions, in the end."},
                    },
                },
            },
            "best": {
                "type": "object",
                "description": "The method with the best mean over its seeds.",
                "properties": {
                    "method": {"type": "string", "description": "With where it stands in the grid."},
                    "mean": {"type": "number", "description": "Mean accuracy over its seeds."},
                    "text": {"type": "string", "description": "Both, the mean in percent."},
                },
            },
            "search": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "description": "How far the search is, for each method that trains.",
                "items": {
                    "type": "object",
                    "properties": {
                        "method": {"type": "string", "description": "Whose trials."},
                        "trials": {"type": "integer", "description": "Trials that are over."},
                        "trial": {"type": "integer", "description": "The best of them, by validation questions."},
                        "row": {"type": "string", "description": "Its row, with its values."},
                        "validated": {"type": "number", "description": "Its accuracy on the validation questions."},
                    },
                },
            },
            "warnings": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {"type": "string"},
                "description": "What the operator makes less of than whoever wrote the resource.",
            },
            "table": {"type": "string", "description": "The paper's table with paired p, as text."},
            "report": {"type": "string", "description": "URL of its page in the bucket."},
            "accuracy": {
                **copy.deepcopy(SCORE),
                "description": "Of the table's best method, over questions, each the mean over seeds.",
            },
        },
    }


COUNTS = {
    "total": "All that are compared.",
    "active": "Under way.",
    "complete": "Complete.",
    "failed": "Failed or rejected.",
}


def written() -> str:
    """Writes the file."""
    body: str = yaml.safe_dump(definition(), sort_keys=False, width=140, allow_unicode=True)
    return HEAD + body


if __name__ == "__main__":
    COMPARISONS.write_text(written())
