"""A server of the OpenAI API whose answers a test chooses."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Texts = list[str | None]


class ChatStub:
    """Serves one model, "stub". Use as a context manager.

    Args:
        answer: (n of the request) -> the texts of its choices.
    """

    def __init__(self, answer: Callable[[int], Texts]) -> None:
        self.answer = answer
        self.failures = 0
        """Requests that are first answered with HTTP 500."""
        self.requests: list[str] = []
        """Bodies of the requests that were answered."""
        self.said = ""
        """Stands in every answer, beside the choices."""
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, {"data": [{"id": "stub"}]})

            def do_POST(self) -> None:
                request = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if stub.failures:
                    stub.failures -= 1
                    self._send(500, {"error": "busy"})
                    return
                stub.requests.append(request)
                texts = stub.answer(json.loads(request)["n"])
                self._send(200, {"choices": [{"message": {"content": text}} for text in texts], "said": stub.said})

            def _send(self, status: int, body: dict[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "ChatStub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
