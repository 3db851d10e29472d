"""What is learned does not depend on how many processes share the sequences of a step."""

from __future__ import annotations

from pathlib import Path

import pytest
from told_apart import told_apart

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
from isoflop.training.ranks import Ranks
from several_ranks import assert_learned_alike

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


def test_two_ranks_learn_what_one_does(tmp_path: Path) -> None:
    """Unequal shares of five sequences, two at a time."""
    assert_learned_alike(of_name, QUICK, 4, tmp_path)


def test_two_ranks_learn_the_same_with_a_part_of_the_blocks_each(tmp_path: Path) -> None:
    assert_learned_alike(of_name, QUICK, 4, tmp_path, sharded=True)


@pytest.mark.slow
def test_two_ranks_learn_what_one_does_in_every_combination(tmp_path: Path) -> None:
    names = tuple(f"{d} {a} {o}" for d in DEPTHS for a in ATTENTIONS for o in OPTIMISERS)
    assert_learned_alike(of_name, names, STEPS, tmp_path)
    assert_learned_alike(of_name, names, STEPS, tmp_path, sharded=True)


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
