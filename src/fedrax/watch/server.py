"""The page's server: the standard library's, on the loopback alone.

It answers only who calls it by a name of this machine: a stranger's page in the same browser, whose host's name was
made to point here, does not. And only who knows the token in its address, which other users of the machine do not.
"""

from __future__ import annotations

import contextlib
import hmac
import http
import http.client
import json
import secrets
import threading
import time
import urllib.parse
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

from fedrax.errors import FedraxError
from fedrax.records.files import reason
from fedrax.watch.runs import Watched

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
REFRESH_SECONDS = 0.5
"""Files are not read more often, however many pages ask."""
MOST_NAMES = 16
"""Of values that one page draws."""
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'"
TEXT = "text/plain; charset=utf-8"
FILES = {
    "": ("fedrax.watch", "page/index.html", "text/html; charset=utf-8"),
    "page.css": ("fedrax.watch", "page/page.css", "text/css; charset=utf-8"),
    "page.js": ("fedrax.watch", "page/page.js", "text/javascript; charset=utf-8"),
    "shared.js": ("fedrax.report", "templates/shared.js", "text/javascript; charset=utf-8"),
    "uPlot.iife.min.js": ("fedrax.report", "templates/vendor/uplot.js", "text/javascript; charset=utf-8"),
    "uPlot.min.css": ("fedrax.report", "templates/vendor/uplot.css", "text/css; charset=utf-8"),
}
"""By path after the token, the package, the file in it, and its type."""


class Server(ThreadingHTTPServer):
    """Serves one page."""

    daemon_threads = True

    def __init__(self, watched: Watched, port: int) -> None:
        """Listens.

        Args:
            watched: what the page shows.
            port: 0 for a free one.

        Raises:
            FedraxError: somebody listens there, or this user may not.
        """
        self.watched, self._lock, self._read = watched, threading.Lock(), float("-inf")
        self.files = {path: (_content(*file[:2]), file[2]) for path, file in FILES.items()}
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise FedraxError(
                f"cannot listen on {HOST}:{port}: {reason(error)}; give another --port, or none for a free one"
            ) from None
        self.hosts = hosts_of(self.server_port)
        self.root = f"/{secrets.token_urlsafe(16)}/"
        self.url = f"http://{HOST}:{self.server_port}{self.root}"

    def data(self, query: dict[str, list[str]]) -> bytes:
        """The page's data as JSON.

        Raises:
            ValueError: a query that the page does not make.
            FedraxError: the run cannot be read any more.
        """
        epoch, start = (int(query.get(name, ["0"])[0]) for name in ("epoch", "from"))
        names = [name for name in query.get("y", [""])[0].split(",") if name][:MOST_NAMES]
        with self._lock:
            if time.monotonic() - self._read >= REFRESH_SECONDS:
                self.watched.refresh()
                self._read = time.monotonic()
            return json.dumps(self.watched.data(epoch, start, names), allow_nan=False).encode()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 30
    server_version, sys_version = "fedrax", ""

    def do_GET(self) -> None:
        """The page, its files, or its data."""
        if self.headers.get("Host", "").lower() not in self.server.hosts:
            self._refuse(http.HTTPStatus.MISDIRECTED_REQUEST)
            return
        whole, _, query = self.path.partition("?")
        root = whole[: len(self.server.root)]
        if not hmac.compare_digest(root.encode(), self.server.root.encode()):
            self._refuse(http.HTTPStatus.NOT_FOUND)
            return
        path = whole[len(root) :]
        if path == "data":
            try:
                self._answer(self.server.data(urllib.parse.parse_qs(query)), "application/json")
            except FedraxError as error:
                self._answer(f"{error}\n".encode(), TEXT, http.HTTPStatus.SERVICE_UNAVAILABLE)
            except ValueError:
                self._refuse(http.HTTPStatus.BAD_REQUEST)
        elif path in self.server.files:
            self._answer(*self.server.files[path])
        else:
            self._refuse(http.HTTPStatus.NOT_FOUND)

    def _refuse(self, status: http.HTTPStatus) -> None:
        self._answer(f"{status.phrase}\n".encode(), TEXT, status)

    def _answer(self, content: bytes, kind: str, status: http.HTTPStatus = http.HTTPStatus.OK) -> None:
        # Whoever closed the page needs no answer.
        with contextlib.suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Security-Policy", POLICY)
            self.send_header("Cross-Origin-Resource-Policy", "same-origin")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: a line every two seconds helps nobody."""


def hosts_of(port: int) -> set[str]:
    """What browsers call this machine at a port: the one of HTTP goes without saying."""
    return {f"{name}:{port}" for name in NAMES} | ({*NAMES} if port == http.client.HTTP_PORT else set())


def watch(path: Path, *, port: int = 0, browser: bool = False, say: Callable[[str], None] = print) -> None:
    """Serves a page on the runs at ``path`` until the process is stopped.

    Args:
        path: a run, finished or not, a sweep's folder, or any folder with runs in it.
        port: on the loopback; 0 for a free one.
        browser: open the page.
        say: told its address.

    Raises:
        FedraxError: there is no run, or the port cannot be had.
    """
    if not 0 <= port <= 65535:
        raise FedraxError(f"--port {port} is not allowed: give 1 to 65535, or none for a free one")
    watched = Watched(path)
    watched.refresh()
    with Server(watched, port) as server:
        say(f"{path} at {server.url}   (Ctrl-C ends it)")
        if browser and not webbrowser.open(server.url):
            say("no browser could be opened; open that address in one")
        server.serve_forever()


def _content(package: str, file: str) -> bytes:
    return (resources.files(package) / file).read_bytes()
