"""Checkpoints: tensors and plain values to files and back, bit by bit, without any pickle.

A checkpoint is a folder `step-00000123` holding `state.safetensors`, `values.json` and a SHA-256
manifest, committed whole by `storage.commit_folder`. Which one is newest is told by the step in
its name, never by a clock. A step saved again gets a serial number (`step-00000123-1`), since
nothing committed is ever overwritten.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from isoflop import storage
from isoflop.storage import JSON

TENSORS, VALUES = "state.safetensors", "values.json"


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: tensors on the CPU, and values as JSON gives them back."""

    step: int
    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


def _saved(folder: Path) -> list[tuple[int, int, Path]]:
    """Return step, serial number and folder of the checkpoints in `folder`, newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = [re.fullmatch(r"step-(\d{8,18})(?:-(\d{1,9}))?", name) for name in names]
    return sorted(
        ((int(one[1]), int(one[2] or 0), folder / one[0]) for one in found if one), reverse=True
    )


def newest_step(folder: Path) -> int:
    """Return the step of the newest checkpoint in `folder`, good or not; 0 while there is none."""
    return max((step for step, _, _ in _saved(folder)), default=0)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors on the CPU, contiguous, no two of them in the same memory."""
    separate = {}
    seen = set()
    for name, tensor in tensors.items():
        # A conjugated or negated view holds the bits of its base, and only says what it is.
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        memory = plain.untyped_storage().data_ptr()
        if memory in seen and plain.numel():
            plain = plain.clone()
        seen.add(memory)
        separate[name] = plain
    return separate


def _write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    try:
        save_file(_separate(tensors), path)
    except SafetensorError as error:
        # The library tells the system's error in words only; storage wants the number.
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise ValueError(f"the state cannot be saved: {error}") from error
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error


def save(
    folder: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    values: Mapping[str, JSON],
    keep: int = 2,
    confirm: Callable[[], None] = lambda: None,
) -> None:
    """Commit a checkpoint of `step` in `folder`, then prune to the `keep` newest valid ones.

    The checkpoint just saved stays in any case. `values` must be finite, since JSON has no NaN.
    For one writer at a time: unfinished folders of killed writers are removed. `confirm` is called
    right before the checkpoint appears; what it raises stops the commit. Raises StorageError naming
    the path and the free bytes; earlier checkpoints are then untouched.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step is {step} and keep is {keep}; expected step >= 0 and keep >= 1")
    text = json.dumps({"step": step, "values": dict(values)}, allow_nan=False)
    storage.make_folder(folder)
    storage.remove_leftovers(folder)
    serial = max((before for at, before, _ in _saved(folder) if at == step), default=-1) + 1
    target = folder / (f"step-{step:08d}" + (f"-{serial}" if serial else ""))

    def write(temporary: Path) -> None:
        _write_tensors(temporary / TENSORS, tensors)
        (temporary / VALUES).write_text(text)

    storage.commit_folder(target, write, confirm)
    _prune(folder, target, keep)


def _prune(folder: Path, newcomer: Path, keep: int) -> None:
    kept = 0
    for _, _, saved in _saved(folder):
        try:
            # The newcomer was hashed a moment ago; beyond `keep` nothing needs to be read.
            good = saved == newcomer or (kept < keep and _is_valid(saved))
        except OSError:
            # Unreadable now is no proof of damage: it is left for `latest` to judge.
            continue
        if good:
            kept += 1
        else:
            storage.discard(saved)


def _is_valid(saved: Path) -> bool:
    try:
        storage.verify_folder(saved)
    except ValueError:
        return False
    return True


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest valid checkpoint in `folder`, None when none was ever saved.

    Warns of every newer one that is damaged. Raises ValueError when there are checkpoints but
    none is good: training never restarts from zero unasked.
    """
    faults = []
    for step, _, saved in _saved(folder):
        try:
            checkpoint = _load(saved, step)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        for fault in faults:
            warnings.warn(
                f"damaged checkpoint, going back to step {checkpoint.step}: {fault}", stacklevel=2
            )
        return checkpoint
    if faults:
        raise ValueError(
            f"no checkpoint in {folder} is good ({'; '.join(faults)}); restore one, or remove the "
            "folder to start from zero"
        )
    return None


def _load(saved: Path, step: int) -> Checkpoint:
    storage.verify_folder(saved)
    content = storage.read_json(saved / VALUES)
    match content:
        case {"step": int(at), "values": dict(values)} if at == step:
            pass
        case _:
            raise ValueError(f"{saved / VALUES} does not hold the values of {saved.name}")
    try:
        tensors = load_file(saved / TENSORS)
    except SafetensorError as error:
        raise ValueError(f"{saved / TENSORS} is not readable: {error}") from None
    return Checkpoint(step, tensors, values)
