"""What every program shares: its exit codes, its summary file, its progress for Prometheus.

Exit code 0: the output is committed. 2: wrong input, one line on stderr, trying again will not help. Anything else: a fault
that may pass. The summary is one JSON object of at most 4 KiB (a container's termination message holds no more).
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from maft import __version__
from maft.errors import BadInput

SUMMARY_LIMIT = 4096  # bytes, the kubelet's limit for a termination message


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The flags that every program takes: where the run's objects lie, where the summary goes, where progress is read."""
    flags = argparse.ArgumentParser(
        prog=f"python -m maft.{name}",
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,  # `maft.serve` hands flags it does not know to vLLM
    )
    flags.add_argument("--store", required=True, help="file:///folder or s3://bucket/prefix?endpoint=URL&region=NAME")
    flags.add_argument("--run", required=True, help="NAMESPACE/NAME of the run: its prefix in the store")
    environment = os.environ.get
    flags.add_argument("--summary", default=environment("MAFT_SUMMARY"), help="file for the JSON summary [MAFT_SUMMARY]")
    flags.add_argument(
        "--metrics-port", type=int, default=int(environment("MAFT_METRICS_PORT", "0")), help="0: no metrics [MAFT_METRICS_PORT]"
    )
    flags.add_argument("--metrics-host", default=environment("MAFT_METRICS_HOST", ""), help="empty: all [MAFT_METRICS_HOST]")
    return flags


class Progress:
    """How far a program is, as `maft_progress_done`, `maft_progress_expected` and a few counters of its own."""

    def __init__(self, port: int, host: str = "") -> None:
        self.registry = CollectorRegistry()
        self.done = Gauge("maft_progress_done", "Units of work finished", registry=self.registry)
        self.total = Gauge("maft_progress_expected", "Units of work in all", registry=self.registry)
        if port:
            try:
                start_http_server(port, addr=host or "0.0.0.0", registry=self.registry)
            except OSError as error:
                raise OSError(f"--metrics-port {port}: {error.strerror}; choose another port") from error

    def gauge(self, name: str, text: str) -> Gauge:
        """A gauge `maft_<name>`."""
        return Gauge(f"maft_{name}", text, registry=self.registry)

    def counter(self, name: str, text: str) -> Counter:
        """A counter `maft_<name>_total`."""
        return Counter(f"maft_{name}", text, registry=self.registry)


def without_torch() -> None:
    """For programs that read configurations and tokenizers, no weights: transformers imports torch where there is one, which
    takes seconds. It asks once whether there is, and remembers; what a model's own code imports is left alone."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say that it found none
    sys.modules["torch"] = None  # type: ignore[assignment] # importing it fails now
    from transformers.utils import is_torch_available

    is_torch_available()
    del sys.modules["torch"]


def run(main: Callable[[argparse.Namespace], Mapping[str, Any]], flags: argparse.ArgumentParser) -> None:
    """Parses the flags, runs the program, writes its summary and exits."""
    arguments = flags.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    try:
        summary = dict(main(arguments))
    except BadInput as error:
        _end(arguments.summary, error, 2)
    except (OSError, MemoryError) as error:
        _end(arguments.summary, error, 1)
    write_summary(arguments.summary, {"version": __version__, **summary})
    raise SystemExit(0)


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _end(summary: str | None, error: BaseException, code: int) -> None:
    line = " ".join(str(error).split()) or type(error).__name__
    write_summary(summary, {"version": __version__, "error": line[:2000]})
    print(f"error: {line}", file=sys.stderr, flush=True)
    raise SystemExit(code)


def write_summary(path: str | None, summary: Mapping[str, Any]) -> None:
    """Writes the summary, all or nothing where the file system allows it."""
    data = json.dumps(summary, ensure_ascii=False, sort_keys=True).encode()
    if len(data) > SUMMARY_LIMIT:
        raise ValueError(f"summary of {len(data)} bytes; a termination message holds {SUMMARY_LIMIT}")
    if not path:
        return
    target = Path(path)
    if target.exists() and not os.access(target.parent, os.W_OK):
        target.write_bytes(data)  # a container's /dev/termination-log is a mounted file: it cannot be replaced
        return
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, target)
