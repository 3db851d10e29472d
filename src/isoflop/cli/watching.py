"""The subcommands that tell how a study under way goes."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from isoflop import sweep
from isoflop.cli.options import CACHE, Cache, Json, OfStudy
from isoflop.runs import RunStore
from isoflop.sweep.schedule.executor import LOG
from isoflop.terminal.status import follow, status_tables
from isoflop.terminal.tables import answer
from isoflop.text import quoted, typed

FOLLOW_SECONDS = 0.5
LEAST_TOKEN = 16
"""Characters of a token."""


@dataclass(frozen=True, kw_only=True)
class Logs(OfStudy):
    """Print what a run printed, wherever it was trained, and how its attempts ended."""

    run_id: Annotated[str, Positional, arg(metavar="RUN_ID")]
    """As `isoflop status` shows it, or its start."""
    follow: Annotated[bool, arg(help="Go on until the run ends.")] = False

    def __call__(self) -> None:
        _, folders = self.found()
        store = RunStore(folders.root)
        found = [one for one in store.folders() if one.path.name.startswith(self.run_id)]
        if len(found) != 1:
            said = "no run" if not found else f"{len(found)} runs"
            raise ValueError(
                f"{said} in {store.root} has an id that starts with {self.run_id[:80]!r}; "
                f"`{typed('status', self.study)}` shows them"
            )
        folder, shown = found[0], 0
        while True:
            over = not folder.is_claimed()
            path = folder.path / LOG
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            for line in data[shown:].decode(errors="replace").splitlines():
                print(quoted(line), flush=True)
            shown = len(data)
            if over or not self.follow:
                break
            time.sleep(FOLLOW_SECONDS)
        made, state = folder.attempts_made(), folder.state()
        for one in made:
            ended = one.ending or (state if one is made[-1] else "ended without a word")
            why = f": {one.reason}" if one.reason else ""
            print(quoted(f"attempt {one.number} from step {one.step}: {ended}{why}"))
        print(quoted(f"{folder.path.name}: {state}"))


@dataclass(frozen=True, kw_only=True)
class Status(OfStudy):
    """Show how far a study is, where its minima lie, and which runs failed."""

    live: Annotated[bool, arg(help="Show it anew until all is done, or Ctrl-C.")] = False
    json: Json = False

    def __call__(self) -> None:
        hint = typed("run", self.study)
        if self.live:
            if self.json:
                raise ValueError("--live shows tables again and again; leave out --json, or --live")
            follow(sweep.Lookout(*self.found()).look, hint)
            return
        asked, folders = self.settled()
        found = sweep.status(asked, folders.root, self.results, power=True)
        told = {**found.model_dump(mode="json"), "complete": found.complete}
        answer(told, status_tables(found, hint), json=self.json)


@dataclass(frozen=True, kw_only=True)
class Watch(OfStudy):
    """Serve a page of a study while it is trained: what runs, curves, minima, time left.

    It is the page of `isoflop report` with what happens now on top, and looks for news by itself.
    Ctrl-C ends it.
    """

    host: Annotated[str, arg(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1"
    port: Annotated[int, arg(metavar="INT", help="0 for any that is free.")] = 8642
    token: Annotated[str | None, arg(metavar="TEXT")] = None
    """What the address must hold; made up if not on 127.0.0.1."""
    cache: Cache = CACHE

    def __call__(self) -> None:
        from isoflop.watching.server import LOOPBACK, Server, Watched

        token, (asked, folders) = self.token, self.found()
        if token is None and self.host not in LOOPBACK:
            token = secrets.token_hex(LEAST_TOKEN)
        if token is not None and not re.fullmatch(rf"[A-Za-z0-9_-]{{{LEAST_TOKEN},}}", token):
            raise ValueError(
                f"--token is of {len(token)} characters; expected {LEAST_TOKEN} letters and digits "
                "at least, or leave it out: one is made up where it is needed"
            )
        watched = Watched(asked, folders, self.study)
        with Server(watched, self.host, self.port, token) as server:
            try:
                print(quoted(f"watching {asked.name}: {server.address}"), flush=True)
                server.serve_forever()
            except KeyboardInterrupt:
                print("no longer watching")
