"""A study's precision is settled when it is started first, written down, and kept."""

from __future__ import annotations

import json
import os
import threading
from functools import partial
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

import sweep_studies as tinies
from isoflop import storage
from isoflop.config import Precision, PrecisionChoice, Study
from isoflop.planning import next_runs
from isoflop.sweep import kept_precision, settled
from isoflop.sweep.local.probes import measure_apart, told
from isoflop.sweep.precision import PRECISION, first_runs, read_choice, settle
from isoflop.sweep.report import export_study
from sweep_studies import Place, machine, tiny

SETTLED: tuple[Precision, Precision] = ("bf16", "fp32")
CHOOSE = "isoflop.sweep.precision.choose_precision"
WITHOUT_UNITS, WITH_UNITS = machine(1 / 32), machine(8.0, "x86_64 With Units")


def auto(corpus: Path) -> Study:
    return tiny(corpus, recipe={"precision": "auto"})


def run(place: Place, study: Study, here: PrecisionChoice | ValueError) -> str:
    """Train the study on a machine whose speeds are made up; return what was said, on one line."""
    place.said = ""
    measure = Mock(side_effect=[here])
    place.run(study, workers=1, measure=measure)
    return place.said.replace("\n", " ")


def precisions(place: Place) -> set[str]:
    return {record.config.recipe.precision for record in place.store.records()}


def test_it_is_settled_by_the_machine_written_down_and_exported(
    corpus: Path, place: Place, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"recipe\.precision is 'auto' and not settled yet"):
        next_runs(auto(corpus), [])
    said = run(place, auto(corpus), WITHOUT_UNITS)
    assert (
        "precision fp32: matrix products 92 GFLOP/s, in bf16 2.88; attention 40, in bf16 1.25 "
        "(x86_64 Made Up, 1 thread)"
    ) in said
    assert precisions(place) == {"fp32"}
    assert read_choice(place.root) == WITHOUT_UNITS
    assert json.loads((place.root / "study.json").read_text())["recipe"]["precision"] == "fp32"
    kept = kept_precision(auto(corpus), place.root)
    assert kept is not None
    assert place.results / "tiny" / PRECISION in export_study(kept.study, place.root, place.results)
    elsewhere = settled(auto(corpus), tmp_path / "elsewhere", place.results)
    for one in (kept, elsewhere):
        assert (one.precision, one.choice) == ("fp32", WITHOUT_UNITS)


def test_another_machine_keeps_it_and_tells_how_slow_it_is(corpus: Path, place: Place) -> None:
    run(place, auto(corpus), WITH_UNITS)
    assert precisions(place) == {"bf16"}
    more = tiny(corpus, tinies.BASELINE, tinies.ROUTED, recipe={"precision": "auto"})
    said = run(place, more, WITHOUT_UNITS)
    assert precisions(place) == {"bf16"}
    assert read_choice(place.root) == WITH_UNITS
    assert f"precision bf16, as in {place.root / PRECISION}" in said
    assert "precision bf16 is 32 times as slow as fp32 on this machine" in said
    assert "(matrix products 2.88 GFLOP/s, in fp32 92; attention 1.25, in fp32 40)" in said
    assert 'To start anew: precision = "fp32" under [recipe], and another name' in said
    assert "changed since" not in said.split("variants.MoD added")[1]
    # Where it is not slow nothing is warned of.
    fewer = tiny(corpus, tinies.ROUTED, recipe={"precision": "auto"})
    assert "times as slow" not in run(place, fewer, machine(1.2))


def test_precisions_are_never_mixed_silently(corpus: Path, place: Place) -> None:
    run(place, auto(corpus), WITHOUT_UNITS)
    fp32 = {folder.path.name for folder in place.store.folders()}
    said = run(place, tiny(corpus, recipe={"precision": "bf16"}), WITHOUT_UNITS)
    assert 'recipe.precision: "fp32" -> "bf16"' in said
    assert "0 of the runs recorded so far are part of it as it is now" in said
    assert "its runs are trained in bf16 from now on; those in another precision stay" in said
    assert "precision bf16 is 32 times as slow as fp32" in said
    bf16 = {folder.path.name for folder in place.store.folders()} - fp32
    assert len(bf16) == len(fp32)
    assert precisions(place) == {"bf16", "fp32"}
    # Back at auto, what settled it first holds again.
    said = run(place, auto(corpus), WITH_UNITS)
    assert 'recipe.precision: "bf16" -> "fp32"' in said


def test_only_a_study_that_is_to_be_settled_needs_a_measurement(corpus: Path, place: Place) -> None:
    broken = ValueError("which precision is faster here could not be measured: it broke")
    with pytest.raises(ValueError, match="it broke"):
        run(place, auto(corpus), broken)
    assert not place.root.exists()
    said = run(place, tiny(corpus, recipe={"precision": "fp32"}), broken)
    assert "precision fp32, as the study says" in said
    assert read_choice(place.root) is None
    assert "warning: which precision is faster here could not be measured: it broke" in said
    assert precisions(place) == {"fp32"}


def test_the_first_of_several_starts_settles_it(tmp_path: Path) -> None:
    choices = [machine(1 / 32 if n % 2 else 8.0, f"machine {n}") for n in range(8)]
    barrier = threading.Barrier(len(choices))
    found = []

    def start(choice: PrecisionChoice) -> None:
        barrier.wait()
        found.append(settle(auto(tmp_path / "text.txt"), tmp_path / "study", choice))

    threads = [threading.Thread(target=start, args=(choice,)) for choice in choices]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = read_choice(tmp_path / "study")
    assert written in choices
    assert {one.choice.machine for one in found if one.choice} == {written.machine}
    assert {one.precision for one in found} == {written.precision}
    assert [path.name for path in (tmp_path / "study").iterdir()] == [PRECISION]


@pytest.mark.parametrize("precision", SETTLED)
@pytest.mark.parametrize("where", ["study", "results/tiny"])
def test_what_was_trained_before_keeps_its_precision(
    tmp_path: Path, where: str, precision: Precision
) -> None:
    study = auto(tmp_path / "text.txt")
    old = study.with_precision(precision)
    storage.write_json(tmp_path / where / "study.json", old.model_dump(mode="json"))
    places = tmp_path / "study", tmp_path / "results"
    with patch(CHOOSE, side_effect=AssertionError):
        found = settled(study, *places)
    assert (found.precision, found.choice) == (precision, None)
    assert found.study == old


def test_before_it_is_started_what_is_faster_here_is_assumed_and_not_kept(tmp_path: Path) -> None:
    study = auto(tmp_path / "text.txt")
    for here in (WITH_UNITS, WITHOUT_UNITS):
        with patch(CHOOSE, return_value=here):
            found = settled(study, tmp_path / "study")
        assert (found.precision, found.choice) == (here.precision, here)
    assert not (tmp_path / "study").exists()


def test_it_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    runs = first_runs(auto(tmp_path / "text.txt"))
    found = measure_apart(runs, device="cpu", threads=1, environment={})
    assert found.speeds is not None
    assert found.precision == found.speeds.faster
    with pytest.raises(ValueError, match=r"could not be measured: RuntimeError: .*nonsense"):
        measure_apart(runs, device="nonsense", threads=1, environment={})


def killed(folder: Path, times: int) -> int:
    """End as what is killed does, the first so many times; return which time this is."""
    (folder / f"{(before := len(list(folder.iterdir())))}").touch()
    return before if before >= times else os.abort()


def test_what_is_killed_while_it_measures_is_asked_once_more(tmp_path: Path) -> None:
    assert told([{}], partial, killed, tmp_path, 1) == [1]
    with pytest.raises(ValueError, match="ended without a word"):
        told([{}], partial, killed, tmp_path, 9)
    assert len(list(tmp_path.iterdir())) == 4
