"""An OpenTelemetry collector of a test: it receives spans over OTLP/HTTP, in the JSON encoding, which is Triton's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Span:
    """A span; identifiers are in hexadecimal.

    Attributes:
        name: Its name.
        trace: Identifier of its trace.
        parent: Identifier of its parent; empty: it has none.
        attributes: Those of the span.
        resource: The attributes of the process that made it.
        events: Names of its events.
    """

    name: str
    trace: str
    parent: str
    attributes: dict[str, str]
    resource: dict[str, str]
    events: tuple[str, ...]


class Collector:
    """The spans that arrived, and where to send them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.headers: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._build_handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def find(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    @property
    def requests(self) -> list[Span]:
        """The spans that Triton makes once for each request of a client that it traces."""
        return self.find("InferRequest")

    @contextmanager
    def run(self) -> Iterator[None]:
        """Receive spans until the context ends."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _build_handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_trace = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/json"
                if is_trace:
                    collector.headers = {name.lower(): value for name, value in self.headers.items()}
                    collector.spans += _read_spans(json.loads(body))
                self.send_response(200 if is_trace else 415)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        return Handler


def _read_spans(request: dict[str, Any]) -> Iterator[Span]:
    """Yield the spans of an ExportTraceServiceRequest (opentelemetry-proto, collector/trace/v1)."""
    for group in request["resourceSpans"]:
        resource = _read_attributes(group["resource"])
        for span in (span for scope in group["scopeSpans"] for span in scope["spans"]):
            events = tuple(event["name"] for event in span.get("events", ()))
            attributes = _read_attributes(span)
            yield Span(span["name"], span["traceId"], span.get("parentSpanId", ""), attributes, resource, events)


def _read_attributes(owner: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: str(next(iter(each["value"].values()))) for each in owner.get("attributes", ())}
