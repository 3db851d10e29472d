"""The subcommands that show a study while it is trained: in the terminal, and as a page."""

from __future__ import annotations

import re
import secrets
from typing import Annotated

from tyro.conf import arg

from isoflop.cli.options import CACHE, RESULTS, Cache, Json, Out, Results, StudyFile
from isoflop.config.load import load_study
from isoflop.text import quoted

LEAST_TOKEN = 16
"""Characters of a token."""


def status(
    study: StudyFile,
    out: Out = None,
    results: Results = RESULTS,
    live: Annotated[bool, arg(help="Show it anew until all is done, or Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show how far a study is, where its minima lie, and which runs failed."""
    from isoflop import sweep
    from isoflop.cli.study import settled_study
    from isoflop.terminal.status import follow, status_tables
    from isoflop.terminal.tables import answer

    hint = f"isoflop run {study}"
    if live:
        if json:
            raise ValueError("--live shows tables again and again; leave out --json, or --live")
        asked = load_study(study)
        follow(sweep.Lookout(asked, sweep.Folders.of(asked, out, results)).look, hint)
        return
    asked, folders = settled_study(study, out, results)
    found = sweep.status(asked, folders.root, results, power=True)
    told = {**found.model_dump(mode="json"), "complete": found.complete}
    answer(told, status_tables(found, hint), json=json)


def watch(
    study: StudyFile,
    host: Annotated[str, arg(metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, arg(metavar="INT", help="0 for any that is free.")] = 8642,
    token: Annotated[
        str | None,
        arg(metavar="TEXT", help="What the address must hold; made up if not on 127.0.0.1."),
    ] = None,
    out: Out = None,
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> None:
    """Serve a page of a study while it is trained: what runs, curves, minima, time left.

    It is the page of `isoflop report` with what happens now on top, and looks for news by itself.
    Ctrl-C ends it.
    """
    from isoflop.sweep import Folders
    from isoflop.watching.server import LOOPBACK, Server, Watched

    asked = load_study(study)
    if token is None and host not in LOOPBACK:
        token = secrets.token_hex(LEAST_TOKEN)
    if token is not None and not re.fullmatch(rf"[A-Za-z0-9_-]{{{LEAST_TOKEN},}}", token):
        raise ValueError(
            f"--token is of {len(token)} characters; expected {LEAST_TOKEN} letters and digits at "
            "least, or leave it out: one is made up where it is needed"
        )
    watched = Watched(asked, Folders.of(asked, out, results, cache), study)
    with Server(watched, host, port, token) as server:
        try:
            print(quoted(f"watching {asked.name}: {server.address}"), flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("no longer watching")
