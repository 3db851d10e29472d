"""What is learned does not depend on how many processes share the sequences of a step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from told_apart import told_apart

from isoflop import storage
from isoflop.config import (
    AdamW,
    Attention,
    BlockAttention,
    Depth,
    EveryToken,
    FullAttention,
    Muon,
    RandomK,
    RunConfig,
    TopK,
)
from isoflop.hardware.ranks import Place, place
from isoflop.model import build
from isoflop.training import Trainer, initialise, joined
from isoflop.training.ranks import Ranks
from isoflop.training.state import state_of
from several_ranks import run_ranks

MakeRun = Callable[..., RunConfig]
STEPS = 50
DEPTHS: dict[str, Depth] = {
    "every token": EveryToken(),
    "top-k": TopK(capacity=0.25, router_bce=0.01),
    "random-k": RandomK(capacity=0.25),
}
ATTENTIONS: dict[str, Attention] = {
    "full": FullAttention(),
    "blocks": BlockAttention(block_size=4, top_k=2, full_from=0.5, key_convolution=3),
}
OPTIMISERS = {"AdamW": AdamW(), "Muon": Muon()}
QUICK = ("every token full AdamW", "top-k blocks Muon", "random-k full AdamW", "top-k full AdamW")


def of_name(name: str, even: bool = False) -> RunConfig:
    """Return the run that a depth, an attention and an optimiser name; five sequences a step.

    Six where all ranks are to hold as many, so that each goes forward as often.
    """
    from given import RECIPE, small_model
    from isoflop.config import DataConfig

    depth, attention, optimiser = next(
        (d, a, o) for d in DEPTHS for a in ATTENTIONS for o in OPTIMISERS if f"{d} {a} {o}" == name
    )
    model = small_model(blocks=4, depth=DEPTHS[depth], attention=ATTENTIONS[attention])
    recipe = RECIPE.model_copy(
        update={"optimiser": OPTIMISERS[optimiser], "average_half_life": 0.1}
    )
    return told_apart(
        RunConfig(
            model=model,
            data=DataConfig(corpus="nowhere", sequence_length=16),
            recipe=recipe,
            steps=STEPS,
            sequences_per_step=6 if even else 5,
        )
    )


def learn(config: RunConfig, ranks: Ranks, steps: int, sharded: bool = False) -> dict[str, Any]:
    """Train on random tokens and return all that each step measured, and the state at the end."""
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(
        model, config, compiled=False, micro_batch=2, ranks=replace(ranks, sharded=sharded)
    )
    measured = []
    for index in range(steps):
        generator = torch.Generator().manual_seed(index)
        tokens = torch.randint(256, (config.sequences_per_step, 17), generator=generator)
        result = trainer.step(tokens, index, 1.0)
        measured.append([result.loss, result.gradient_norm, result.predictor_norm])
        routing = [value for values in result.routing.values() for value in values]
        measured[-1] += [*result.span_losses, *routing]
    ranks.check_alike(list(model.parameters()), steps)
    return {"measured": measured, "weights": {k: v.tolist() for k, v in state_of(trainer).items()}}


def learn_all(names: tuple[str, ...], steps: int, out: Path, sharded: bool) -> None:
    """What a rank does: learn each of these with the others."""
    with joined("cpu", 60) as ranks:
        for name in names:
            found = learn(of_name(name, sharded), ranks, steps, sharded)
            if ranks.leads:
                storage.write_json(out / f"{name}.json", found)


def assert_learned_alike(
    names: tuple[str, ...], steps: int, out: Path, sharded: bool = False
) -> None:
    run_ranks(2, learn_all, names, steps, out, sharded)
    for name in names:
        found = json.loads((out / f"{name}.json").read_text())
        alone = learn(of_name(name, sharded), Ranks(), steps)
        measured, expected = torch.tensor(found["measured"]), torch.tensor(alone["measured"])
        torch.testing.assert_close(measured[:, 0], expected[:, 0], rtol=1e-5, atol=0, msg=name)
        torch.testing.assert_close(measured, expected, rtol=1e-3, atol=1e-4, msg=name)
        for key, weights in alone["weights"].items():
            here = torch.tensor(found["weights"][key])
            torch.testing.assert_close(here, torch.tensor(weights), rtol=1e-3, atol=1e-4)


def test_two_ranks_learn_what_one_does(tmp_path: Path) -> None:
    """Unequal shares of five sequences, two at a time."""
    assert_learned_alike(QUICK, 4, tmp_path)


def test_two_ranks_learn_the_same_with_a_part_of_the_blocks_each(tmp_path: Path) -> None:
    assert_learned_alike(QUICK, 4, tmp_path, sharded=True)


@pytest.mark.slow
def test_two_ranks_learn_what_one_does_in_every_combination(tmp_path: Path) -> None:
    names = tuple(f"{d} {a} {o}" for d in DEPTHS for a in ATTENTIONS for o in OPTIMISERS)
    assert_learned_alike(names, STEPS, tmp_path)
    assert_learned_alike(names, STEPS, tmp_path, sharded=True)


SLURM = {"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "2"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_PORT": "7"},
            Place(1, 2, 1, "localhost", 7),
        ),
        # A batch script is told of a job's tasks, and is none of them.
        ({**SLURM, "SLURM_NTASKS": "8"}, None),
        (
            {**SLURM, "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "gpu[003-005,9]-a,x"},
            Place(5, 8, 1, "gpu003-a", 15000 + 64 * 77 + 2),
        ),
        (
            {**SLURM, "SLURM_STEP_NUM_TASKS": "8", "SLURM_JOB_NODELIST": "head,gpu[1-2]"},
            Place(5, 8, 1, "head", 15000 + 64 * 77 + 2),
        ),
    ],
)
def test_a_rank_knows_its_place(environ: dict[str, str], expected: Place | None) -> None:
    assert place(environ) == expected


@pytest.mark.parametrize(("sequences", "world"), [(5, 2), (4, 4), (7, 3)])
def test_shares_of_a_step_differ_by_one_at_most(sequences: int, world: int) -> None:
    rows = [list(range(sequences))[Ranks(rank, world).rows(sequences)] for rank in range(world)]
    assert sum(rows, []) == list(range(sequences))  # noqa: RUF017
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_more_ranks_than_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="4 ranks share 3 sequences of a step"):
        Ranks(0, 4).rows(3)
