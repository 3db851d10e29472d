"""A study's page while it is trained: what it tells, to whom, and that it renews itself."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from isoflop.cli import main
from isoflop.config import Study
from isoflop.planning import next_runs
from isoflop.runs import RunStore
from isoflop.sweep import Folders, status
from isoflop.terminal.status import follow
from isoflop.watching import server as serving
from isoflop.watching.server import Server, Watched
from sweep_studies import ROUTED, Place, brief, tiny, write_corpus

TOKEN = "0123456789abcdef"
LOSSES = [6.0, *(2 + 1 / step for step in range(2, 21))]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(serving, "IDLE_SHARE", 0)
    made = tiny(write_corpus(tmp_path / "text.txt"))
    (tmp_path / "study.json").write_text(made.model_dump_json())
    return made


@contextmanager
def under_way(study: Study) -> Iterator[str]:
    """Have a run of a study claimed, with 20 steps done."""
    run = next_runs(study, [])[0].config
    folder = RunStore(Path("runs/tiny")).folder(run.run_id)
    with folder.claim():
        folder.create(run)
        folder.begin_attempt(0)
        with folder.open_metrics(0) as metrics:
            for step, loss in enumerate(LOSSES, 1):
                metrics.append({"step": step, "loss": loss, "seconds": 0.5})
        yield run.run_id


@contextmanager
def served(study: Study, token: str | None = None) -> Iterator[Server]:
    watched = Watched(study, Folders(Path("runs/tiny"), Path("results")), Path("study.json"))
    with Server(watched, "127.0.0.1", 0, token) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def without_vega(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the libraries out of the page, which take seconds to bundle."""
    monkeypatch.setattr("isoflop.report.page.vega_javascript", lambda: "/* vega */")


def ask(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
    link = HTTPConnection(*server.server_address[:2], timeout=60)
    link.request(method, path, headers=headers)
    answer = link.getresponse()
    return answer.status, answer.read().decode()


@pytest.mark.usefixtures("without_vega")
def test_it_tells_what_runs_and_how_long_it_takes(study: Study) -> None:
    with under_way(study), served(study) as server:
        code, page = ask(server, "/")
        assert code == 200
        assert "No run has finished" in page
        assert re.search(r"1 running, 2 pending; about [\w ]+ left", page)
        assert "20 of 168" in page
        news = json.loads(ask(server, "/now?have=0")[1])
        assert set(news["parts"]) == {"now"}
        drawn = news["specs"]["curves-now"]["data"]["values"]
        # The first steps are off the scale.
        assert [one["loss"] for one in drawn if one["row"] == "under way"] == LOSSES[13:]
        assert set(json.loads(ask(server, "/now?have=")[1])["parts"]) == {"header", "now", "report"}


def test_time_left_is_that_of_all_runs_by_those_that_were_timed(study: Study) -> None:
    assert status(study, Path("runs/tiny")).seconds_left is None
    with under_way(study):
        found = status(study, Path("runs/tiny"))
        (going,) = [row for row in found.rows if row.at]
        flops = sum(row.budget_flops for row in found.rows)
        expected = flops / (going.budget_flops / going.steps / 0.5) - 20 * 0.5
        assert found.seconds_left == pytest.approx(expected, rel=0.25)
    assert status(study, Path("runs/tiny")).seconds_left is None


@pytest.mark.usefixtures("without_vega")
def test_it_is_read_only_and_serves_nothing_else(study: Study) -> None:
    with served(study) as server:
        for path in ("/../study.json", "/study.json", "//etc/passwd", "/runs", "/favicon.ico"):
            assert ask(server, path) == (404, "there is nothing but /")
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert ask(server, "/", method)[0] == 501
        code, body = ask(server, "/", "HEAD")
        assert (code, body) == (200, "")
        # A page from elsewhere that leads its name here.
        assert ask(server, "/", Host="rebound.example:80")[0] == 403
        assert ask(server, "/", Host="localhost:1")[0] == 200


@pytest.mark.usefixtures("without_vega")
def test_elsewhere_it_needs_a_token(study: Study) -> None:
    with served(study, TOKEN) as server:
        assert server.address.endswith(f"/?token={TOKEN}")
        for query in ("", "?token=", "?token=0123456789abcdeg", "?token=%ff"):
            assert ask(server, f"/{query}")[0] == 403
            assert ask(server, f"/now{query}")[0] == 403
        assert ask(server, f"/?token={TOKEN}", Host="a.example")[0] == 200
        with pytest.raises(ValueError, match="a token is needed"):
            Server(server.watched, "0.0.0.0", 0, None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "PORT"], "is taken; name another with --port, or 0 for any"),
        (["--port", "70000"], "cannot listen at port 70000"),
        (["--host", "192.0.2.1"], "cannot listen at port 8642 of 192.0.2.1"),
        (["--token", "short"], "--token is of 5 characters; expected 16"),
    ],
)
@pytest.mark.usefixtures("without_vega")
def test_what_cannot_be_is_one_line(study: Study, options, words, capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["watch", "study.json", *(one.replace("PORT", port) for one in options)]) == 2
    shown = capsys.readouterr().err
    assert words in shown
    assert shown.count("\n") == 1


@pytest.mark.usefixtures("without_vega")
def test_damage_is_told_and_the_page_stays(study: Study) -> None:
    with served(study) as server, under_way(study) as run_id:
        ask(server, "/")
        Path("runs/tiny/runs", run_id, "record.json").write_text("{")
        news = json.loads(ask(server, "/now?have=0")[1])
        assert "record.json" in news["failure"]
        assert news["parts"]["now"]


@pytest.mark.usefixtures("without_vega")
def test_a_report_that_fails_is_told_until_it_is_made(study: Study, monkeypatch) -> None:
    watched = Watched(study, Folders(Path("runs/tiny"), Path("results")), Path("study.json"))
    watched._report = watched._report._replace(key="before")
    with monkeypatch.context() as patch:
        patch.setattr(serving, "analysed", lambda *_: Path("bench.json").read_text())
        watched.news("")
        watched._renewal.join()
        watched._next_report = float("inf")
        assert "bench.json" in watched.news("")["failure"]
    watched._next_report = 0.0
    watched.news("")
    watched._renewal.join()
    assert watched.news("")["failure"] == ""


WATCHING = """
import signal
import isoflop.report.page
from isoflop.cli import main
isoflop.report.page.vega_javascript = lambda: ""
# As a process that a shell starts: one in the background is deaf to it.
signal.signal(signal.SIGINT, signal.default_int_handler)
raise SystemExit(main(["watch", "study.json", "--port", "0"]))
"""


def test_ctrl_c_ends_it_with_zero(study: Study) -> None:
    command = [sys.executable, "-c", WATCHING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        said = started.stdout.readline()
        started.send_signal(signal.SIGINT)
        try:
            assert started.wait(60) == 0
        finally:
            started.kill()
    assert re.match(r"watching tiny: http://127.0.0.1:\d+/\n", said)


def test_status_live_prints_once_without_a_terminal(study: Study, capsys) -> None:
    assert main(["status", "study.json", "--live"]) == 0
    assert "3 pending" in capsys.readouterr().out
    assert main(["status", "study.json", "--live", "--json"]) == 2


def test_status_live_goes_on_until_all_is_done(study: Study, monkeypatch, capsys) -> None:
    found = status(study, Path("runs/tiny"))
    done = [row.model_copy(update={"state": "finished"}) for row in found.rows]
    looks = iter([found, found, found.model_copy(update={"rows": tuple(done)})])
    monkeypatch.setattr("isoflop.terminal.status.LIVE_SECONDS", 0.0)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    follow(looks.__next__, "isoflop run study.json")
    assert next(looks, None) is None
    assert "3 finished" in capsys.readouterr().out


def opened(browser, server: Server):
    tab = browser.new_page()
    tab.complaints = []
    tab.on("console", lambda said: tab.complaints.append(said.text))
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.goto(server.address)
    return tab


def test_the_page_renews_itself(study: Study, browser, tmp_path: Path) -> None:
    with served(study, TOKEN) as server:
        tab = opened(browser, server)
        with under_way(study):
            tab.wait_for_selector("#live-curves-now svg .mark-line path", timeout=20_000)
            assert "20 of 168" in tab.locator("table").first.inner_text()
        Place(tmp_path).run(study)
        tab.wait_for_selector("#live-loss-against-parameters svg", timeout=60_000)
        assert "Every run that the study needs" in tab.locator(".now").inner_text()
        assert tab.locator("img.still, .files").count() == 0
        assert tab.complaints == []


@pytest.mark.slow
def test_the_page_follows_real_training(study: Study, browser, tmp_path: Path) -> None:
    made = brief(tmp_path / "text.txt", ROUTED, budget=1.375e8).model_copy(update={"name": "tiny"})
    Path("study.json").write_text(made.model_dump_json())
    with served(made) as server:
        tab = opened(browser, server)
        command = [sys.executable, "-m", "isoflop", "run", "study.json"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as training:
            tab.wait_for_selector("#live-curves-now svg .mark-line path", timeout=120_000)
            assert training.wait(200) == 0
        tab.wait_for_selector("#live-loss-against-parameters svg", timeout=60_000)
        assert tab.complaints == []
