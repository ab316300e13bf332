"""Where alerts are posted to: a real HTTP server on loopback that keeps what came."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer


class Webhook:
    """`texts` holds what was posted, in order."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        texts = self.texts

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                texts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"])
                self.send_response_only(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook/a-secret"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def said(self, subject: str) -> int:
        """How many alerts begin with that."""
        return sum(text.startswith(subject) for text in self.texts)
