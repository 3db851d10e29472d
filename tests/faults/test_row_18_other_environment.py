"""Row 18. Fault: another torch, or another number of threads, when a run goes on.

Injected: a run is stopped and goes on under a torch of another version and with more threads.
Expected: threads are put back; the version is warned of and recorded, exactness is not claimed, and
the report's page flags a study in which some runs were made so.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from one_tiny_run import tiny_run

from isoflop.report.words.provenance import mixed_environments
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, train


def test_row_18_another_torch_is_warned_of_recorded_and_flagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, cache = tiny_run(tmp_path, steps=20), tmp_path / "cache"
    folder, alike = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "alike")
    right = train(config, alike, cache=cache, threads=1)
    assert right.resumed_under == ()
    assert "resumed_under" not in (alike.path / "record.json").read_text()

    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        train(config, folder, cache=cache, threads=1, stop=lambda: next(steps) == 5)
    version = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with pytest.warns(UserWarning, match=r"torch .* -> 9\.9\.9.*equality is not promised"):
        record = train(config, folder, cache=cache, threads=2)
    assert torch.get_num_threads() == 1
    assert (record.environment.torch, record.environment.threads) == (version, 1)
    assert [one.torch for one in record.resumed_under] == ["9.9.9"]
    assert RunFolder(folder.path).record() == record

    (mixed,) = mixed_environments([right, record])
    assert mixed.what == "version of torch"
    assert dict(mixed.values) == {version: 1, f"{version}, then 9.9.9": 1}
    assert mixed_environments([record]) != ()
    assert mixed_environments([right]) == ()
