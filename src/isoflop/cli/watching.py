"""The subcommands for a study under way: work on it beside others, and see how it goes."""

from __future__ import annotations

import re
import secrets
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from isoflop.cli.options import CACHE, RESULTS, Cache, Json, Out, Results, StudyFile
from isoflop.cli.study import (
    RunOptions,
    _check_uninterrupted,
    _folders_and_execution,
    settled_study,
)
from isoflop.config.load import load_study
from isoflop.text import quoted

FOLLOW_SECONDS = 0.5
LEAST_TOKEN = 16
"""Characters of a token."""


@dataclass(frozen=True)
class WorkOptions:
    """How long a worker stays, and beside whom."""

    until_idle: Annotated[
        bool, arg(help="Leave once nothing is free, in place of waiting for what others leave.")
    ] = False
    time_limit: Annotated[
        float | None, arg(metavar="MIN", help="Be gone by then, with a checkpoint of every run.")
    ] = None
    mixed: Annotated[
        bool, arg(help="Work beside runs of other versions; records tell which are which.")
    ] = False


def work(
    study: Annotated[
        Path, Positional, arg(metavar="STUDY|FOLDER", help="The study, or the folder it lives in.")
    ],
    worker: Annotated[WorkOptions, arg(name="")],
    options: Annotated[RunOptions, arg(name="")],
) -> int:
    """Train the runs of a study that nobody has, the longest first, beside any other workers.

    Start it as often as you like, on any machine that sees the study's folder.
    """
    from isoflop import sweep
    from isoflop.sweep.ledger import STUDY
    from isoflop.sweep.schedule.executor import Shift
    from isoflop.tracking import tracking

    if worker.time_limit is not None and not worker.time_limit > 0:
        raise ValueError(f"--time-limit is {worker.time_limit}; expected minutes, more than 0")
    if study.is_dir():
        study, options = study / STUDY, replace(options, out=options.out or study)
    asked = load_study(study)
    options = replace(options, workers=options.workers or 1)
    folders, execution = _folders_and_execution(asked, options)
    limit = None if worker.time_limit is None else 60 * worker.time_limit
    execution = replace(execution, shift=Shift(limit, worker.until_idle, worker.mixed))
    with tracking(folders.root, options.track, asked.name):
        outcome = sweep.run_study(asked, folders, execution)
    _check_uninterrupted(outcome)
    print(f"{outcome.finished} runs of {asked.name} finished, {outcome.left} left")
    for line in outcome.stale:
        print(quoted(f"isoflop: {line}"), file=sys.stderr)
    return 2 if outcome.stale else 0


def logs(
    study: StudyFile,
    run_id: Annotated[
        str, Positional, arg(metavar="RUN_ID", help="As `isoflop status` shows it, or its start.")
    ],
    follow: Annotated[bool, arg(help="Go on until the run ends.")] = False,
    out: Out = None,
    results: Results = RESULTS,
) -> None:
    """Print what a run printed, wherever it was trained, and how its attempts ended."""
    from isoflop import sweep
    from isoflop.runs import RunStore
    from isoflop.sweep.schedule.executor import LOG

    asked = load_study(study)
    store = RunStore(sweep.Folders.of(asked, out, results).root)
    found = [one for one in store.folders() if one.path.name.startswith(run_id)]
    if len(found) != 1:
        said = "no run" if not found else f"{len(found)} runs"
        raise ValueError(
            f"{said} in {store.root} has an id that starts with {run_id[:80]!r}; "
            f"`isoflop status {study}` shows them"
        )
    folder, shown = found[0], 0
    while True:
        over = not folder.is_claimed()
        path = folder.path / LOG
        data = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        for line in data[shown:].decode(errors="replace").splitlines():
            print(quoted(line), flush=True)
        shown = len(data)
        if over or not follow:
            break
        time.sleep(FOLLOW_SECONDS)
    made, state = folder.attempts_made(), folder.state()
    for one in made:
        ended = one.ending or (state if one is made[-1] else "ended without a word")
        why = f": {one.reason}" if one.reason else ""
        print(quoted(f"attempt {one.number} from step {one.step}: {ended}{why}"))
    print(quoted(f"{folder.path.name}: {state}"))


def status(
    study: StudyFile,
    out: Out = None,
    results: Results = RESULTS,
    live: Annotated[bool, arg(help="Show it anew until all is done, or Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """Show how far a study is, where its minima lie, and which runs failed."""
    from isoflop import sweep
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
