"""The folder of one run is the truth about it: every state is derived from what is on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from isoflop import storage
from isoflop.config import (
    Environment,
    Frozen,
    RunConfig,
    RunEvaluation,
    RunRecord,
    State,
    TaskScores,
    TextSample,
)
from isoflop.runs.attempts import Attempt, Ending, read_attempts
from isoflop.runs.claim import Claim
from isoflop.runs.metrics import MetricsLog, read_metrics
from isoflop.runs.texts import know_texts, write_texts

ATTEMPTS = "attempts.jsonl"

Value = TypeVar("Value", bound=BaseModel)


class Pinned(Frozen):
    """What a run was first started with. Threads and compilation are to be reused on resume."""

    environment: Environment
    data_sha256: str

    def differences(self, now: Environment) -> dict[str, tuple[Any, Any]]:
        """Return the fields in which `now` differs, each with the pinned and the present value.

        Where it is not empty, bitwise the same result as without interruption is not promised.
        """
        pairs = {key: (was, getattr(now, key)) for key, was in self.environment}
        return {key: (was, present) for key, (was, present) in pairs.items() if was != present}


def parse_value(kind: type[Value], data: Any, source: str) -> Value:
    """Return `data` as a `kind`; a one-line ValueError names `source`, the key and the fault."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ValueError(
            f"{source} is not a valid {kind.__name__}: {key}: {first['msg']}"
        ) from None


def parse_record(data: Any, source: str) -> RunRecord:
    """Return `data` as a record of the run that it names; a one-line ValueError as above."""
    record = parse_value(RunRecord, data, source)
    if record.config.run_id != record.run_id:
        raise ValueError(
            f"{source} is not a valid RunRecord: run_id is {record.run_id[:80]!r}; expected "
            f"{record.config.run_id}, which its config makes"
        )
    if record.config.convention not in record.train_flops:
        raise ValueError(
            f"{source} is not a valid RunRecord: train_flops: lacks {record.config.convention!r}, "
            "the convention of its config"
        )
    return record


class RunFolder(Claim):
    """One run on disk: `config.json`, `pinned.json`, `attempts.jsonl`, `metrics.jsonl`,
    `record.json`, `checkpoint/`, `stable/`, and the text of each variant of one's own.

    Beside these `evaluation.json`, once its model was evaluated, `tasks.json`, its scores in tasks,
    and `sample.json`, text that it generated; unlike the record, they may be written anew.
    Anybody may read. Who pins, notes attempts, or writes metrics or the record holds the claim,
    and asks `check_claim` before committing a checkpoint. No file in it may be a symbolic link.
    Its `owner` is the process that others hear of while it is claimed, None for this one.
    """

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def _member(self, name: str) -> Path:
        return storage.inside(self.path, name)

    def _read(self, name: str, parse: Callable[[Any, str], Value]) -> Value | None:
        path = self._member(name)
        try:
            data = storage.read_json(path)
        except FileNotFoundError:
            return None
        return parse(data, str(path))

    # --- what is to be run

    def create(self, config: RunConfig) -> None:
        """Write `config.json` where it is missing; refuse a folder that belongs to another run."""
        if self._read("config.json", partial(parse_value, RunConfig)) is None:
            # Claimed, since an owner removes what others left unfinished.
            with nullcontext() if self._held else self.claim():
                if self._read("config.json", partial(parse_value, RunConfig)) is None:
                    write_texts(self.path, [config])
                    storage.write_json(self._member("config.json"), config.model_dump(mode="json"))
        present = self.config()
        if present.run_id != config.run_id:
            raise ValueError(
                f"{self.path} holds run {present.run_id}, expected {config.run_id}: "
                "the configuration changed; use another folder, or remove this one"
            )

    def config(self) -> RunConfig:
        """Return what is run; a ValueError when the folder holds no valid configuration."""
        config = self._read("config.json", partial(parse_value, RunConfig))
        if config is None:
            raise ValueError(f"{self.path} is not a run folder: it has no config.json")
        know_texts(self.path, [config])
        return config

    def pinned(self) -> Pinned | None:
        """Return what the run was first started with, None if it never was."""
        return self._read("pinned.json", partial(parse_value, Pinned))

    def pin(self, environment: Environment, data_sha256: str) -> Pinned:
        """Pin at the first start; later return what was pinned then, and refuse other data.

        A changed environment is returned as it was, for the caller to compare (`differences`).
        """
        self.check_claim()
        pinned = self.pinned()
        if pinned is None:
            pinned = Pinned(environment=environment, data_sha256=data_sha256)
            storage.write_json(self._member("pinned.json"), pinned.model_dump(mode="json"))
        elif pinned.data_sha256 != data_sha256:
            raise ValueError(
                f"the data of {self.path} changed: it was started on SHA-256 {pinned.data_sha256}, "
                f"now the data has {data_sha256}; restore the data, or remove the folder to start "
                "afresh"
            )
        return pinned

    # --- who works on it

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Own the run while the context lasts; RunClaimed when another live process does.

        Leftovers of killed writers are removed, and what they renamed last is made durable.
        """
        storage.make_folder(self.path)
        with self.hold():
            storage.remove_leftovers(self.path)
            # An owner that was killed may have left what is seen, yet would be lost in a power cut.
            for folder in (self.path.absolute().parent, self.path):
                storage.sync_folder(folder)
            try:
                yield
            except storage.StorageError:
                # A file that another owner replaced cannot be written to everywhere.
                self.check_claim()
                raise

    # --- how often it was tried

    def begin_attempt(self, step: int, changed: Mapping[str, Any] = MappingProxyType({})) -> int:
        """Note, durably, that an attempt goes on from `step`; return its number, from 1.

        `changed` are the fields of the environment that are not as pinned, and what they are now.
        """
        number = self.attempts + 1
        told = {"changed": dict(changed)} if changed else {}
        self._note_attempt({"attempt": number, "began_at_step": step, **told})
        return number

    def end_attempt(self, ending: Ending, reason: str | None = None) -> None:
        """Note, durably, how the last attempt ended.

        Where it has ended already, another one ended before it could begin, and is counted.
        """
        made = self.attempts_made()
        if not made or made[-1].ending is not None:
            number = self.begin_attempt(made[-1].step if made else 0)
        else:
            number = made[-1].number
        told = {"reason": reason} if reason else {}
        self._note_attempt({"attempt": number, "ended": ending, **told})

    def _note_attempt(self, row: Mapping[str, Any]) -> None:
        self.check_claim()
        with storage.JsonLines(self._member(ATTEMPTS)) as lines:
            lines.append(row)
            lines.sync()

    def attempts_made(self) -> list[Attempt]:
        """Return the attempts at the run, in order."""
        return read_attempts(self._member(ATTEMPTS))

    @property
    def attempts(self) -> int:
        """How often the run was started."""
        made = self.attempts_made()
        return made[-1].number if made else 0

    # --- what it leaves behind

    @property
    def checkpoints(self) -> Path:
        """The folder that checkpoints are saved in."""
        return self._member("checkpoint")

    @property
    def stable(self) -> Path:
        """The folder of the state where its decay begins, which longer runs branch from."""
        return self._member("stable")

    def open_metrics(self, after_step: int) -> MetricsLog:
        """Return a log to append to, without the rows after `after_step` (0 at a fresh start)."""
        self.check_claim()
        path = self._member("metrics.jsonl")
        if self.token > 1 and path.exists():
            # An owner that lost the run while it was paused may still append to the file it opened.
            storage.write_bytes(path, path.read_bytes())
        return MetricsLog(path, after_step)

    def read_metrics(self) -> tuple[list[dict[str, Any]], int]:
        """Return the metric rows and the number of lines skipped because they are corrupt."""
        return read_metrics(self._member("metrics.jsonl"))

    def write_record(self, record: RunRecord) -> None:
        """Commit the outcome, once: a ValueError where another outcome is recorded already."""
        self.check_claim()
        run_id = self.config().run_id
        if record.run_id != run_id or record.config.run_id != run_id:
            raise ValueError(f"{self.path} holds run {run_id}, the record is of {record.run_id}")
        path = self._member("record.json")
        # Only one can create it, whoever takes itself for the owner.
        if not path.exists() and storage.create_json(path, record.model_dump(mode="json")):
            return
        present = self.record()
        if present is not None and present != record:
            raise ValueError(
                f"{self.path} is recorded as {present.state} already; remove its record.json to "
                "record it anew"
            )

    def record(self) -> RunRecord | None:
        """Return the outcome, None while there is none."""
        record = self._read("record.json", parse_record)
        if record is not None:
            know_texts(self.path, [record.config])
        return record

    def _replace(self, what: str, value: RunEvaluation | TaskScores | TextSample) -> Path:
        self.check_claim()
        run_id = self.config().run_id
        if value.run_id != run_id:
            raise ValueError(f"{self.path} holds run {run_id}, the {what} is of {value.run_id}")
        path = self._member(f"{what}.json")
        storage.write_json(path, value.model_dump(mode="json"))
        return path

    def write_evaluation(self, evaluation: RunEvaluation) -> Path:
        """Commit what was measured of the finished model, in place of an earlier one."""
        return self._replace("evaluation", evaluation)

    def evaluation(self) -> RunEvaluation | None:
        """Return what was measured of the finished model, None where nothing was."""
        return self._read("evaluation.json", partial(parse_value, RunEvaluation))

    def add_scores(self, found: TaskScores) -> Path:
        """Commit scores in tasks beside those of other tasks."""
        before = self.tasks()
        return self._replace("tasks", found if before is None else before.joined(found))

    def tasks(self) -> TaskScores | None:
        """Return the scores of the finished model in tasks, None where there are none."""
        return self._read("tasks.json", partial(parse_value, TaskScores))

    def write_sample(self, sample: TextSample) -> Path:
        """Commit text that the finished model generated, in place of an earlier one."""
        return self._replace("sample", sample)

    def sample(self) -> TextSample | None:
        """Return text that the finished model generated, None where none was kept."""
        return self._read("sample.json", partial(parse_value, TextSample))

    def state(self) -> State:
        """Return where the run stands, from what is on disk alone."""
        # Asked first: an owner writes the record before it lets go of the claim.
        claimed = self.is_claimed()
        record = self.record()
        if record is not None:
            return record.state
        if claimed:
            return "running"
        made = self.attempts_made()
        if made and made[-1].ending == "preempted":
            return "preempted"
        traces = (ATTEMPTS, "pinned.json", "metrics.jsonl", "checkpoint")
        if any(self._member(name).exists() for name in traces):
            return "interrupted"
        return "pending"
