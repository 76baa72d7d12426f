"""A collector of traces on loopback, which reads them by OTLP's own schema."""

import base64
import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from google.protobuf import json_format
from handled import handled
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_IDS = ("traceId", "spanId", "parentSpanId")


class Collector(BaseHTTPRequestHandler):
    """Takes traces: ids are hexadecimal in OTLP's JSON and base64 in protobuf's."""

    spans: list[Any]
    answer: tuple[int, bytes] = (200, b"{}")
    seen: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(f"{self.path} {self.headers['Content-Type']} {self.headers.get('x-key', '')}")
        for resource in body["resourceSpans"]:
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                span.update({key: base64.b64encode(bytes.fromhex(span[key])).decode() for key in _IDS if key in span})
        request = json_format.ParseDict(body, ExportTraceServiceRequest())
        self.spans.extend(span for r in request.resource_spans for scope in r.scope_spans for span in scope.spans)
        self.send_response(self.answer[0])
        self.end_headers()
        self.wfile.write(self.answer[1])

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@contextlib.contextmanager
def collecting() -> Iterator[tuple[str, type[Collector]]]:
    """Serves one; its URL, and what it has seen."""
    handler = type("Handler", (Collector,), {"spans": [], "seen": []})
    with handled(handler) as url:
        yield url, handler
