"""Checkpoints: bitwise round trips, damage, retention, failed saves."""

import errno
import math
import os
from pathlib import Path

import pytest
import torch

from given import flip
from isoflop import storage
from isoflop.checkpoint import latest, save

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(7)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoint"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def loaded_step(folder: Path) -> int:
    found = latest(folder)
    assert found is not None
    return found.step


def test_shared_tensors_come_back_as_values_of_their_own(folder: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(base.clone())
    tensors = {
        "base": base,
        "alias": base,
        "column": base[:, 1],
        "expanded": torch.tensor([2.0]).expand(5),
        "negated": torch.tensor([1 + 2j]).conj().imag,
        "head": parameter,
        "embedding": parameter,
    }
    save(folder, 1, tensors, {})
    found = latest(folder)
    assert found is not None
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor), name
        assert found.tensors[name].shape == tensor.shape
    found.tensors["base"].add_(1)
    assert torch.equal(found.tensors["alias"], base)
    # Nor does it touch the file.
    storage.verify_folder(folder / "step-00000001")
    again = latest(folder)
    assert again is not None
    assert torch.equal(again.tensors["base"], base)


def test_nothing_saved_is_none(folder: Path) -> None:
    assert latest(folder) is None
    folder.mkdir(parents=True)
    assert latest(folder) is None


@pytest.mark.parametrize(
    ("values", "step", "keep", "message"),
    [
        ({"loss": math.nan}, 1, 2, "JSON"),
        ({"loss": math.inf}, 1, 2, "JSON"),
        ({}, -1, 2, "expected step >= 0 and keep >= 1"),
        ({}, 1, 0, "expected step >= 0 and keep >= 1"),
    ],
)
def test_what_cannot_be_saved_is_refused(folder: Path, values, step, keep, message) -> None:
    with pytest.raises(ValueError, match=message):
        save(folder, step, STATE, values, keep=keep)
    assert latest(folder) is None


# --- damage


def test_an_unreadable_newest_is_passed_over_loudly(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (10, 20):
        save(folder, step, STATE, {})
    describe = storage.hashlib.file_digest

    def failing(file: object, name: str) -> object:
        if "step-00000020" in os.readlink(f"/proc/self/fd/{file.fileno()}"):  # type: ignore[attr-defined]
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return describe(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(storage.hashlib, "file_digest", failing)
    with pytest.warns(UserWarning, match="Input/output error"):
        assert loaded_step(folder) == 10
    # Nor is it deleted: unreadable now is no proof of damage.
    save(folder, 30, STATE, {}, keep=2)
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"]


def test_a_renamed_checkpoint_is_refused(folder: Path) -> None:
    save(folder, 10, STATE, {})
    (folder / "step-00000010").rename(folder / "step-00000099")
    with pytest.raises(ValueError, match="does not hold the values of step-00000099"):
        latest(folder)


# --- retention


def test_the_newest_two_are_kept(folder: Path) -> None:
    for step in (1, 2, 3, 4):
        save(folder, step, STATE, {})
    assert names(folder) == ["step-00000003", "step-00000004"]
    save(folder, 5, STATE, {}, keep=1)
    assert names(folder) == ["step-00000005"]


def test_a_damaged_one_ahead_is_superseded(folder: Path) -> None:
    for step in (10, 20):
        save(folder, step, STATE, {})
    flip(folder / "step-00000020" / "state.safetensors")
    save(folder, 11, STATE, {})
    assert names(folder) == ["step-00000010", "step-00000011"]
    assert loaded_step(folder) == 11


@pytest.mark.parametrize("damaged", [True, False])
def test_a_step_saved_again_is_the_newest_and_overwrites_nothing(
    folder: Path, damaged: bool
) -> None:
    save(folder, 20, STATE, {"try": 1})
    if damaged:
        flip(folder / "step-00000020" / "state.safetensors")
    save(folder, 20, STATE, {"try": 2})
    found = latest(folder)
    assert found is not None
    assert (found.step, found.values) == (20, {"try": 2})
    save(folder, 20, STATE, {"try": 3}, keep=1)
    assert names(folder) == ["step-00000020-2"]
