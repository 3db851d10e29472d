"""Checkpoints: bitwise round trips, damage, retention, failed saves."""

import errno
import math
import os
import pickle
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from isoflop import checkpoint, storage
from isoflop.checkpoint import latest, save
from isoflop.storage import StorageError

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


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x10
    path.write_bytes(data)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_tensors_and_values_come_back_bit_by_bit(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    floats = torch.randn(5, 7, generator=generator)
    floats[0, 0], floats[0, 1], floats[0, 2] = float("nan"), float("-inf"), -0.0
    quiet = torch.tensor([0x7FC00001, -1], dtype=torch.int32).view(torch.float32)
    tensors = {
        "float32": floats,
        "bfloat16": floats.bfloat16(),
        "float16": floats.half(),
        "float64": floats.double() / 3,
        "nan with payload": quiet,
        "int64": torch.tensor([2**63 - 1, -(2**63)]),
        "int32": torch.arange(11, dtype=torch.int32),
        "uint8": torch.arange(256, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5),
        "scalar bfloat16": torch.tensor(0.1, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3),
        "also empty": torch.empty(2, 0, dtype=torch.int64),
        "moments/é.exp_avg": floats * 2,
    }
    values = {"seconds": 0.1 + 0.2, "tokens": 2**60, "state": [1, None, {"a": "b"}], "n": 5e-324}
    save(folder, 123, tensors, values)
    found = latest(folder)
    assert found is not None
    assert found.step == 123
    assert found.values == values
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        back = found.tensors[name]
        assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape), name
        assert back.is_contiguous()
        if tensor.numel():
            assert bits(back) == bits(tensor), name
    assert names(folder) == ["step-00000123"]
    assert names(folder / "step-00000123") == ["manifest.json", "state.safetensors", "values.json"]


def test_shared_and_strided_tensors_come_back_as_separate_values(folder: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    parameter = torch.nn.Parameter(base.clone())
    tensors = {
        "base": base,
        "alias": base,
        "transposed": base.T,
        "column": base[:, 1],
        "rows": base[1:3],
        "expanded": torch.tensor([2.0]).expand(5),
        "conjugated": torch.tensor([1 + 2j]).conj(),
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


def test_loaded_tensors_can_be_written_without_touching_the_file(folder: Path) -> None:
    save(folder, 1, STATE, {})
    found = latest(folder)
    assert found is not None
    found.tensors["weight"].fill_(9)
    storage.verify_folder(folder / "step-00000001")
    again = latest(folder)
    assert again is not None
    assert torch.equal(again.tensors["weight"], STATE["weight"])


def test_nothing_saved_is_none(folder: Path) -> None:
    assert latest(folder) is None
    folder.mkdir(parents=True)
    assert latest(folder) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_json_cannot_hold_are_refused(folder: Path, value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        save(folder, 1, STATE, {"loss": value})
    assert latest(folder) is None


@pytest.mark.parametrize(("step", "keep"), [(-1, 2), (1, 0)])
def test_impossible_arguments_are_refused(folder: Path, step: int, keep: int) -> None:
    with pytest.raises(ValueError, match="expected step >= 0 and keep >= 1"):
        save(folder, step, STATE, {}, keep=keep)


# --- damage

DAMAGES = {
    "flipped tensor": lambda f: flip(f / "state.safetensors"),
    "flipped values": lambda f: flip(f / "values.json"),
    "truncated": lambda f: os.truncate(f / "state.safetensors", 40),
    "empty": lambda f: os.truncate(f / "state.safetensors", 0),
    "missing": lambda f: (f / "values.json").unlink(),
    "extra": lambda f: (f / "more").write_text("x"),
    "no manifest": lambda f: (f / "manifest.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_passed_over_loudly(folder: Path, damage: str) -> None:
    for step in (10, 20):
        save(folder, step, STATE, {"at": step})
    DAMAGES[damage](folder / "step-00000020")
    with pytest.warns(UserWarning, match="going back to step 10: .*step-00000020"):
        found = latest(folder)
    assert found is not None
    assert (found.step, found.values) == (10, {"at": 10})


def test_without_a_good_one_training_stops(folder: Path) -> None:
    for step in (10, 20):
        save(folder, step, STATE, {})
    for step in (10, 20):
        flip(folder / f"step-{step:08d}" / "state.safetensors")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is good .*00000020.*00000010"):
        latest(folder)


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


def test_a_pickle_is_never_executed(folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    def write(target: Path) -> None:
        (target / "state.safetensors").write_bytes(pickle.dumps(Payload()))
        (target / "values.json").write_text('{"step": 5, "values": {}}')

    storage.commit_folder(folder / "step-00000005", write)
    with pytest.raises(ValueError, match="no checkpoint"):
        latest(folder)
    assert not (tmp_path / "executed").exists()


# --- retention


def test_the_newest_two_are_kept(folder: Path) -> None:
    for step in (1, 2, 3, 4):
        save(folder, step, STATE, {})
    assert names(folder) == ["step-00000003", "step-00000004"]
    save(folder, 5, STATE, {}, keep=1)
    assert names(folder) == ["step-00000005"]


def test_the_newest_is_told_by_step_not_by_time(folder: Path) -> None:
    for step, seconds in ((30, 3e8), (9, 9e8), (100_000_000, 1e8)):
        save(folder, step, STATE, {}, keep=3)
        os.utime(folder / f"step-{step:08d}", (seconds, seconds))
    assert loaded_step(folder) == 100_000_000
    save(folder, 31, STATE, {}, keep=2)
    assert names(folder) == ["step-00000031", "step-100000000"]


def test_only_valid_ones_count_as_kept(folder: Path) -> None:
    for step in (1, 2, 3):
        save(folder, step, STATE, {}, keep=9)
    flip(folder / "step-00000003" / "state.safetensors")
    save(folder, 4, STATE, {}, keep=2)
    assert names(folder) == ["step-00000002", "step-00000004"]


def test_in_a_reused_folder_neither_the_newest_nor_the_newcomer_is_deleted(folder: Path) -> None:
    for step in (400, 500):
        save(folder, step, STATE, {})
    save(folder, 10, STATE, {}, keep=1)
    assert names(folder) == ["step-00000010", "step-00000500"]
    assert loaded_step(folder) == 500


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


# --- failed and killed saves


def test_leftovers_are_ignored_and_removed_by_the_next_save(folder: Path) -> None:
    save(folder, 10, STATE, {})
    (folder / ".tmp-0123").mkdir()
    (folder / ".tmp-0123" / "state.safetensors").write_bytes(b"half")
    assert loaded_step(folder) == 10
    save(folder, 20, STATE, {})
    assert names(folder) == ["step-00000010", "step-00000020"]


@pytest.mark.parametrize(
    ("call", "steps"),
    # The step found after a failure of the 1st, 2nd, ... call: the old one until the rename, the
    # new one when only the fsync of the parent or the pruning failed, or nothing did.
    [("write", [10, 20]), ("fsync", [10, 10, 10, 10, 20, 20]), ("replace", [10, 20, 20])],
)
def test_a_save_that_fails_leaves_the_old_checkpoint_or_the_new(
    folder: Path, call: str, steps: list[int]
) -> None:
    original = getattr(os, call)
    for nth, expected in enumerate(steps, start=1):
        place = folder / str(nth)
        save(place, 10, STATE, {})
        calls = []

        def failing(*args: object, calls: list[object] = calls, nth: int = nth) -> object:
            calls.append(args)
            if len(calls) == nth:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*args)

        last = nth == len(steps)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, call, failing)
            with nullcontext() if last else pytest.raises(StorageError, match="No space left"):
                save(place, 20, STATE, {}, keep=1)
        assert loaded_step(place) == expected
        assert not [name for name in names(place) if name.startswith(".tmp-")]


def test_a_full_disk_met_by_the_tensor_library_is_told_the_same_way(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tensors: object, path: Path) -> None:
        raise checkpoint.SafetensorError("I/O error: No space left on device (os error 28)")

    save(folder, 10, STATE, {})
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(StorageError, match=r"step-00000020: No space left.*bytes free") as caught:
        save(folder, 20, STATE, {})
    assert caught.value.errno == errno.ENOSPC
    assert names(folder) == ["step-00000010"]
    assert loaded_step(folder) == 10
