"""A comparison on the test cluster, and the same file on this machine: what both made is compared. The engine is deterministic."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from installed import Installed
from kube import RUNS, Json
from small import MOCK

KIND = "MultiAgentComparison"
METHODS = ["base", "debate", "multiagent"]
LIMIT = 900.0  # seconds for six small runs, three at a time, on two busy cores


@dataclass(frozen=True)
class Compared:
    """One comparison in a namespace."""

    maft: Installed
    namespace: str
    name: str = "methods"

    def resource(self, *, latency: float = 0.0, template: Json | None = None, **spec: Any) -> Json:
        """Of small runs. latency: seconds of an answer; template: other fields of the runs; the rest: the comparison's own."""
        small = {"iterations": 1, "agents": 2, **self.maft.mocked(latency), **(template or {})}
        run = self.maft.resource(self.name, self.namespace, **small)
        whole = {"template": run["spec"], "methods": METHODS, "seeds": 2, "maxParallel": 3, **spec}
        return {**run, "kind": KIND, "spec": whole}

    def apply(self, **changes: Any) -> None:
        self.maft.kube.apply(self.resource(**changes))

    def status(self) -> Json:
        return (self.maft.kube.get(KIND, self.namespace, self.name) or {}).get("status") or {}

    def condition(self, kind: str) -> Json:
        return next((c for c in self.status().get("conditions", ()) if c["type"] == kind), {})

    def runs(self) -> list[Json]:
        return self.maft.kube.list(RUNS, self.namespace, f"maft.dev/comparison={self.name}")

    def explained(self) -> str:
        conditions = {run["metadata"]["name"]: run.get("status", {}).get("conditions") for run in self.runs()}
        return yaml.safe_dump([self.status(), conditions]) + self.maft.operator_log()

    def completed(self) -> Json:
        """The status of one that comes to its end."""
        self.maft.kube.wait(lambda: self.condition("Complete").get("status") == "True", LIMIT, self.explained)
        return self.status()

    def table(self) -> list[Json]:
        """The rows without what a clock says."""
        key = f"runs/{self.namespace}/{self.name}/compare/compare.json"
        rows = json.loads(self.maft.read(key))["rows"]
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    def made_here(self, folder: Path, **changes: Any) -> tuple[list[Json], str]:
        """Table and output of `maft compare` with the same file on this machine, into the same bucket."""
        here = Compared(self.maft, f"compared-{self.maft.tag.rpartition('-')[2]}", self.name)
        (folder / "comparison.yaml").write_text(yaml.safe_dump(here.resource(**changes)))
        cluster = self.maft.cluster
        keys = {"AWS_ACCESS_KEY_ID": cluster.s3_access_key, "AWS_SECRET_ACCESS_KEY": cluster.s3_secret_key}
        command = [sys.executable, "-m", "maft_operator", "compare", "comparison.yaml", "--serve", f"{sys.executable} {MOCK}"]
        done = subprocess.run(command, cwd=folder, env={**os.environ, **keys}, capture_output=True, text=True, timeout=LIMIT)
        assert done.returncode == 0, done.stdout + done.stderr
        return here.table(), done.stdout
