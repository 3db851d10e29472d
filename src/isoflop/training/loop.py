"""One loop for every variant: train a run in its folder, from wherever it stands, to its record."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from pydantic import InstanceOf

from isoflop import checkpoint
from isoflop.config import AttentionKernel, Environment, Frozen, Recompute, RunConfig, RunRecord
from isoflop.data import Tell, prepare
from isoflop.memory import MicroBatch
from isoflop.model import Transformer, build
from isoflop.runs import Progress, RunClaimed, RunFolder
from isoflop.storage import StorageError
from isoflop.training.attending import fastest_attention
from isoflop.training.compiling import compiles_by_default, compiling_fault
from isoflop.training.environment import environment, settle
from isoflop.training.fitting import Shard, fitted, is_roomy
from isoflop.training.memory import keep_freed_memory, limited_memory
from isoflop.training.ranks import ALONE, Ranks
from isoflop.training.run import Interrupted, Run
from isoflop.training.state import branch, newest_checkpoint, started_in, tensors_under

REASON_CHARACTERS = 500
"""Of an exception's text kept as the reason of a failed attempt."""


class RunExecution(Frozen):
    """How a run is executed, which is not part of what it is."""

    device: str = "cpu"
    """`cpu` or `cuda`."""
    threads: int | None = None
    """Of torch on the CPU; None for torch's own choice."""
    compiled: bool | None = None
    """Use torch.compile; None decides by the budget and by what is installed."""
    checkpoint_seconds: float | None = None
    """Time between checkpoints; None for half a minute, or longer where saving takes more than 2%
    of that."""
    memory_bytes: int | None = None
    """Limit of this process's memory while it trains on a CPU; None for none."""
    micro_batch_tokens: MicroBatch = "auto"
    """Tokens of a step that are held at a time."""
    recompute: Recompute | Literal["auto"] = "auto"
    """What blocks compute again in their backward pass, instead of keeping it."""
    attention_kernel: AttentionKernel | Literal["auto"] | None = "auto"
    """What attends all keys; `auto` for what `training.attending` measures, None for the rule."""
    shares_up_to: float | None = None
    """Largest budget of the runs in folders beside it that share their first steps with this one,
    as `Study.reuse` asks for; what compiling costs is earned back by all. None where none does."""

    ranks: InstanceOf[Ranks] = ALONE
    """That train it together: the one that leads by `train`, the others by `follow`."""
    shard: Shard = "auto"
    """Whether each of these holds a part of the blocks; `auto` where the whole does not fit."""

    def check(self, config: RunConfig) -> None:
        """Raise a ValueError where this machine cannot execute a run so."""
        self.ranks.rows(config.sequences_per_step)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}; expected at least 1")
        if self.shard is True and self.ranks.world == 1:
            raise ValueError("blocks are to be sharded over one rank; expected several: --ranks 2")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
        if self.device == "cuda" and self.memory_bytes is not None:
            raise ValueError("a limit of memory is for runs on the CPU; leave --memory-gib out")

    def environment(self, config: RunConfig) -> Environment:
        """Return what a run is started in.

        Raises:
            ValueError: compilation is asked for, but not to be had.
        """
        fault = compiling_fault(self.device) if self.compiled else None
        if fault is not None:
            raise ValueError(f"compilation was asked for, but {fault} here; leave compiled out")
        compiles = self.compiled
        if compiles is None:
            compiles = compiles_by_default(self._paying(config), self.device)
        threads = self.threads or torch.get_num_threads()
        return environment(self.device, threads, compiles, self.ranks.world)

    def fitted(self, config: RunConfig, environment: Environment) -> Environment:
        """Return the environment with what is found out at a first start.

        That is what a step holds at a time (`training.fitting`) and what attends all keys
        (`training.attending`). Of several ranks each holds its share at most, and what is pinned
        says how much that is, so that it also fits where fewer go on.
        """
        share = -(-config.sequences_per_step // environment.ranks)
        found = fitted(
            config.model_copy(update={"sequences_per_step": share}),
            environment,
            micro_batch_tokens=self.micro_batch_tokens,
            recompute=self.recompute,
            memory_bytes=self.memory_bytes,
            shard=self.shard,
        )
        if environment.ranks > 1 and found.micro_batch is None:
            found = found.model_copy(update={"micro_batch": share})
        kernel = self.attention_kernel
        if kernel == "auto":
            kernel = fastest_attention(self._paying(config), found)
        return found.model_copy(update={"attention": kernel})

    def _paying(self, config: RunConfig) -> RunConfig:
        """Return a run with the budget that earns back what is found out for it."""
        budget = config.budget_flops if self.shares_up_to is None else self.shares_up_to
        return config.model_copy(update={"budget_flops": budget})


class RunExecutionKeywords(TypedDict, total=False):
    """What of `RunExecution` is given by keyword."""

    device: str
    threads: int | None
    compiled: bool | None
    checkpoint_seconds: float | None
    memory_bytes: int | None
    micro_batch_tokens: MicroBatch
    recompute: Recompute | Literal["auto"]
    attention_kernel: AttentionKernel | Literal["auto"] | None
    shares_up_to: float | None
    ranks: Ranks
    shard: Shard


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    cache: Path,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Progress], None] = lambda _: None,
    alive: Callable[[], None] = lambda: None,
    tell: Tell = lambda _: None,
    **execution: Unpack[RunExecutionKeywords],
) -> RunRecord:
    """Train `config` in `folder` to the end and return its record, going on where it stopped.

    Threads and compiled-or-eager are pinned at the first start and kept after; then stopping at
    any moment and calling again gives bitwise the same weights on the same machine.

    Args:
        config: the run.
        folder: where it lives; claimed while this works on it.
        cache: where prepared corpora lie.
        stop: asked after each step; True saves a checkpoint and raises Interrupted.
        watch: told of each step.
        alive: called now and then while no step is made, as in evaluation.
        tell: told every few seconds how far the preparation of the corpus is.
        execution: what of `RunExecution` is not at its default.

    Raises:
        Interrupted: `stop` said so.
        RunClaimed: another process works on the run.
        RankLost: another rank ended or did not answer in time.
        MemoryError: the run needs more than `memory_bytes`.
        ValueError: the data changed, or the folder holds another run or no good checkpoint.
    """
    how = RunExecution(**execution)
    how.check(config)
    keep_freed_memory()
    with folder.claim():
        folder.create(config)
        done = folder.record()
        if done is not None:
            how.ranks.tell("")
            return done
        data = prepare(config.data, cache, tell=tell)
        alive()
        wanted = how.environment(config)
        shares = how.shares_up_to is not None
        if folder.pinned() is None:
            open_to_all = (how.micro_batch_tokens, how.recompute, how.attention_kernel) == (
                "auto",
            ) * 3
            theirs = started_in(config, folder, wanted) if shares and open_to_all else None
            with limited_memory(how.memory_bytes):
                wanted = theirs or how.fitted(config, wanted)
        pinned = folder.pin(wanted, data.sha256)
        fault = compiling_fault(how.device) if pinned.environment.compiled else None
        if fault is not None:
            raise ValueError(
                f"{folder.path} was started with compiled steps, but {fault} here; go on where it "
                "was started, or remove the folder to start anew"
            )
        changed = _lasting(pinned.differences(wanted))
        settle(pinned.environment)
        keep_freed_memory(large=is_roomy(config, pinned.environment, how.memory_bytes))
        if shares:
            branch(config, folder, pinned)
        with _attempt(folder, changed), limited_memory(how.memory_bytes):
            how.ranks.tell(pinned.environment.model_dump_json())
            run = Run(config, folder, data, pinned.environment, alive, shares, how.ranks)
            return run.finish(how.checkpoint_seconds, stop, watch)


def follow(
    config: RunConfig,
    folder: RunFolder,
    *,
    cache: Path,
    stop: Callable[[], bool] = lambda: False,
    **execution: Unpack[RunExecutionKeywords],
) -> None:
    """Make this rank's part of the steps of a run that another rank trains, as pinned there.

    Nothing is written to the folder. Arguments and errors are those of `train`.
    """
    how = RunExecution(**execution)
    how.check(config)
    keep_freed_memory()
    told = how.ranks.hear()
    if not told:
        return
    pinned = Environment.model_validate_json(told)
    settle(pinned)
    keep_freed_memory(large=is_roomy(config, pinned, how.memory_bytes))
    shares = how.shares_up_to is not None
    with limited_memory(how.memory_bytes):
        data = prepare(config.data, cache)
        Run(config, folder, data, pinned, branched_from=shares, ranks=how.ranks).train(stop=stop)


@contextmanager
def _attempt(folder: RunFolder, changed: Mapping[str, Any]) -> Iterator[None]:
    """Note that an attempt begins here, and how it ends where it leaves no record."""
    folder.begin_attempt(checkpoint.newest_step(folder.checkpoints), changed)
    try:
        yield
    except Interrupted:
        folder.end_attempt("preempted")
        raise
    except (StorageError, RunClaimed):
        # No fault of the run, and nothing more may be written to its folder.
        raise
    except Exception as error:
        folder.end_attempt("failed", reason_of(error))
        raise


def reason_of(error: Exception) -> str:
    """Return an exception as one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_CHARACTERS]


def load_model(folder: RunFolder, device: str = "cpu") -> Transformer:
    """Return the model of the newest checkpoint in `folder`, in evaluation mode.

    Raises:
        ValueError: there is no checkpoint, or it is of another run, or of a finished run the last
            is damaged: an earlier one is not the model that its record tells of.
    """
    config, record = folder.config(), folder.record()
    saved = newest_checkpoint(folder, config.run_id)
    if saved is None:
        raise ValueError(f"{folder.path} has no checkpoint; train the run first")
    if record is not None and record.state == "finished" and saved.step < config.steps:
        raise ValueError(
            f"the newest good checkpoint in {folder.checkpoints} is of step {saved.step} of "
            f"{config.steps}; move that folder away, and isoflop rebuild STUDY trains it again"
        )
    model = build(config.model)
    model.load_state_dict(tensors_under(saved.tensors, "model."))
    return model.to(device).eval()


def _lasting(differences: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Warn of what is not as it was pinned, and return it as it is now."""
    # These are put back to what was pinned; the rest cannot be.
    put_back = ("threads", "compiled", "micro_batch", "recompute", "attention", "sharded")
    lasting = {k: v for k, v in differences.items() if k not in put_back}
    if lasting:
        changes = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in lasting.items())
        warnings.warn(
            f"resuming under another environment ({changes}): bitwise equality is not promised",
            stacklevel=3,
        )
    return {name: now for name, (_, now) in lasting.items()}
