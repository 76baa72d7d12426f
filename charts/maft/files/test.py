"""`helm test`: is the operator well, and does the API server know the resource and its rules? Runs in the operator's image."""

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
OPERATOR, NAMESPACE, METRICS = os.environ["OPERATOR"], os.environ["NAMESPACE"], int(os.environ["METRICS"])
RUNS = f"https://kubernetes.default.svc/apis/maft.dev/v1alpha1/namespaces/{NAMESPACE}/multiagentfinetunes"
LIMIT = 60.0  # seconds that the operator may take to answer after an install without --wait


def answer(request: urllib.request.Request | str, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Status code and body; code 0 and why, if there is no answer."""
    try:
        with urllib.request.urlopen(request, timeout=10, context=tls) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def dry_run(**spec: object) -> tuple[int, str]:
    """Creates a run, but for the last step."""
    body = {
        "apiVersion": "maft.dev/v1alpha1",
        "kind": "MultiAgentFinetune",
        "metadata": {"name": "helm-test"},
        "spec": {"model": {"source": "microsoft/Phi-3-mini-4k-instruct"}, "task": {"kind": "gsm8k"}, **spec},
    }
    headers = {"Authorization": f"Bearer {(ACCOUNT / 'token').read_text()}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{RUNS}?dryRun=All&fieldValidation=Strict", json.dumps(body).encode(), headers)
    return answer(request, ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")))


def check(what: str, expected: int, found: tuple[int, str]) -> None:
    """One line; ends with exit code 1 if it is not as expected."""
    if found[0] != expected:
        raise SystemExit(f"failed: {what}: expected {expected}, got {found[0]}: {found[1][:500]}")
    print(f"ok: {what}", flush=True)


LOOSE = ssl._create_unverified_context() if OPERATOR.startswith("https") else None  # whose certificate it is, Prometheus checks
deadline = time.monotonic() + LIMIT
while answer(f"{OPERATOR}/healthz", LOOSE)[0] != 200 and time.monotonic() < deadline:
    time.sleep(1)
check("the operator is healthy", 200, answer(f"{OPERATOR}/healthz", LOOSE))
check(f"its metrics answer {METRICS} to anybody", METRICS, answer(f"{OPERATOR}/metrics", LOOSE))
check("a run is accepted", 201, dry_run())
check("a wrong run is refused", 422, dry_run(agents=0))
