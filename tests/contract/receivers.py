"""Receivers of alerts, real servers on loopback: one that takes POSTs, and one that takes mail. What they answer can be set."""

import base64
import json
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Posted:
    """One request."""

    path: str
    headers: dict[str, str]
    document: Any
    at: float


@dataclass
class HttpReceiver:
    """Keeps what is posted. `answers` are the next statuses, then 200; `seconds` is how long each answer takes, `text` what it says.

    In the text "{authorization}" becomes what came in that header; `headers` are further headers of each answer.
    """

    answers: list[int] = field(default_factory=list)
    seconds: float = 0.0
    text: str = "ok"
    headers: dict[str, str] = field(default_factory=dict)
    posted: list[Posted] = field(default_factory=list)
    url: str = ""

    def documents(self) -> list[Any]:
        return [one.document for one in self.posted]


@contextmanager
def http_receiver(port: int = 0) -> Iterator[HttpReceiver]:
    """A receiver on a free port, or on this one."""
    receiver = HttpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(receiver.seconds)
            status = receiver.answers.pop(0) if receiver.answers else 200
            if status < 300:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.posted.append(Posted(self.path, headers, json.loads(body), time.time()))
            text = receiver.text.replace("{authorization}", self.headers.get("Authorization", ""))
            answer = f"{text} {self.path}".encode()
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class MailServer:
    """Keeps mail that is sent to it. `answers` has a reply for a word of SMTP, e.g. {"DATA": "451 later"}."""

    answers: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    mail: list[Message] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    port: int = 0


@contextmanager
def mail_server(context: ssl.SSLContext | None = None, *, is_tls: bool = False) -> Iterator[MailServer]:
    """A mail server on a free port; with a context it offers STARTTLS, or speaks TLS from the start."""
    kept = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if is_tls and context is not None:
                self._secure(context)
            self._say("220 here")
            while line := self.rfile.readline().decode().strip():
                if not self._answer(line):
                    return

        def _answer(self, line: str) -> bool:
            word = line.split()[0].upper()
            whom = line.partition("<")[2].partition(">")[0]
            if word == "RCPT" and whom in kept.refused:
                self._say(kept.refused[whom])
            elif word in kept.answers:
                self._say(kept.answers[word])
            elif word == "EHLO":
                self._say("250-here")
                self._say("250-STARTTLS" if context is not None and not is_tls else "250-SIZE")
                self._say("250 AUTH PLAIN")
            elif word == "STARTTLS" and context is not None:
                self._say("220 go on")
                self._secure(context)
            elif word == "AUTH":
                kept.logins.append(base64.b64decode(line.split()[2]).decode().replace("\0", " ").strip())
                self._say("235 welcome")
            elif word == "DATA":
                self._say("354 write")
                kept.mail.append(message_from_bytes(self._data()))
                self._say("250 taken")
            else:
                self._say("221 bye" if word == "QUIT" else "250 fine")
            return word != "QUIT"

        def _data(self) -> bytes:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
            return b"".join(lines)

        def _secure(self, context: ssl.SSLContext) -> None:
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", 0)  # type: ignore[assignment]

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that leaves in the middle is no fault of the server."""

    with Server(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield kept
        server.shutdown()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses connections, and that no other server can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield listening.getsockname()[1]
