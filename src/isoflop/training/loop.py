"""One loop for every variant: train a run in its folder, from wherever it stands, to its record."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isoflop import checkpoint
from isoflop.config import (
    CurvePoint,
    Decision,
    Environment,
    Evaluation,
    RunConfig,
    RunRecord,
    Split,
    decisions,
)
from isoflop.costs import forward_flops, parameters, train_flops_per_token
from isoflop.data import Batches, TokenSplit, TokenStore, prepare
from isoflop.evaluation import evaluate
from isoflop.model import Transformer, build
from isoflop.runs import RunFolder
from isoflop.training.environment import COMPILE_FROM_FLOPS, can_compile, environment
from isoflop.training.memory import keep_freed_memory
from isoflop.training.parametrisation import initialise
from isoflop.training.schedule import rate_factor
from isoflop.training.step import StepResult, Trainer

CURVE_POINTS = 200
"""Most points of the thinned training curve in a record."""
VALIDATIONS = 4
"""Looks at the validation split during training, evenly spaced, each at a part of the tokens."""


class Interrupted(RuntimeError):
    """Training was asked to stop and did, with a checkpoint."""


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever watches."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float


def train(
    config: RunConfig,
    folder: RunFolder,
    *,
    cache: Path,
    device: str = "cpu",
    threads: int | None = None,
    compiled: bool | None = None,
    checkpoint_seconds: float = 30.0,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[Progress], None] = lambda _: None,
) -> RunRecord:
    """Train `config` in `folder` to the end and return its record, going on where it stopped.

    Threads and compiled-or-eager are pinned at the first start and kept after; then stopping at
    any moment and calling again gives bitwise the same weights on the same machine.

    Args:
        config: the run.
        folder: where it lives; claimed while this works on it.
        cache: where prepared corpora lie.
        device: `cpu` or `cuda`.
        threads: of torch on the CPU; None for torch's own choice.
        compiled: use torch.compile; None decides by the budget and by what is installed.
        checkpoint_seconds: time between checkpoints.
        stop: asked after each step; True saves a checkpoint and raises Interrupted.
        watch: told of each step.

    Raises:
        Interrupted: `stop` said so.
        RunClaimed: another process works on the run.
        ValueError: the data changed, or the folder holds another run or no good checkpoint.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    keep_freed_memory()
    with folder.claim():
        folder.create(config)
        done = folder.record()
        if done is not None:
            return done
        data = prepare(config.data, cache)
        wanted = environment(
            device, threads or torch.get_num_threads(), _compiles(config, compiled)
        )
        pinned = folder.pin(wanted, data.sha256)
        _warn_of_differences(pinned.differences(wanted))
        torch.set_num_threads(pinned.environment.threads)
        folder.note_attempt()
        run = _Run(config, folder, data, pinned.environment)
        return run.finish(checkpoint_seconds, stop, watch)


def load_model(folder: RunFolder, device: str = "cpu") -> Transformer:
    """Return the model of the newest checkpoint in `folder`, in evaluation mode.

    Raises:
        ValueError: there is no checkpoint.
    """
    saved = checkpoint.latest(folder.checkpoints)
    if saved is None:
        raise ValueError(f"{folder.path} has no checkpoint; train the run first")
    model = build(folder.config().model)
    model.load_state_dict(_part(saved.tensors, "model."))
    return model.to(device).eval()


class _Run:
    """A run in progress, claimed and pinned."""

    def __init__(
        self, config: RunConfig, folder: RunFolder, data: TokenStore, pinned: Environment
    ) -> None:
        self.config = config
        self.folder = folder
        self.data = data
        self.pinned = pinned
        self.batches = Batches(
            data.split("train"), config.data.sequence_length, config.sequences_per_step, config.seed
        )
        model = build(config.model)
        initialise(model, config.recipe, config.seed)
        self.trainer = Trainer(model.to(pinned.device), config, compiled=pinned.compiled)
        self.step = 0
        self.seconds = 0.0
        self.flops_per_step = config.tokens_per_step * train_flops_per_token(
            config.model, config.data.sequence_length, config.convention
        )

    def finish(
        self, checkpoint_seconds: float, stop: Callable[[], bool], watch: Callable[[Progress], None]
    ) -> RunRecord:
        self._resume()
        failure = None
        saved_at = time.monotonic()
        saved_step = self.step
        with self.folder.open_metrics(self.step) as metrics:
            while self.step < self.config.steps:
                result, seconds = self._one_step()
                if not result.finite:
                    failure = (
                        f"loss {result.loss}, gradient norm {result.gradient_norm} and decision "
                        f"heads' gradient norm {result.predictor_norm} at step {self.step + 1}"
                    )
                    break
                self.step += 1
                self.seconds += seconds
                row = self._row(result, seconds)
                try:
                    row |= self._validation()
                except FloatingPointError as error:
                    failure = f"{error} after step {self.step}"
                metrics.append(row)
                if failure:
                    break
                watch(
                    Progress(
                        self.step,
                        self.config.steps,
                        result.loss,
                        self.config.tokens_per_step / seconds,
                    )
                )
                stopping = stop()
                if stopping or time.monotonic() - saved_at > checkpoint_seconds:
                    metrics.sync()
                    if not self._save():
                        break
                    saved_at, saved_step = time.monotonic(), self.step
                if stopping and self.step < self.config.steps:
                    raise Interrupted(f"stopped at step {self.step} of {self.config.steps}")
            if saved_step < self.step:
                metrics.sync()
                if not self._save():
                    failure = failure or f"weights are not finite after step {self.step}"
        try:
            record = self._record(failure)
        except FloatingPointError as error:
            record = self._record(str(error))
        self.folder.write_record(record)
        return record

    def _one_step(self) -> tuple[StepResult, float]:
        started = time.perf_counter()
        tokens = torch.from_numpy(self.batches.batch(self.step)).to(self.pinned.device)
        result = self.trainer.step(tokens, self.step, rate_factor(self.config, self.step))
        return result, time.perf_counter() - started

    def _row(self, result: StepResult, seconds: float) -> dict[str, Any]:
        row: dict[str, Any] = {
            "step": self.step,
            "tokens": self.step * self.config.tokens_per_step,
            "flops": self.step * self.flops_per_step,
            "seconds": round(seconds, 6),
            "loss": result.loss,
            "learning_rate": self.config.recipe.learning_rate
            * rate_factor(self.config, self.step - 1),
            "gradient_norm": result.gradient_norm,
        }
        if result.routing:
            row["routing"] = result.routing
        return row

    def _validation(self) -> dict[str, Any]:
        """Return the look at the validation split that is due after this step, if one is."""
        part, of = divmod(self.step * VALIDATIONS, self.config.steps)
        if of >= VALIDATIONS or not 0 < part < VALIDATIONS:
            return {}
        limit = max(1, self.config.evaluation_tokens // 8)
        names = decisions(self.config.model.depth)[:2]
        return {
            "validation": {name: self._evaluate("validation", name, limit).loss for name in names}
        }

    def _evaluate(self, split: Split, decision: Decision, limit: int) -> Evaluation:
        with torch.compiler.set_stance("force_eager"), self.trainer.autocast():
            return evaluate(
                self.trainer.model,
                self._held_out(split),
                self.config.data.sequence_length,
                split=split,
                decision=decision,
                limit_tokens=limit,
                seed=self.config.seed,
            )

    def _held_out(self, split: Split) -> TokenSplit:
        return self.data.split(split)

    def _save(self) -> bool:
        """Commit a checkpoint; not of weights that an update made infinite, which returns False."""
        if not all(bool(p.isfinite().all()) for p in self.trainer.model.parameters()):
            return False
        self.folder.check_claim()
        state = self.trainer.optimiser.state_dict()["state"]
        tensors = {f"model.{k}": v for k, v in self.trainer.model.state_dict().items()}
        for index, moments in state.items():
            tensors.update({f"optimiser.{index}.{k}": v for k, v in moments.items()})
        checkpoint.save(self.folder.checkpoints, self.step, tensors, {"seconds": self.seconds})
        return True

    def _resume(self) -> None:
        saved = checkpoint.latest(self.folder.checkpoints)
        if saved is None:
            return
        self.step = saved.step
        self.seconds = float(saved.values["seconds"])
        self.trainer.model.load_state_dict(_part(saved.tensors, "model."))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _part(saved.tensors, "optimiser.").items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        state = self.trainer.optimiser.state_dict()
        self.trainer.optimiser.load_state_dict({**state, "state": moments})

    def _record(self, failure: str | None) -> RunRecord:
        config, length = self.config, self.config.data.sequence_length
        rows, _ = self.folder.read_metrics()
        losses = [float(row["loss"]) for row in rows]
        tail = losses[-max(1, len(losses) // 20) :]
        tokens = self.step * config.tokens_per_step
        evaluations: list[Evaluation] = []
        if failure is None:
            evaluations = [
                self._evaluate(split, decision, config.evaluation_tokens)
                for split in ("validation", "test")
                for decision in decisions(config.model.depth)
            ]
        return RunRecord(
            run_id=config.run_id,
            state="finished" if failure is None else "diverged",
            reason=failure,
            config=config,
            parameters=parameters(config.model),
            forward_flops=forward_flops(config.model, length, config.convention).per_token,
            train_flops={
                name: tokens * train_flops_per_token(config.model, length, name)
                for name in ("causal", "full", "6nd")
            },
            seconds=self.seconds,
            attempts=self.folder.attempts,
            train_loss=sum(tail) / len(tail) if tail else None,
            curve=thin(rows),
            evaluations=tuple(evaluations),
            data_sha256=self.data.sha256,
            environment=self.pinned,
        )


def thin(rows: list[dict[str, Any]]) -> tuple[CurvePoint, ...]:
    """Return at most CURVE_POINTS points, each the mean loss since the one before."""
    points = []
    count = min(CURVE_POINTS, len(rows))
    for index in range(count):
        part = rows[index * len(rows) // count : (index + 1) * len(rows) // count]
        mean = sum(float(row["loss"]) for row in part) / len(part)
        points.append(CurvePoint(step=int(part[-1]["step"]), loss=round(mean, 6)))
    return tuple(points)


def _compiles(config: RunConfig, wanted: bool | None) -> bool:
    if wanted and not can_compile():
        raise ValueError("compilation was asked for, but no C++ compiler (g++ or clang++) is here")
    if wanted is not None:
        return wanted
    return (config.budget_flops or 0) >= COMPILE_FROM_FLOPS and can_compile()


def _warn_of_differences(differences: Mapping[str, tuple[Any, Any]]) -> None:
    # Threads and compilation are put back to what was pinned; the rest cannot be.
    lasting = {k: v for k, v in differences.items() if k not in ("threads", "compiled")}
    if lasting:
        changes = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in lasting.items())
        warnings.warn(
            f"resuming under another environment ({changes}): bitwise equality is not promised",
            stacklevel=3,
        )


def _part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
