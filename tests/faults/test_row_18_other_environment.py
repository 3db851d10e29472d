"""Row 18. Fault: another torch, or another number of threads, when a run goes on.

Injected: a run is stopped and goes on under a torch of another version and with more threads.
Expected: threads are put back; the version is warned of and recorded, exactness is not claimed, and
the report's page flags a study in which some runs were made so.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from one_tiny_run import Tiny

from isoflop.report.words.provenance import mixed_environments
from isoflop.runs import RunFolder


def test_row_18_another_torch_is_warned_of_recorded_and_flagged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = Tiny.of(tmp_path, steps=20)
    folder, alike = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "alike")
    right = tiny.train(alike)
    assert right.resumed_under == ()
    assert "resumed_under" not in (alike.path / "record.json").read_text()

    tiny.stop(folder, 5)
    version = torch.__version__
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    with pytest.warns(UserWarning, match=r"torch .* -> 9\.9\.9.*equality is not promised"):
        record = tiny.train(folder, threads=2)
    assert torch.get_num_threads() == 1
    assert (record.environment.torch, record.environment.threads) == (version, 1)
    assert [one.torch for one in record.resumed_under] == ["9.9.9"]
    assert RunFolder(folder.path).record() == record

    found = {version: 1, f"{version}, then 9.9.9": 1}
    assert mixed_environments([right, record]) == {"version of torch": found}
    assert mixed_environments([record])
    assert not mixed_environments([right])
