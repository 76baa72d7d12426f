"""`cluster.py up|use|down|status`: a real Kubernetes cluster on this machine for the tests, without Docker. See README.md here."""

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import configs
import host
import keys
import parts
import sandbox
import settings as s
from pause import import_pause

READY_SECONDS = 120.0  # it takes seven; with other work on the machine, longer
LOG_TAIL = 30  # lines shown of what failed


def use() -> None:
    """Starts the cluster, unless there is one that is well, of whatever sources: a clone that runs its tests keeps its cluster."""
    up(any_sources=True)


def up(*, any_sources: bool = False) -> None:
    """Starts the cluster, unless it runs and is well; what is left of another goes first."""
    _require()
    tools = parts.build_tools()
    record, made_of = _record(), _made_of(tools)
    if record and (any_sources or record["made_of"] == made_of) and not (ill := _ill(record)):
        _publish(record)
        print("cluster: already up")
        return
    if record:
        print(
            f"cluster: ending the one that is there ({'made of other sources' if record['made_of'] != made_of else ', '.join(ill)})"
        )
    begun = time.monotonic()
    _remove(record)
    try:
        record = _start(tools, made_of)
    except BaseException:
        _remove(_record(), keep_logs=True)
        raise
    _publish(record)
    print(f"cluster: up in {time.monotonic() - begun:.0f} s")


def down() -> None:
    """Ends the cluster and removes everything of it but its logs."""
    record = _record()
    _remove(record, keep_logs=True)
    shutil.rmtree(s.FACTS.parent, ignore_errors=True)
    print(f"cluster: down; logs in {s.LOGS}" if record else "cluster: none was up")


def status() -> None:
    """Says whether it is up; exit code 1 if it is not, or is not well."""
    record = _record()
    ill = _ill(record) if record else ["no cluster"]
    print(f"cluster: {'up' if not ill else 'not well: ' + ', '.join(ill)}")
    raise SystemExit(bool(ill))


def _require() -> None:
    if why := host.unable():
        raise host.Unable(f"{why}; or set KUBECONFIG to a cluster of yours")
    host.require(host.CLUSTER)


def _start(tools: parts.Tools, made_of: str) -> dict[str, Any]:
    for folder in (s.ETC, s.LOGS):
        folder.mkdir(parents=True)
    s3 = parts.S3Keys()
    made = keys.make()
    configs.write(made)
    space = sandbox.create(tools.folders["pause"] / "pause")
    record = {"holder": dataclasses.asdict(space), "made_of": made_of, "facts": _facts(tools, s3)}
    s.RECORD.write_text(json.dumps(record, indent=1))
    sandbox.make_cgroups()
    sandbox.connect(space)
    base, others = parts.stages(tools, made, s3)
    _start_stage(space, base)
    import_pause(space, tools)
    _start_stage(space, others)
    return record


def _start_stage(space: sandbox.Sandbox, stage: list[parts.Part]) -> None:
    running = {part.name: space.start(part.name, part.command, part.environment) for part in stage}
    begun = time.monotonic()
    for part in stage:
        while part.ready and not part.ready(space):
            dead = [name for name, process in running.items() if process.poll() is not None]
            if dead or time.monotonic() - begun > READY_SECONDS:
                _fail(dead[0] if dead else part.name, "ended" if dead else f"not ready within {READY_SECONDS:.0f} s")
            time.sleep(0.1)


def _fail(name: str, what: str) -> None:
    lines = (s.LOGS / f"{name}.log").read_text(errors="replace").splitlines()[-LOG_TAIL:]
    raise RuntimeError("\n".join([*lines, f"{name}: {what}; its log is {s.LOGS / f'{name}.log'}"]))


def _facts(tools: parts.Tools, s3: parts.S3Keys) -> dict[str, str]:
    """What a test needs to know."""
    return {
        "kubeconfig": str(s.KUBECONFIG),
        "kubectl": tools.program("kube", "kubectl"),
        "registry": s.IMAGES,
        "host_address": s.OUTSIDE_IP,
        "s3_endpoint": s.S3,
        "s3_access_key": s3.access,
        "s3_secret_key": s3.secret,
        "audit_log": str(parts.AUDIT_LOG),
        "logs": str(s.LOGS),
    }


def _publish(record: dict[str, Any]) -> None:
    """Writes down in this clone where the cluster is; another clone may have started it."""
    s.FACTS.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(keys.kubeconfig("admin"), s.KUBECONFIG)
    s.FACTS.write_text(json.dumps({**record["facts"], "kubeconfig": str(s.KUBECONFIG)}, indent=1) + "\n")
    print(f"export KUBECONFIG={s.KUBECONFIG}")


def _record() -> dict[str, Any] | None:
    """What was started last and not ended."""
    return dict(json.loads(s.RECORD.read_text())) if s.RECORD.exists() else None


def _ill(record: dict[str, Any]) -> list[str]:
    """What of the cluster does not answer."""
    space = sandbox.Sandbox(**record["holder"])
    if not space.alive():
        return ["its processes have ended"]
    probed = [part for stage in parts.stages(parts.build_tools(), keys.Keys(), parts.S3Keys()) for part in stage if part.ready]
    return [f"{part.name} does not answer" for part in probed if part.ready and not part.ready(space)]


def _made_of(tools: parts.Tools) -> str:
    """Changes when the programs or these modules do."""
    sources = sorted(set(s.HERE.glob("*.py")) - {s.HERE / "images.py", s.HERE / "engines.py"})
    return hashlib.sha256(b"".join(f.read_bytes() for f in sources) + repr(sorted(tools.folders.items())).encode()).hexdigest()


def _remove(record: dict[str, Any] | None, *, keep_logs: bool = False) -> None:
    sandbox.destroy(sandbox.Sandbox(**record["holder"]) if record else None)
    for path in s.STATE.iterdir() if s.STATE.exists() else ():
        if path.is_file():
            path.unlink()
        elif path != s.LOGS or not keep_logs:
            shutil.rmtree(path)


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """One at a time, also from several clones."""
    s.CACHE.mkdir(parents=True, exist_ok=True)
    with s.LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """The command line."""
    commands = {"up": up, "use": use, "down": down, "status": status}
    parser = argparse.ArgumentParser("cluster.py", description=__doc__)
    parser.add_argument("command", choices=commands)
    chosen = commands[parser.parse_args().command]
    try:
        with _locked():
            chosen()
    except (host.Unable, RuntimeError, subprocess.SubprocessError) as error:
        print(f"cluster: failed: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
