"""Serves a study's page to a browser: read only, the page, what is new of it and nothing else."""

from __future__ import annotations

import errno
import hmac
import socket
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from isoflop import storage
from isoflop.config import Study
from isoflop.report.page import analysed, part, parts, specs_of, whole
from isoflop.report.sections import sections
from isoflop.report.theme import Style
from isoflop.sweep import Folders, Lookout
from isoflop.sweep.report import evidence_of
from isoflop.text import quoted
from isoflop.watching.now import now_section, share_done

LOOK_SECONDS = 2.0
"""Between two looks at a study's folder, at least."""
IDLE_SHARE = 10
"""Times as long as a look, or a report, took is the next one waited for: training has the cores."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Told(NamedTuple):
    """Parts of a page and what draws their figures; the key changes with the records they show."""

    key: str
    parts: Mapping[str, str]
    specs: Mapping[str, storage.JSON]


class Watched:
    """A study as it is now, looked at no more often than leaves training its cores.

    Args:
        study: as its file has it.
        folders: where it lives.
        file: where it is written, for the commands that are named.

    Raises:
        ValueError: the study cannot be planned, or a file of it is damaged.
    """

    def __init__(self, study: Study, folders: Folders, file: Path) -> None:
        self._file, self._lookout, self._lock = file, Lookout(study, folders), threading.Lock()
        names = [one.name for one in study.variants]
        self._name, self._style = study.name, Style.of(names, study.baseline_variant.name)
        self._failed, self._next_look, self._next_report = {"look": "", "report": ""}, 0.0, 0.0
        self._now, self._renewal = self._look(), threading.Thread()
        self._report = self._made(self._now.key)
        self.page()  # What draws takes seconds to load, and nobody waits yet.

    def page(self) -> str:
        """Return the whole page."""
        now, report = self._current(), self._report
        known = {**report.parts, **now.parts}
        ordered = {name: known[name] for name in ("header", "now", "report")}
        return whole(self._name, ordered, {**now.specs, **report.specs}, report.key)

    def news(self, have: str) -> storage.JSON:
        """Return what is new for a page that has the report of this key."""
        now, report = self._current(), self._report
        old, failure = report.key == have, self._failed["look"] or self._failed["report"]
        parts = dict(now.parts) if old else {**report.parts, **now.parts}
        specs = dict(now.specs) if old else {**report.specs, **now.specs}
        return {"parts": parts, "specs": specs, "key": report.key, "failure": failure}

    def _current(self) -> Told:
        """Look again if it is time, and have the report made anew if runs have ended since."""
        with self._lock:
            if time.monotonic() >= self._next_look:
                try:
                    self._now, self._failed["look"] = self._look(), ""
                except (OSError, ValueError) as error:
                    self._failed["look"] = quoted(str(error))
            due = self._now.key != self._report.key and time.monotonic() >= self._next_report
            if due and not self._renewal.is_alive():
                self._renewal = threading.Thread(target=self._renew, daemon=True)
                self._renewal.start()
            return self._now

    def _look(self) -> Told:
        began, found = time.monotonic(), self._lookout.look()
        section = now_section(found, self._lookout.ledger, self._style)
        told = {"now": section, "share": share_done(found), "stills": {}}
        html = {"now": part("now", self._style, told)}
        self._next_look = _next(began, LOOK_SECONDS)
        return Told(str(len(self._lookout.ledger.own)), html, specs_of([section]))

    def _renew(self) -> None:
        began = time.monotonic()
        try:
            self._report, self._failed["report"] = self._made(self._now.key), ""
        except (OSError, ValueError) as error:
            self._failed["report"] = quoted(str(error))
        self._next_report = _next(began, 0.0)

    def _made(self, key: str) -> Told:
        now, folders = self._lookout.ledger.study, self._lookout.folders
        study, evidence = evidence_of(now, folders, self._file, begun=False)
        analysis = analysed(study, evidence)
        made = sections(analysis) if evidence.records else []
        return Told(key, parts(analysis, made, {}), specs_of(made))


def _next(began: float, least: float) -> float:
    now = time.monotonic()
    return now + max(least, IDLE_SHARE * (now - began))


class Server(ThreadingMixIn, TCPServer):
    """Tells browsers of a study.

    Args:
        watched: the study.
        host: address to listen at.
        port: 0 for any that is free.
        token: what a request must know; None for nothing, which only this machine's own address
            allows.

    Raises:
        ValueError: the port or the address cannot be had; or there is no token, and needs to be.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, watched: Watched, host: str, port: int, token: str | None) -> None:
        if token is None and host not in LOOPBACK:
            raise ValueError(f"{host} can be reached from elsewhere; a token is needed there")
        self.watched, self.token = watched, token
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            why = f"cannot listen at port {port} of {host}; name others with --host and --port"
            if getattr(error, "errno", None) == errno.EADDRINUSE:
                why = f"port {port} of {host} is taken; name another with --port, or 0 for any"
            raise ValueError(why) from error
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        name = f"[{name}]" if ":" in name else name
        query = "" if token is None else f"?token={token}"
        self.address = f"http://{name}:{self.server_address[1]}/{query}"
        """What a browser is to open."""

    def handle_error(self, *_: Any) -> None:
        """Let a browser that went away go; a fault of ours is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*_)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page, `/`, and for what is new of it, `/now?have=KEY`."""

    server: Server
    server_version, sys_version = "isoflop", ""
    timeout = 30

    def do_GET(self) -> None:
        """Answer."""
        asked = urlsplit(self.path)
        query = {name: found[-1] for name, found in parse_qs(asked.query).items()}
        if refusal := self._refusal(query.get("token", "")):
            self._send(HTTPStatus.FORBIDDEN, "text/plain", refusal)
        elif asked.path == "/":
            self._send(HTTPStatus.OK, "text/html", self.server.watched.page())
        elif asked.path == "/now":
            news = storage.to_json(self.server.watched.news(query.get("have", "")))
            self._send(HTTPStatus.OK, "application/json", news)
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "there is nothing but /")

    do_HEAD = do_GET

    def _refusal(self, token: str) -> str:
        """Return why a request is not answered: it lacks the token, or came by another name.

        A page from elsewhere that has its own name lead here could read ours where no token is
        asked for.
        """
        if self.server.token is not None:
            known = hmac.compare_digest(token.encode(), self.server.token.encode())
            return "" if known else "open the address that isoflop watch printed, with its token"
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        return "" if name in LOOPBACK else "this page is served to this machine alone"

    def _send(self, code: HTTPStatus, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""
