"""`maft bundle`: what is collected, what is taken out of it, and what it says it has not."""

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from answering import answering
from hypothesis import given
from hypothesis import strategies as st

from maft_operator.__main__ import main
from maft_operator.bundle import local, redaction
from maft_operator.bundle.archive import Bundle, Part, write
from maft_operator.bundle.questions import CRD, LINES
from maft_operator.bundle.redaction import REMOVED
from maft_operator.spec.schema import BadSpec

SECRET = "Zx9-hunter2/Qq7+secretvalue"


def opened(path: Path) -> dict[str, bytes]:
    """The files of an archive, without its folder."""
    with tarfile.open(path) as tar:
        return {m.name.partition("/")[2]: tar.extractfile(m).read() for m in tar.getmembers()}


# --- what is taken out ---

REMOVED_FROM = {
    "environment": {"env": [{"name": "WANDB_API_KEY", "value": SECRET}]},
    "any variable of somebody's own": {"env": [{"name": "DSN", "value": SECRET}]},
    "a secret of vLLM's": {"env": [{"name": "VLLM_API_KEY", "value": SECRET}]},
    "argument": {"args": [f"--api-key={SECRET}"]},
    "argument after its flag": {"args": ["--port=1", "--hf-token", SECRET, "--x"]},
    "shell": {"command": ["sh", "-c", f"AWS_SECRET_ACCESS_KEY={SECRET} run --password {SECRET}"]},
    "annotation": {"metadata": {"annotations": {"team/accessToken": SECRET}}},
    "the object as text": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": f'{{"x": "{SECRET}"}}'}},
    "JSON in text": {"args": [f'--spec={{"a": {{"hfToken": "{SECRET}", "n": 1}}}}']},
    "a pod as JSON in JSON": {"message": json.dumps(json.dumps({"env": [{"name": "X", "value": SECRET}]}))},
    "JSON in JSON": {"message": json.dumps(json.dumps({"password": SECRET}))},
    "URL": {"endpoint": f"https://user:{SECRET.replace('/', '-')}@host:9000/x"},
    "signed URL": {"message": f"GET https://host/b/k?X-Amz-Signature={SECRET}&X-Amz-Date=1 failed"},
    "bearer": {"message": f"Authorization: Bearer {SECRET}"},
    "arguments as vLLM prints them": {"message": f"non-default args: {{'api_key': ['{SECRET}'], 'port': 1}}"},
    "a list": {"api_key": ["a", SECRET]},
    "a list with brackets in it": {"message": f"api_key=['a]{SECRET}', 'b']"},
    "a tuple": {"message": f"api_key=('{SECRET}', 'b')"},
    "a proxy without a scheme": {"env": [{"name": "HTTPS_PROXY", "value": f"user:{SECRET}@proxy:1"}]},
    "the same in a log": {"message": f"https_proxy=user:{SECRET}@proxy:1"},
    "a proxy that no name announces": {"message": f"asking user:{SECRET.replace('/', '-')}@proxy:1"},
    "a URL with more than one @": {"message": f"http://user:p@{SECRET.replace('/', '-')}@host"},
    "a URL with a slash in its password": {"message": f"postgres://u:{SECRET}@h"},
    "a URL with other signs in its password": {"message": f"postgres://u:p?x#{SECRET}@h"},
    "a URL with an @ before a slash in its password": {"message": f"postgres://u:p@ss/{SECRET}@host/db"},
    "a URL without a user, so": {"message": f"redis://:p@{SECRET}@host/0 amqp://u:p@a?{SECRET}@host mongodb://u:p@b#{SECRET}@h1,h2/db"},
    "a URL with an @ in user and password": {"message": f"postgres://me@there:p@ss/{SECRET}@host/db"},
    "a proxy's variable, so": {"env": [{"name": "HTTP_PROXY", "value": f"http://u:p@ss/{SECRET}@proxy:1"}]},
    "a variable that is shown, so": {"env": [{"name": "HF_ENDPOINT", "value": f"https://u:p@ss/{SECRET}@host/x"}]},
    "a proxy without a scheme, so": {"message": f"asking u:p@ss/{SECRET}@proxy:1"},
    "a word after password": {"passwordHash": SECRET, "passwordValue": SECRET, "dbPasswordPlain": SECRET},
    "a word after token": {"message": f"tokenString={SECRET} accessTokenStr: {SECRET} passHash={SECRET} tokenIssued={SECRET}"},
    "a word after token, as JSON": {"message": json.dumps({"passwordHash": SECRET, "tokenSigned": SECRET})},
    "capitals that a name has run together": {"APIkey": SECRET, "DBPASSWORD": SECRET},
    "keys of one word": {"MASTERKEY": SECRET, "SSHKEY": SECRET, "PRIVKEY": SECRET, "RSAKEY": SECRET, "sshkey": SECRET},
    "keys, several": {"WANDB_KEYS": SECRET, "apiKeys": [SECRET], "SSHKEYS": SECRET, "openaiKeysValue": SECRET},
    "tokens, several": {"apiTokens": [SECRET], "ACCESS_TOKENS": SECRET, "refreshTokens": {"a": SECRET}},
    "keys of one word in text": {"message": f"MASTERKEY={SECRET} --sshkey {SECRET} apiTokens: ['{SECRET}']"},
    "tokens of three parts": {"message": f"session-eyJhbGciOi{'x' * 20}.hunter2.a_b-c eyJhbGciOi{'x' * 9}.hunter2"},
    "dockerconfig": {"message": json.dumps({"auths": {"registry": {"auth": SECRET, "email": "x"}}})},
    "a scheme of its own": {"message": f"Authorization: Token {SECRET}"},
    "digest": {"message": f'Authorization: Digest username="u", response="{SECRET}"'},
    "cookies": {"message": f"Cookie: a={SECRET}; b={SECRET}"},
    "a key of somebody": {"message": f"OPENAI_KEY={SECRET}"},
    "a key with a number": {"message": f"OPENAI_KEY_2={SECRET}"},
    "pwd": {"message": f"MYSQL_PWD={SECRET}"},
    "pwd of a connection": {"message": f"Server=x;Uid=sa;Pwd={SECRET};"},
    "a shared access signature": {"message": f"https://a.blob/c/b?sp=r&sig={SECRET}&se=1"},
    "an account's key": {"message": f"AccountName=x;AccountKey={SECRET}==;EndpointSuffix=y"},
    "a variable's value before its name": {"message": json.dumps({"value": SECRET, "name": "X"})},
    "type in a name": {"typeformApiKey": SECRET},
    "kind in a name": {"mankindToken": SECRET},
    "reason in a name": {"reasonerPassword": SECRET},
    "what stands below such a name": {"credentials": {"user": "x", "more": [{"value": SECRET}]}},
    "a key that stands in place of a reference": {"apiKey": {"key": SECRET}},
    "a subscript": {"message": f"environ['X_KEY'] = '{SECRET}'"},
    "words": {"message": f"API key: {SECRET}"},
    "a sign that is encoded": {"message": f"token%3D{SECRET}&x=1"},
    "an escaped quote in it": {"message": json.dumps({"password": f'a"{SECRET}'})},
    "a quote that is cut off": {"message": f'password="{SECRET}'},
    "arguments in text": {"message": f"['--api-key', '{SECRET}']"},
    "curl": {"message": f"curl -u me:{SECRET} host"},
    "arguments of curl": {"args": ["curl", "-u", f"me:{SECRET}", "host"]},
    "the same in text": {"message": f"['curl', '--user', 'me:{SECRET}']"},
    "lines of YAML": {"message": f"password: |\n  hunter2\n\n  {SECRET}"},
    "lines of YAML, folded": {"message": f"- client_secret: >-  # ours\n    hunter2\n     {SECRET}\n  name: x"},
    "lines of YAML after a quote": {"message": f'  "token": |2+\r\n      hunter2\r\n   {SECRET}\r\n'},
    "lines of YAML in JSON": {"message": json.dumps({"file": f'a: 1\npassword: |\n  hunter2"\n  {SECRET}\n'})},
    "lines of YAML in JSON in JSON": {"message": json.dumps(json.dumps({"file": f"token: |-\n  hun\\ter2\n  {SECRET}\n"}))},
    "XML": {"message": f"<Password>{SECRET}</Password>"},
    "separators of a shell": {"message": f"DB_PASSWORD=a;b&{SECRET} run"},
    "after an escaped line break": {"message": f"one\\ntoken={SECRET}"},
    "what begins like a word without value": {"message": f"password: null{SECRET}"},
    "a number": {"password": "hunter2"},
    "a quote in it": {"message": json.dumps({"password": f'ab"{SECRET}'})},
    "a quote in it, deeper": {"message": json.dumps(json.dumps({"password": f'ab"{SECRET}'}))},
    "a quote in a variable": {"message": json.dumps({"name": "X", "value": f'ab"{SECRET}'})},
    "cut off": {"message": f'started with {{"password": "{SECRET}'},
    "bytes of Python": {"message": repr({"password": SECRET.encode()})},
    "an @ in a URL": {"endpoint": f"http://user:p@{SECRET.replace('/', '-')}@host:9000/x"},
    "another scheme": {"message": f"> Authorization: Token {SECRET}\n> Accept: x"},
    "a header of curl": {"args": ["sh", "-c", f'curl -H "Authorization: ApiKey {SECRET}" -u bob:{SECRET} http://x']},
    "Azure's URL": {"message": f"https://a.blob/x?sv=1&sig={SECRET}&se=2"},
    "DB_PWD": {"args": [f"DB_PWD={SECRET}", "--pwd", SECRET]},
    "the object, packed": {"annotations": {"objectset.rio.cattle.io/applied": SECRET}},
    "private key": {"message": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"},
}  # fmt: skip


@pytest.mark.parametrize("name", REMOVED_FROM)
def test_secrets_are_taken_out(name: str) -> None:
    left = json.dumps(redaction.thing(REMOVED_FROM[name]))
    assert SECRET not in left and "hunter2" not in left
    assert REMOVED in left or name.startswith("the object")


BODY = "".join(f"{'q9XhunterZ2' * 5}{n:09d}\n" for n in range(40))  # lines as a key has them


@pytest.mark.parametrize(
    "end", ["-----END RSA PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----\n", "-----END PRIVATE KEY-----\r\n"]
)
@pytest.mark.parametrize("before", ["", "ready: 1\nended\n", "one: hunting, two\n\n"])
@pytest.mark.parametrize("last", ["hunter2==\n", "hunter2\r\n", ""])
def test_of_a_key_whose_beginning_is_cut_off_nothing_stays(end: str, before: str, last: str) -> None:
    assert redaction.text(f"{before}{BODY}{last}{end}after\n") == f"{before}{REMOVED}{end.partition('KEY-----')[2]}after\n"


def test_lines_that_no_key_ends_stay() -> None:
    assert redaction.text(BODY + "-----END CERTIFICATE-----\n") == BODY + "-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("around", [str, json.dumps, lambda text: json.dumps(json.dumps(text))])
@pytest.mark.parametrize("before", ["", "a: 1\n", "- ", "a:\n- b: 1\n  "])
@pytest.mark.parametrize("rest", ["", "\n", '\n\n"x": 2\n'])
def test_below_a_name_of_yaml_deeper_lines_alone_are_taken_out(around, before: str, rest: str) -> None:
    space = " " * len(before.rpartition("\n")[2])
    lines = f"{before}password: |-\n{space}  hunter2\n\n{space}   horse{rest}"
    assert redaction.text(around(lines)) == around(f"{before}password: {REMOVED}{rest}")


SHOWN = (
    {"env": [{"name": "NCCL_DEBUG", "value": "WARN"}, {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}]},
    {"env": [{"name": "AWS_SECRET_ACCESS_KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "AWS_SECRET_ACCESS_KEY"}}}]},
    {"volumes": [{"name": "x", "secret": {"secretName": "model-token"}}], "imagePullSecrets": [{"name": "registry"}]},
    {"spec": {"debate": {"maxTokens": 512, "thinkingTokens": 9}, "model": {"tokenSecret": {"name": "hf", "key": "token"}}}},
    {"args": ["--max-tokens=512", "--tokenizer", "meta/x", "--store=s3://bucket/runs?endpoint=http://host:9000&region=x"]},
    {"message": "couldn't find key AWS_SECRET_ACCESS_KEY in Secret demo/maft-s3"},
    {"message": 'secret "nope" not found', "reason": "SecretMissing"},
    {"args": ['--spec={"debate":{"maxTokens":512},"model":{"tokenSecret":null}}']},
    {"automountServiceAccountToken": False},
    {
        "volumes": [
            {"projected": {"sources": [{"serviceAccountToken": {"audience": "x", "expirationSeconds": 9, "path": "token"}}]}}
        ]
    },
    {"volumes": [{"secret": {"secretName": "x", "defaultMode": 420, "items": [{"key": "a", "path": "b"}]}}]},
    {"metadata": {"annotations": {"maft.dev/server-key": "r-key-0123abcd"}}},
    {"status": {"serverKey": "r-1-server", "promptTokens": 12, "completionTokens": 3}},
    {"topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}], "tolerations": [{"key": "x", "value": "y"}]},
    {"message": "image registry:5000/maft:1.0@sha256:abcd and oci://registry:5000/maft@sha256:abcd"},
    {"message": "http://host:9000/x, mail me@host.example, at 12:30:01"},
    {"message": "KeyError: 'choices'; num_key_value_heads=2, eos_token_id=2, pad_token='<pad>', max_tokens=5, tokenizer: x"},
    {"promptTokens": 3, "maxTokens": 5, "completionTokens": 7, "tokensPerSecond": "9 a second", "matchLabelKeys": ["a-b"]},
    {"message": "missing_keys=['lm_head.weight'], unexpected_keys: ['a.b'], sort_keys=True, monkey=1 turkey: 2, hotkey=x, KEYS=3"},
    {"message": "topologykey: zone, publicKeys=abc, num_keys=4, dict_keys(['x']), KeyErrors: 7, foreignkey=a, keyboard=us"},
    {"message": "time_per_output_token: 3, prompt tokens: 7, bypass: 1, PWD=/home/x, authMode=none, tokenType: x"},
    {"args": ["--api-key=$(VLLM_API_KEY)", "--password=${PASSWORD}", "--user=1000:1000"]},
    {"message": "password: null, token=None, secret: true"},
    {"message": "token: {}\nname: |\n  a\n  b\n", "args": ["-u", "1000:1000", "-v", "a:b", "--x", "a"]},
    {
        "env": [
            {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"},
            {"name": "HTTP_PROXY", "value": "http://proxy:80"},
        ]
    },
)


@pytest.mark.parametrize("shown", SHOWN)
def test_what_helps_stays(shown) -> None:
    assert redaction.thing(shown) == shown


NAMES = st.sampled_from(
    ["PASSWORD", "dbPassword", "api_key", "x-api-key", "HF_TOKEN", "client-secret", "sessionToken", "DB_PASS", "OPENAI_KEY"]
)
VALUES = st.text(st.characters(codec="ascii", categories=("L", "N"), include_characters="+/-_.~"), min_size=8, max_size=40).map(
    lambda text: f"q9X{text}7Kz"
)


@given(NAMES, VALUES, st.lists(st.sampled_from(["list", "map", "text", "env"]), max_size=4), st.sampled_from("=:"))
def test_a_secret_is_taken_out_of_whatever_it_stands_in(name, value, around, sign):
    planted = {name: value}
    for kind in around:
        planted = {
            "list": lambda inner: ["x", inner],
            "map": lambda inner: {"spec": inner, "kind": "Pod"},
            "text": lambda inner: {"message": f"started with {json.dumps(inner)} and {name}{sign}{value} then"},
            "env": lambda inner: {"env": [{"name": name, "value": value}], "more": inner},
        }[kind](planted)
    assert value not in json.dumps(redaction.thing(planted))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_anything_is_redacted_to_the_same_shape_once(value):
    once = redaction.thing(value)
    assert redaction.thing(once) == once
    assert type(once) is type(value)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece",
    ["a", "-", "token", 'token="', "token=\\", "://", "eyJ", "Bearer ", '"name":"', "\\", "://a@", "-----BEGIN PRIVATE KEY-----\n"],
)
def test_no_log_takes_long(piece):
    """Patterns that look again from each place would need days for a line of a megabyte."""
    assert redaction.text(piece * (1024**2 // len(piece)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "piece",
    ["a:", "u:p@", "x://a:", "token=[", "token=['", "--token ", '"value":"', "proxy=", "Authorization: ", "\\", "A="],
)
def test_no_log_of_signs_takes_long(piece):
    """Patterns that look again from each place would need days for a line of a megabyte."""
    assert redaction.text(piece * (1024**2 // len(piece)))


BEGINNINGS = (
    "-eyJabcd", "eyJabcdefgh-", "_eyJ", "-eyJabcdefgh.ab", "PWD=/", "-PWD=/", "//OLDPWD=/", "x:a@/", ",x:@", "://a@b:",
    "-Bearer ", "-sk-a", "-hf_", "-AIza", "-u ", "--user=a", "-proxy=", "proxy ", "hooks.slack.com/services/", "<key>",
    "-----BEGIN A", "-----END PRIVATE KEY-----", "A" * 64 + "\n", "A\n", '"name":"x","value":"', '"value":\\"', '"name":',
    "token: |\n", "token: |\n ", "token: |\n\n\n", "token: |\\n", "token: |\\n ", "token: |\\n x ", "token: |\\\\n\\",
    "token=[ ", "token={", "token=${", "token=null", 'token="" ', "token]=", '--token "', "api ", "key=Authorization: a=",
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", BEGINNINGS)
def test_no_log_of_beginnings_takes_long(piece):
    """Of each pattern what it begins with, again and again, with a border of a word before it and without one."""
    assert redaction.text(piece * (1024**2 // len(piece)))


# --- of a cluster ---

NS, RUN_UID, POD_UID, OTHER = "team", "u-run", "u-pod", "u-other"
MAFT = f"/apis/maft.dev/v1alpha1/namespaces/{NS}/multiagentfinetunes/r"
CONTAINER = {"name": "debate", "env": [{"name": "WANDB_API_KEY", "value": SECRET}]}
RUNNING, WAITING = {"state": {"running": {}}}, {"state": {"waiting": {}}}
POD = {
    "metadata": {"name": "r-1-debate-x", "namespace": NS, "uid": POD_UID, "managedFields": [{"manager": "x"}]},
    "spec": {"containers": [CONTAINER]},
    "status": {"containerStatuses": [{"name": "debate", "restartCount": 2, **RUNNING}, {"name": "w", **WAITING}]},
}
LOG = f"started\nGET https://h/x?token={SECRET} 200\nended\n"
OPERATOR = {
    "metadata": {"name": "maft-operator-1", "namespace": "sys", "uid": "u-op"},
    "spec": {"containers": []},
    "status": {"containerStatuses": [{"name": "operator", **RUNNING}]},
}
EVENTS = [{"involvedObject": {"uid": POD_UID}, "message": "mine"}, {"involvedObject": {"uid": OTHER}, "message": "theirs"}]
WORKLOADS = [{"metadata": {"name": "w", "ownerReferences": [{"uid": "u-job"}]}}, {"metadata": {"name": "v"}}]
ANSWERS = {
    MAFT: {
        "metadata": {"name": "r", "namespace": NS, "uid": RUN_UID},
        "spec": {"podTemplate": {"spec": {"containers": [CONTAINER]}}},
    },
    f"/api/v1/namespaces/{NS}/pods": {"items": [POD]},
    f"/apis/batch/v1/namespaces/{NS}/jobs": {"items": [{"metadata": {"name": "r-1-debate", "uid": "u-job"}, "spec": {}}]},
    f"/api/v1/namespaces/{NS}/events": {"items": EVENTS},
    f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NS}/workloads": {"items": WORKLOADS},
    CRD: {"spec": {"versions": [{"name": "v1alpha1", "schema": ["x"] * 999}]}, "status": {"storedVersions": ["v1alpha1"]}},
    "/version": {"gitVersion": "v1.36.3"},
    "/api/v1/pods": {"items": [OPERATOR]},
}


@contextlib.asynccontextmanager
async def api_server(answers, logs, asked) -> AsyncIterator[str]:
    """An API server that has these answers and logs, and refuses anything else."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.path, dict(request.query)))
        if request.path.endswith("/log"):
            key = (request.path.split("/")[-2], request.query["container"], "previous" in request.query)
            return web.Response(body=logs[key]) if key in logs else _refused(400, "previous terminated container not found")
        return web.json_response(answers[request.path]) if request.path in answers else _refused(403, f"may not get {request.path}")

    async with answering(answer) as url:
        yield url


def _refused(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def kubeconfig(folder: Path, url: str) -> Path:
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": NS}}
    made = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context]}
    made |= {"clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {"token": "t"}}]}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(made))
    return path


def bundled(folder: Path, *flags: str, answers=ANSWERS, logs=None) -> tuple[subprocess.CompletedProcess[str], list]:
    """`maft bundle r` in that folder, of the API server that answers so; and what it asked."""
    asked: list = []

    async def scenario() -> subprocess.CompletedProcess[str]:
        async with api_server(answers, logs or {}, asked) as url:
            environment = {**os.environ, "KUBECONFIG": str(kubeconfig(folder, url))}
            line = [sys.executable, "-m", "maft_operator", "bundle", "r", *flags]
            return await asyncio.to_thread(
                subprocess.run, line, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
            )

    return asyncio.run(scenario()), asked


@pytest.mark.programs
def test_what_a_bundle_holds_and_lacks(tmp_path: Path) -> None:
    logs = {("r-1-debate-x", "debate", False): LOG.encode(), ("maft-operator-1", "operator", False): b"leading\n"}
    done, asked = bundled(tmp_path, logs=logs)
    assert done.returncode == 0, done.stderr
    files = opened(tmp_path / f"maft-bundle-{NS}-r.tar.gz")  # the namespace is that of the kubeconfig
    manifest = json.loads(files["manifest.json"])
    assert {f["file"] for f in manifest["files"]} == set(files) - {"manifest.json"}
    assert all(len(files[f["file"]]) == f["bytes"] for f in manifest["files"])
    assert not any(SECRET.encode() in content for content in files.values())

    assert files["logs/r-1-debate-x/debate.log"].decode() == LOG.replace(SECRET, REMOVED)
    assert files["maft-operator/logs/maft-operator-1/operator.log"] == b"leading\n"
    assert [e["message"] for e in json.loads(files["events.json"])] == ["mine"]
    assert [w["metadata"]["name"] for w in json.loads(files["workloads.json"])] == ["w"]
    assert len(files["cluster/crd.json"]) < 600 and b"managedFields" not in files["pods.json"]

    missing = {gap["file"]: gap["why"] for gap in manifest["missing"]}
    assert missing["cluster/nodes.json"] == "403: may not get /api/v1/nodes"
    assert missing["logs/r-1-debate-x/debate.previous.log"].startswith("400: previous terminated")
    assert "not in it: cluster/nodes.json: 403" in done.stdout
    assert not any("secrets" in path or "configmaps" in path for path, _ in asked)
    assert all(query["tailLines"] == str(LINES) for path, query in asked if path.endswith("/log"))
    assert (tmp_path / f"maft-bundle-{NS}-r.tar.gz").stat().st_mode & 0o777 == 0o600


@pytest.mark.programs
def test_of_a_log_the_end_is_kept(tmp_path: Path) -> None:
    long = b"".join(b"%09d\n" % n for n in range(400_000))
    done, _ = bundled(tmp_path, "-o", "x.tar.gz", logs={("r-1-debate-x", "debate", False): long})
    assert done.returncode == 0, done.stderr
    kept = opened(tmp_path / "x.tar.gz")["logs/r-1-debate-x/debate.log"]
    assert 1024**2 - 10 < len(kept) <= 1024**2 and long.endswith(b"\n" + kept)


CUT = f"api_key={{'a': '{SECRET}', 'b': 'hunter2'}}\n"  # where its name is cut off, values are left


@pytest.mark.programs
@pytest.mark.parametrize("rest", [b"", b"x" * 500 + b"\n"])
@pytest.mark.parametrize("gone", [4, len("api_key={'a"), len(CUT) - 1])
def test_of_a_log_no_line_is_kept_whose_beginning_is_cut_off(rest: bytes, gone: int, tmp_path: Path) -> None:
    end = rest + b"ready\n" * ((1024**2 - len(CUT) + gone - len(rest)) // 6)
    end = b"-" * (1024**2 - len(CUT) + gone - len(end) - 1) + b"\n" + end
    long = f"before\n{CUT}".encode() + end
    done, _ = bundled(tmp_path, "-o", "x.tar.gz", logs={("r-1-debate-x", "debate", False): long})
    assert done.returncode == 0, done.stderr
    assert opened(tmp_path / "x.tar.gz")["logs/r-1-debate-x/debate.log"] == end


@pytest.mark.programs
def test_of_one_endless_line_nothing_is_kept(tmp_path: Path) -> None:
    long = f"password='{SECRET * (1024**2 // 20)}'\n".encode()
    done, _ = bundled(tmp_path, "-o", "x.tar.gz", logs={("r-1-debate-x", "debate", False): long})
    assert done.returncode == 0, done.stderr
    assert opened(tmp_path / "x.tar.gz")["logs/r-1-debate-x/debate.log"] == b""


@pytest.mark.programs
def test_a_run_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done, _ = bundled(tmp_path, "-n", "elsewhere", answers={})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: run elsewhere/r: 403: may not get /apis/maft.dev/v1alpha1/namespaces/elsewhere/multiagentfinetunes/r\n"
    )
    done, _ = bundled(tmp_path, "-o", "no/such/folder.tar.gz")
    assert done.returncode == 2 and "--output no/such/folder.tar.gz" in done.stderr


# --- of one machine ---


def test_of_a_run_of_this_machine(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "runs" / "default" / "r" / "local" / "r-0-prepare"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text(f"password: {SECRET}\nready\n")
    (folder / "summary.json").write_text(json.dumps({"program": "failure", "error": "no model"}))
    (folder.parent.parent / "run.json").write_text(json.dumps({"spec": {"env": [{"name": "X", "value": SECRET}]}}))
    (folder / "weights.safetensors").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as code:
        main(["bundle", "r", "--dir", "runs"])
    assert code.value.code == 0, capsys.readouterr()
    files = opened(tmp_path / "maft-bundle-default-r.tar.gz")
    assert set(files) == {"manifest.json", "run.json", "local/r-0-prepare/log.txt", "local/r-0-prepare/summary.json"}
    assert files["local/r-0-prepare/log.txt"].decode() == f"password: {REMOVED}\nready\n"
    assert not any(SECRET.encode() in content for content in files.values())


@pytest.mark.parametrize("name", ["log.txt", "state.json"])
def test_of_a_file_of_this_machine_no_line_is_kept_whose_beginning_is_cut_off(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "default" / "r" / "local"
    folder.mkdir(parents=True)
    (folder / name).write_text(f"api_key={{'a': '{SECRET}'}}\n" + "ready\n" * ((1024**2 - 20) // 6))
    [part] = local.collect(tmp_path, "default", "r").parts
    assert set(part.content.splitlines()) == {b"ready"}


def test_a_folder_without_the_run_is_one_line(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as code:
        main(["bundle", "r", "--dir", str(tmp_path)])
    assert code.value.code == 2
    assert (
        capsys.readouterr().err
        == f"error: run default/r: no folder {tmp_path}/default/r/local; name that of `maft run` with --dir, and -n\n"
    )


@pytest.mark.parametrize("name", ["", "..", "../../../../api/v1/namespaces/demo/secrets/s3", "a?x", "a/b", "A", "a\n"])
def test_a_name_that_leads_elsewhere_is_one_line(name: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "runs" / "local").mkdir(parents=True)
    others = [["r", "-n", name], ["r", "--operator-namespace", name]] if name else []
    for line in ([name, "--dir", str(tmp_path)], [name, "-n", "demo"], *others):
        with pytest.raises(SystemExit) as code:
            main(["bundle", *line])
        assert code.value.code == 2
        assert re.fullmatch(r"error: .* no name; expected small letters, digits and -\n", capsys.readouterr().err)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
SMALL = Bundle("a/b", (Part("x/y.txt", b"z"),), ())


def test_an_archive_that_was_there_gives_its_mode_and_its_readers_nothing(tmp_path: Path) -> None:
    """Whoever could read the old file, or has it open, sees nothing of the new one."""
    path = tmp_path / "n.tar.gz"
    path.write_bytes(b"old")
    path.chmod(0o666)
    with path.open("rb") as reader:
        write(SMALL, path, NOW)
        assert reader.read() == b"old"
    assert path.stat().st_mode & 0o777 == 0o600 and set(opened(path)) == {"manifest.json", "x/y.txt"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_elsewhere_is_replaced_and_not_followed(tmp_path: Path) -> None:
    path, target = tmp_path / "n.tar.gz", tmp_path / "target"
    target.write_bytes(b"theirs")
    path.symlink_to(target)
    write(SMALL, path, NOW)
    assert target.read_bytes() == b"theirs" and not path.is_symlink()


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write(SMALL, tmp_path / "pipe", NOW)
    with open(reading, "rb") as reader, tarfile.open(fileobj=io.BytesIO(reader.read()), mode="r:gz") as tar:
        assert tar.getnames() == ["pipe/manifest.json", "pipe/x/y.txt"]
    assert (tmp_path / "pipe").is_fifo()


def test_what_cannot_be_put_into_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "n.tar.gz").mkdir()
    with pytest.raises(BadSpec, match=r"--output .*n\.tar\.gz: Is a directory; name a file"):
        write(SMALL, tmp_path / "n.tar.gz", NOW)
    assert [path.name for path in tmp_path.iterdir()] == ["n.tar.gz"]


def test_the_archive_is_a_tar_that_anybody_opens(tmp_path: Path) -> None:
    write(SMALL, tmp_path / "n.tar.gz", NOW)
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "n.tar.gz").read_bytes()), mode="r:gz") as tar:
        assert tar.getnames() == ["n/manifest.json", "n/x/y.txt"]
