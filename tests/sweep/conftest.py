from pathlib import Path

import pytest

from sweep_studies import Place, write_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "text.txt")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
