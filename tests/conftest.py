"""A small routed model that has learned its text, where random weights are not enough."""

from __future__ import annotations

import gc
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from given import RECIPE, small_model
from isoflop.config import DataConfig, RunConfig, TopK

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from learned import Trained

# No test is a timing: a busy machine takes longer over an example, and that is no fault.
settings.register_profile("isoflop", deadline=None)
settings.load_profile("isoflop")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train a model of four blocks, two of them routed, for some seconds: once for all workers."""
    import torch
    from filelock import FileLock

    from isoflop.data import prepare
    from isoflop.runs import RunFolder
    from isoflop.training import load_model, train
    from learned import WORDS, Trained

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    root = root / "learned"
    root.mkdir(exist_ok=True)
    corpus = root / "corpus"
    data = DataConfig(
        corpus=str(corpus),
        sequence_length=32,
        validation_fraction=0.1,
        test_fraction=0.1,
    )
    config = RunConfig(
        model=small_model(
            vocabulary=data.vocabulary,
            width=24,
            blocks=4,
            heads=3,
            hidden=40,
            depth=TopK(capacity=0.25, router_bce=0.01),
        ),
        data=data,
        recipe=RECIPE,
        steps=150,
        sequences_per_step=8,
        evaluation_tokens=1000,
    )
    folder = RunFolder(root / "run")
    before = torch.get_num_threads()
    with FileLock(root / "lock"):
        if not corpus.exists():
            corpus.mkdir()
            draw = random.Random(0)
            for index in range(60):
                (corpus / f"{index:02}.txt").write_text(" ".join(draw.choices(WORDS, k=150)))
        # A finished run is not trained again.
        train(config, folder, cache=root / "cache", threads=1)
    torch.set_num_threads(before)
    test = prepare(data, root / "cache").split("test")
    return Trained(load_model(folder), config, test, folder, root / "cache")


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium; skip where there is none."""
    # Continuous integration sets it, so that these tests are never skipped there.
    required = bool(os.environ.get("ISOFLOP_REQUIRE_BROWSER"))
    if required:
        import playwright.sync_api as playwright
    else:
        reason = "needs playwright: pip install -e '.[dev]'"
        playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as started:
        known = [shutil.which(name) for name in CHROMIUM] + [started.chromium.executable_path]
        path = next((one for one in known if one and Path(one).exists()), None)
        if path is None:
            missing = pytest.fail if required else pytest.skip
            missing("no Chromium: install the package chromium, or run playwright install")
        opened = started.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the very last line what was not tested for want of a browser."""
    # Workers have no reporter.
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    number = sum("no Chromium" in str(report.longrepr) for report in skipped)
    if number:
        reporter.write_line(
            f"{number} browser tests skipped: no Chromium; apt-get install chromium"
        )


def pytest_collection_finish() -> None:
    """Keep what was imported out of collections of garbage, which else take 6% of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
