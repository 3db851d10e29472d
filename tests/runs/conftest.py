from pathlib import Path

import pytest
from one_run import CONFIG

from isoflop.runs import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "runs" / CONFIG.run_id)
    folder.create(CONFIG)
    return folder
