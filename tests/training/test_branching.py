"""A run that begins with the first steps of a shorter one is the run trained alone, bit for bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from told_apart import told_apart

from given import flip
from isoflop import checkpoint, storage
from isoflop.config import Cosine, Muon, RandomK, RunConfig, RunRecord, TopK, WarmupStableDecay
from isoflop.runs import RunFolder, RunStore
from isoflop.training import Interrupted, train

MakeRun = Callable[..., RunConfig]
SHARED = {"threads": 1, "compiled": False, "shares_up_to": 1e9}


@pytest.fixture
def runs(make_run: MakeRun) -> Callable[..., list[RunConfig]]:
    """Return runs of 5, 10 and 20 steps, which decay from step 4, 8 and 16 on."""

    def make(*args: Any, **recipe: object) -> list[RunConfig]:
        known: dict[str, object] = {"schedule": WarmupStableDecay(), "warmup_steps": 2, **recipe}
        made = make_run(*args, **known)
        return [
            made.model_copy(update={"steps": steps, "budget_flops": 1e7 * steps})
            for steps in (5, 10, 20)
        ]

    return make


class Places:
    """Where runs are trained that share their first steps, and where they are trained alone."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "cache"
        self.shared, self.alone = RunStore(folder / "shared"), RunStore(folder / "alone")

    def branch(self, config: RunConfig, **options: Any) -> RunRecord:
        folder = self.shared.folder(config.run_id)
        return train(config, folder, cache=self.cache, **{**SHARED, **options})

    def assert_as_alone(self, config: RunConfig) -> RunRecord:
        """Return the record, which but for what it tells of the parent is that of the run alone."""
        one, other = (store.folder(config.run_id) for store in (self.shared, self.alone))
        train(config, other, cache=self.cache, threads=1, compiled=False)
        (tensors, rows, record), (expected, right_rows, right) = _left(one), _left(other)
        assert tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensors[name], tensor), name
        assert len(rows) == config.steps
        for row, whole in zip(rows, right_rows, strict=True):
            assert whole | row == {**whole, **{k: row[k] for k in ("parent",) if k in row}}
        none = {"seconds": 0.0, "attempts": 1, "parent": None, "parent_step": 0}
        assert record.model_copy(update=none) == right.model_copy(update=none)
        return record


def _left(folder: RunFolder) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], RunRecord]:
    saved, record = checkpoint.latest(folder.checkpoints), folder.record()
    assert saved is not None
    assert record is not None
    rows, corrupt = folder.read_metrics()
    assert corrupt == 0
    return saved.tensors, [{k: v for k, v in row.items() if k != "seconds"} for row in rows], record


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.fixture
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("depth", "recipe", "chain"),
    [
        (None, {}, 3),
        (TopK(capacity=0.25, router_bce=0.01), {"schedule": WarmupStableDecay(decay="sqrt")}, 2),
        (RandomK(capacity=0.5), {"optimiser": Muon()}, 2),
    ],
    ids=["dense", "top_k", "random, muon"],
)
def test_each_branch_of_a_chain_is_the_run_trained_alone(
    runs: Callable[..., list[RunConfig]],
    places: Places,
    depth: Any,
    recipe: dict[str, object],
    chain: int,
) -> None:
    parent, step = None, 0
    for config in runs(depth, **recipe)[:chain]:
        places.branch(config)
        record = places.assert_as_alone(config)
        assert (record.parent, record.parent_step) == (parent, step)
        spent = record.train_flops["causal"] * (1 - step / config.steps)
        assert record.spent_flops == pytest.approx(spent)
        rows = places.shared.folder(config.run_id).read_metrics()[0]
        assert [row.get("parent") for row in rows] == [parent] * step + [None] * (len(rows) - step)
        parent, step = config.run_id, config.stable_steps
    assert step == {3: 16, 2: 8}[chain]


def test_looks_at_validation_are_those_of_the_run_itself(
    runs: Callable[..., list[RunConfig]], places: Places
) -> None:
    middle, long = (told_apart(config) for config in runs()[1:])
    places.branch(middle)
    places.branch(long)
    places.assert_as_alone(long)
    rows = _left(places.shared.folder(long.run_id))[1]
    # The shorter run looked after 2, 5 and 7 steps, or so; of its own first look at 5 it has that.
    assert [row["step"] for row in rows if "validation" in row] == [5, 10, 15]
    assert rows[0]["span_losses"]


def test_killed_at_any_step_and_in_the_copy_it_goes_on(
    runs: Callable[..., list[RunConfig]], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, middle, _ = runs()

    def stop_after(steps: int) -> Callable[[], bool]:
        countdown = iter(range(steps - 1, -1, -1))
        return lambda: next(countdown) == 0

    # The last stop is at the step that is kept, before it is.
    for steps in (1, 3):
        with pytest.raises(Interrupted):
            places.branch(short, stop=stop_after(steps))
    assert not places.shared.folder(short.run_id).stable.exists()
    places.branch(short)
    folder = places.shared.folder(middle.run_id)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("isoflop.checkpoint._write_tensors", killed)
        with pytest.raises(KeyboardInterrupt):
            places.branch(middle)
    assert len(folder.read_metrics()[0]) == 4
    assert checkpoint.newest_step(folder.checkpoints) == 0
    with pytest.raises(Interrupted, match="stopped at step 6 of 10"):
        places.branch(middle, stop=stop_after(2))
    assert [one.step for one in folder.attempts_made()] == [4]
    # What it shares is its own by now.
    storage.discard(places.shared.folder(short.run_id).stable)
    places.branch(middle)
    record = places.assert_as_alone(middle)
    assert (record.parent, record.parent_step, record.attempts) == (short.run_id, 4, 2)


def _damaged(parent: RunFolder) -> None:
    flip(next(parent.stable.glob("*/state.safetensors")))


def _torn(parent: RunFolder) -> None:
    lines = (parent.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (parent.path / "metrics.jsonl").write_bytes(
        lines[0] + lines[1][:9] + b"\n" + b"".join(lines[2:])
    )


def _elsewhere(parent: RunFolder) -> None:
    pinned = parent.pinned()
    assert pinned is not None
    other = pinned.model_copy(
        update={"environment": pinned.environment.model_copy(update={"torch": "0"})}
    )
    storage.write_json(parent.path / "pinned.json", other.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_damaged, "no checkpoint in .* is good .*state.safetensors is damaged"),
        (_torn, "lacks some of them"),
        (_elsewhere, r"another environment \(torch 0 -> "),
    ],
)
def test_what_is_not_the_same_is_trained_from_zero_with_a_warning(
    runs: Callable[..., list[RunConfig]],
    places: Places,
    harm: Callable[[RunFolder], None],
    why: str,
) -> None:
    short, middle, _ = runs()
    places.branch(short)
    harm(places.shared.folder(short.run_id))
    with pytest.warns(UserWarning, match=f"first 4 steps are not those of run .*: .*{why}"):
        places.branch(middle)
    assert places.assert_as_alone(middle).parent is None


def test_what_was_found_out_for_a_run_holds_for_its_branches(
    runs: Callable[..., list[RunConfig]], places: Places
) -> None:
    short, middle, long = runs()
    places.branch(short, micro_batch_tokens=32)
    record = places.branch(middle)
    assert (record.parent, record.environment.micro_batch) == (short.run_id, 2)
    with pytest.warns(UserWarning, match=r"in another environment \(micro_batch 2 -> 1\)"):
        assert places.branch(long, micro_batch_tokens=16).parent is None


@pytest.mark.usefixtures("quiet")
def test_without_a_state_or_with_another_stem_a_run_is_trained_from_zero(
    runs: Callable[..., list[RunConfig]], places: Places
) -> None:
    short, middle, _ = runs()
    places.branch(short.model_copy(update={"seed": 1}))
    places.branch(short, shares_up_to=None)
    assert not places.shared.folder(short.run_id).stable.exists()
    assert places.branch(middle).parent is None


@pytest.mark.parametrize(
    "recipe",
    [
        {"schedule": Cosine()},
        {"warmup_steps": None},
        {"average_half_life": 0.1},
        {"warmup_steps": 5},
    ],
    ids=str,
)
def test_what_depends_on_the_length_is_not_shared(
    runs: Callable[..., list[RunConfig]], recipe: dict[str, object]
) -> None:
    assert runs(**recipe)[0].stable_steps == 0
