"""A run in progress: steps, metrics, checkpoints, and the record at its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from isoflop import checkpoint, storage
from isoflop.config import (
    Decision,
    Environment,
    Evaluation,
    RunConfig,
    RunRecord,
    Split,
)
from isoflop.costs import forward_flops, parameters, train_flops_per_token
from isoflop.data import Batches, TokenStore
from isoflop.evaluation import evaluate
from isoflop.model import build, start_from
from isoflop.runs import Progress, RunFolder, branched
from isoflop.runs.metrics import NoMetrics
from isoflop.storage import JsonLines
from isoflop.training.curve import is_validated, thin, whole_rows
from isoflop.training.optimisation.optimiser import rate_factor
from isoflop.training.optimisation.parametrisation import initialise
from isoflop.training.optimisation.sharding import local
from isoflop.training.ranks import ALONE, Ranks
from isoflop.training.state import Pace, load_state, newest_checkpoint, put_together, state_of
from isoflop.training.step import StepResult, Trainer, on_device


class Interrupted(RuntimeError):
    """Training was asked to stop and did, with a checkpoint."""


class _Batches:
    """Batches on their device; a GPU's are made ready by a thread while a step goes on."""

    def __init__(self, batches: Batches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._thread: ThreadPoolExecutor | None = None
        self._ready: tuple[int, Future[torch.Tensor]] | None = None

    def __enter__(self) -> None:
        if self._device.type == "cuda":
            self._thread = ThreadPoolExecutor(1)

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = self._ready = None

    def batch(self, step: int) -> torch.Tensor:
        """Return the tokens of a step."""
        if self._thread is None:
            return self._made(step)
        waiting = self._ready
        self._ready = step + 1, self._thread.submit(self._made, step + 1)
        return waiting[1].result() if waiting and waiting[0] == step else self._made(step)

    def _made(self, step: int) -> torch.Tensor:
        return on_device(torch.from_numpy(self._batches.batch(step)), self._device)


class Run:
    """A run in progress, claimed and pinned.

    Args:
        config: what is trained.
        folder: where.
        data: what on.
        pinned: what it was first started with.
        alive: called now and then while no step is made.
        branched_from: whether longer runs may begin with its first steps.
        ranks: that train it together; only the one that leads writes to the folder.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        data: TokenStore,
        pinned: Environment,
        alive: Callable[[], None] = lambda: None,
        branched_from: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.folder = folder
        self.data = data
        self.pinned = pinned
        self.alive = alive
        self.ranks = ranks
        self.batches = Batches(
            data.split("train"),
            config.data.sequence_length,
            config.sequences_per_step,
            config.data_order,
            config.data.windows,
        )
        model = build(config.model)
        initialise(model, config.recipe, config.seed)
        if config.start is not None and not checkpoint.newest_step(folder.checkpoints):
            start_from(model, config.start)
        model.attend_with(pinned.attention)
        self.trainer = Trainer(
            model.to(pinned.device),
            config,
            compiled=pinned.compiled,
            micro_batch=pinned.micro_batch,
            recompute=pinned.recompute,
            ranks=replace(ranks, sharded=pinned.sharded and ranks.world > 1),
        )
        self._branching_step = config.stable_steps if branched_from else 0
        self.step = 0
        """Steps made and known to be finite."""
        self.seconds = 0.0
        self._under_way: deque[tuple[StepResult, float]] = deque()
        """Steps that were made or that the device is making, each with the time it was begun."""
        self._next = _Batches(self.batches, self.trainer.device)
        self._read_at = 0.0
        self.flops_per_step = config.tokens_per_step * train_flops_per_token(
            config.model, config.data.sequence_length, config.convention
        )

    def finish(
        self,
        checkpoint_seconds: float | None,
        stop: Callable[[], bool],
        watch: Callable[[Progress], None],
    ) -> RunRecord:
        """Train from wherever the run stands and commit its record; arguments are `train`'s."""
        failure = self.train(checkpoint_seconds, stop, watch)
        try:
            record = self._record(failure)
        except FloatingPointError as error:
            record = self._record(str(error))
        self.folder.write_record(record)
        return record

    def train(
        self,
        checkpoint_seconds: float | None = None,
        stop: Callable[[], bool] = lambda: False,
        watch: Callable[[Progress], None] = lambda _: None,
    ) -> str | None:
        """Make all steps, with those of the other ranks; return why training failed, if it did."""
        self._resume()
        failure = None
        pace = Pace(checkpoint_seconds)
        saved_step = made = self.step
        # Steps that may be under way before the first of them is read: a GPU need not wait.
        late = 0 if self.trainer.device.type == "cpu" else 1
        opened = self.folder.open_metrics(self.step) if self.ranks.leads else NoMetrics()
        with opened as metrics, self._next:
            while made < self.config.steps:
                if made == self._branching_step > 0:
                    failure = self._take(0, metrics, watch)
                    with pace.saving():
                        kept = not failure and self._keep_stable(metrics)
                    if not kept:
                        break
                try:
                    self._make_step(made)
                except Exception as error:
                    # A signal to stop may end the compiler that a step had started, too.
                    if stop() and type(error).__module__.startswith("torch._"):
                        raise Interrupted(f"stopped while step {made + 1} compiled") from error
                    raise
                made += 1
                # What is looked at after a step needs the weights as they were then.
                waits = is_validated(made, self.config.steps) or made == self.config.steps
                failure = self._take(0 if waits else late, metrics, watch)
                if failure:
                    break
                stopping, saving = self.ranks.agree(stop(), self.ranks.leads and pace.is_due)
                if stopping or saving:
                    failure = self._take(0, metrics, watch)
                    if failure:
                        break
                    with pace.saving():
                        metrics.sync()
                        saved = self._save()
                    if not saved:
                        break
                    saved_step = self.step
                if stopping and self.step < self.config.steps:
                    # Whoever starts ranks ends all of them soon after the first, saved or not.
                    self.ranks.agree(True)
                    raise Interrupted(f"stopped at step {self.step} of {self.config.steps}")
            if saved_step < self.step:
                metrics.sync()
                if not self._save():
                    failure = failure or f"weights are not finite after step {self.step}"
        if failure is None:
            put_together(self.trainer)
        return failure

    def _make_step(self, index: int) -> None:
        """Make a step, or have the device begin it."""
        started = time.perf_counter()
        tokens = self._next.batch(index)
        rate = rate_factor(self.config, index)
        self._under_way.append((self.trainer.step(tokens, index, rate), started))

    def _take(
        self, late: int, metrics: JsonLines | NoMetrics, watch: Callable[[Progress], None]
    ) -> str | None:
        """Read all but the last `late` steps under way; return why training ends, if it does."""
        while len(self._under_way) > late:
            result, started = self._under_way.popleft()
            if not result.finite:
                # What was made after it changed nothing.
                self._under_way.clear()
                return (
                    f"loss {result.loss}, gradient norm {result.gradient_norm} and decision "
                    f"heads' gradient norm {result.predictor_norm} at step {self.step + 1}"
                )
            now = time.perf_counter()
            seconds, self._read_at = now - max(started, self._read_at), now
            self.step += 1
            self.seconds += seconds
            row, failure = self._row(result, seconds), None
            try:
                row |= self._validation()
            except FloatingPointError as error:
                failure = f"{error} after step {self.step}"
            metrics.append(row)
            if failure:
                return failure
            speed = self.config.tokens_per_step / seconds
            watch(Progress(self.step, self.config.steps, result.loss, speed))
        return None

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
        if result.span_losses:
            row["span_losses"] = list(result.span_losses)
        if result.routing:
            row["routing"] = result.routing
        if result.told:
            row["told"] = result.told
        return row

    def _validation(self) -> dict[str, Any]:
        """Return the look at the validation split that is due after this step, if one is."""
        if not is_validated(self.step, self.config.steps):
            return {}
        limit = max(1, self.config.evaluation_tokens // 8)
        names = self.config.model.decisions[:2]
        return {
            "validation": {name: self._evaluate("validation", name, limit).loss for name in names}
        }

    def _evaluate(self, split: Split, decision: Decision, limit: int) -> Evaluation:
        self.trainer.tell_progress(self.step)
        with torch.compiler.set_stance("force_eager"), self.trainer.autocast():
            return evaluate(
                self.trainer.model,
                self.data.split(split),
                self.config.data.sequence_length,
                split=split,
                decision=decision,
                windows=self.config.data.windows,
                spans=self.config.spans,
                limit_tokens=limit,
                text=self.config.evaluation_text,
                seed=self.config.seed,
                alive=self.alive,
            )

    def _evaluations(self) -> list[Evaluation]:
        return [
            self._evaluate(split, decision, self.config.evaluation_tokens)
            for split in ("validation", "test")
            for decision in self.config.model.decisions
        ]

    def _keep_stable(self, metrics: JsonLines | NoMetrics) -> bool:
        """Keep the state that longer runs branch from; as `_save`."""
        metrics.sync()
        # With a checkpoint of its own the run never goes back behind what others branch from.
        return self._save() and self._save(self.folder.stable)

    def _save(self, folder: Path | None = None) -> bool:
        """Commit a checkpoint; not of weights that an update made infinite, which returns False."""
        parameters = list(self.trainer.model.parameters())
        infinite = not all(bool(local(p).isfinite().all()) for p in parameters)
        if self.ranks.agree(infinite)[0]:
            return False
        self.ranks.check_alike(parameters, self.step)
        tensors = state_of(self.trainer)
        if not self.ranks.leads:
            return True
        self.folder.check_claim()
        values: dict[str, storage.JSON] = {"run_id": self.config.run_id, "seconds": self.seconds}
        try:
            # Asked once more at its end: while a checkpoint was written, this process may have been
            # paused, and its run given to another.
            checkpoint.save(
                folder or self.folder.checkpoints,
                self.step,
                tensors,
                values,
                confirm=self.folder.check_claim,
            )
        except storage.StorageError:
            self.folder.check_claim()
            raise
        return True

    def _resume(self) -> None:
        saved = newest_checkpoint(self.folder, self.config.run_id)
        if saved is not None:
            self._load(saved)
        self.ranks.spread(list(self.trainer.model.state_dict().values()))
        self.ranks.check_alike(list(self.trainer.model.parameters()), self.step)

    def _load(self, saved: checkpoint.Checkpoint) -> None:
        self.step = saved.step
        self.seconds = float(saved.values["seconds"])
        load_state(self.trainer, saved.tensors)

    def _record(self, failure: str | None) -> RunRecord:
        config, length = self.config, self.config.data.sequence_length
        rows = whole_rows(self.folder, len(config.spans), self.step)
        losses = [float(row["loss"]) for row in rows]
        tail = losses[-max(1, len(losses) // 20) :]
        tokens = self.step * config.tokens_per_step
        evaluations: list[Evaluation] = []
        if failure is None:
            evaluations = self._evaluations()
            if self.trainer.average is not None:
                with self.trainer.averaged():
                    evaluations += [
                        one.model_copy(update={"weights": "average"}) for one in self._evaluations()
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
            resumed_under=self._other_environments(),
            **branched(rows),
        )

    def _other_environments(self) -> tuple[Environment, ...]:
        others = [
            self.pinned.model_copy(update=dict(attempt.changed))
            for attempt in self.folder.attempts_made()
            if attempt.changed
        ]
        return tuple(dict.fromkeys(others))
