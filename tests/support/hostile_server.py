"""A server that answers with hostile texts, in a pod of a tenant who attacks the operator. Standard library only.

Each answer is of another kind, and none is like the one before it.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MODEL: Final = "double"
GOOD: Final[dict[str, Any]] = {
    "ready": True,
    "models": [{"name": MODEL, "state": "Ready", "versions": [{"version": 1, "state": "Ready"}]}],
}


def model(**fields: object) -> str:
    """Return a report of one model with these fields."""
    return json.dumps({"models": [{"name": MODEL, "state": "Ready", **fields}]})


REPORTS: Final = {
    "nested without end": "[" * 100_000,
    "a deep field": '{"ready": true, "unheardOf": ' + "[" * 900 + "]" * 900 + "}",
    "unknown fields without end": json.dumps({**GOOD, **{f"field-{number}": 1 for number in range(30_000)}}),
    "lists without end": '{"models": [' + "[]," * 300_000 + "[]]}",
    "more than a megabyte": json.dumps({"reason": "a" * (1 << 20)}),
    "4,000 digits": model(bytesTotal=10**3999),
    "4,000 digits of a version": model(versions=[{"version": 10**3999, "state": "Ready"}]),
    "a negative number": model(bytesFetched=-1),
    "no number": model(loadSeconds=float("nan")),
    "an infinite number": model(fetchSeconds=float("inf")),
    "1e999": model().replace('"Ready"', '"Ready", "loadSeconds": 1e999'),
    "another type": json.dumps({"models": {"a": 1}}),
    "an unknown state": json.dumps({"models": [{"name": MODEL, "state": "Happy"}]}),
    "no object": "7",
    "no JSON": "<html>",
    "nothing": "",
}
PAGES: Final = {
    "one line of 4 MB": 'nv_inference_count{model="' + "a" * 4_000_000 + '"} 1\n',
    "labels without end": "nv_inference_count{" + 'a="b",' * 300_000 + "} 1\n",
    "lines without end": "\n" * 3_000_000,
    "models without end": "".join(f'nv_inference_count{{model="{number}"}} 1\n' for number in range(60_000)),
    "no number": 'nv_inference_request_success{model="double",version="1"} NaN\n',
    "an infinite number": 'nv_inference_request_success{model="double",version="1"} +Inf\n',
    "a negative number": 'nv_inference_request_success{model="double",version="1"} -1e308\n',
    "4,000 digits": f'nv_inference_request_success{{model="double",version="1"}} {10**3999}\n',
    "a quantile without a label": "nv_inference_request_summary_us 1\n",
    "no page": "<html>",
    "nothing": "",
}
_BYTE_SECONDS: Final = 0.5  # between two bytes of an answer that does not end


class Handler(BaseHTTPRequestHandler):
    """Answers every path with the next text; every sixth answer comes byte by byte and does not end."""

    texts: Any
    numbers = itertools.count()

    def do_GET(self) -> None:
        """Answer."""
        number = next(self.numbers)
        if number % 6 == 5:
            self._answer(10_000_000, b"")
            while True:
                time.sleep(_BYTE_SECONDS)
                self.wfile.write(b" ")
        text = next(self.texts)
        content = text.replace('"Ready"', f'"Ready", "bytesFetched": {number}', 1).encode()
        self._answer(len(content), content)

    def _answer(self, length: int, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)


def serve(port: int, texts: dict[str, str]) -> ThreadingHTTPServer:
    """Serve these texts in turn at a port."""
    handler = type("Turn", (Handler,), {"texts": itertools.cycle(texts.values())})
    server = ThreadingHTTPServer(("", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    report_port, page_port = map(int, sys.argv[1:])
    serve(report_port, {**REPORTS, "a good one": json.dumps(GOOD)})
    serve(page_port, PAGES)
    threading.Event().wait()
