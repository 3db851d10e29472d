"""The subcommands on a study, from its file to its report."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.resources import files
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from isoflop import storage, sweep
from isoflop.cli.main import FAILED, USAGE
from isoflop.cli.options import (
    CACHE,
    RESULTS,
    Cache,
    ConfigFile,
    Device,
    Json,
    MemoryGib,
    OfStudy,
    OfTraining,
    Out,
    Results,
    StudyFile,
    Workers,
    bytes_of,
    check_uninterrupted,
    taken,
    tell,
)
from isoflop.config.load import load, load_study, schema_text
from isoflop.config.own import kind_of
from isoflop.planning.plan import cost_rows
from isoflop.sweep.ledger import STUDY, TRIALS
from isoflop.sweep.models import described
from isoflop.sweep.schedule.executor import Shift
from isoflop.terminal.plan import cost_tables, plan_tables, search_tables, toml_lines, trial_table
from isoflop.terminal.status import edge_words
from isoflop.terminal.tables import answer, size
from isoflop.text import quoted, typed
from isoflop.tracking import tracking

SCHEMA_NAME = "isoflop-study.schema.json"
"""What the first line of the starter study points editors at."""


@dataclass(frozen=True, kw_only=True)
class Init:
    """Write a commented study to start from, and its JSON Schema for editors beside it.

    With --variant the study compares it to the baseline; a study that exists is left as it is.
    """

    path: Annotated[Path, Positional, arg(metavar="[PATH]")] = Path("study.toml")
    """Where to write it."""
    variant: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write a variant of your own to start from."""

    def __call__(self) -> None:
        path, variant, table = self.path, self.variant, ""
        schema_path, schema = path.parent / SCHEMA_NAME, schema_text()
        texts = {path: starter_text()}
        if variant is not None and variant.suffix != ".py":
            raise ValueError(f"--variant is {variant}; expected a name that ends in .py")
        added_to = variant is not None and path.suffix == ".json" and os.path.lexists(path)
        if path.suffix != ".toml" and not added_to:
            raise ValueError(f"the study to write is {path}; expected a name that ends in .toml")
        if variant is not None:
            kind, beside = kind_of(variant), Path(os.path.relpath(variant, path.parent)).as_posix()
            table = f'name = "Mine"\ndepth = {{ kind = "{kind}", from = {dumps(beside)} }}\n'
            plain = texts[path].partition("\n# Mixture-of-Depths")[0]
            own = "# Yours; settings of its Config may stand beside.\n[[variants]]\n"
            texts[path] = f"{plain}\n{own}{table}"
            texts[variant] = starter_text("starter_variant.txt")
            if os.path.lexists(path):
                del texts[path]
        if path in texts:
            texts[schema_path] = schema
        for one in filter(os.path.lexists, texts):
            if one != schema_path:
                raise ValueError(f"{one} exists and is not overwritten; name another file")
            if one.read_bytes() != schema.encode():
                raise ValueError(
                    f"{one} is of another version and is not overwritten; remove it first"
                )
        for one, text in texts.items():
            storage.write_text(one, text)
            print(quoted(f"wrote {one}"))
        if path not in texts:
            print(quoted(f"add to {path}, under [[variants]]:"))
            print("".join(f"  {quoted(line)}\n" for line in table.splitlines()), end="")
        then = ("plan", path) if variant is None else ("check", variant)
        print(quoted(f"next: {typed(*then)}"))


def starter_text(name: str = "starter.toml") -> str:
    """Return the commented study to start from, as TOML, or what else is to be started from."""
    return files("isoflop.cli").joinpath(name).read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Show parameters, FLOPs and cache bytes; of a study, at the sizes expected to be best."""

    config: ConfigFile
    json: Json = False

    def __call__(self) -> None:
        rows = cost_rows(load(self.config))
        answer(rows, cost_tables(rows), json=self.json)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Show what a study would train and what that takes, before any training."""

    study: StudyFile
    accelerator: Annotated[str | None, arg(metavar="NAME")] = None
    """Device to plan for, in place of this machine."""
    utilisation: Annotated[float | None, arg(metavar="SHARE")] = None
    """Achieved over peak FLOP/s where not measured; 0.4 else."""
    bench: Annotated[Path | None, arg(metavar="FILE")] = None
    """Measured steps: RESULTS/gpu/train.json if of that device."""
    price_per_hour: Annotated[float | None, arg(metavar="PRICE")] = None
    """Of a device; adds the cost in that currency."""
    workers: Workers = None
    memory_gib: MemoryGib = None
    noise_from: Annotated[Path | None, arg(metavar="STUDY|FOLDER")] = None
    """Study whose runs tell the noise; its own if left out."""
    results: Results = RESULTS
    cache: Cache = CACHE
    json: Json = False

    def __call__(self) -> None:
        price = self.price_per_hour
        for name in ("bench", "price_per_hour", "utilisation"):
            if self.accelerator is None and getattr(self, name) is not None:
                name = name.replace("_", "-")
                raise ValueError(f"--{name} is given without --accelerator, which it is about")
        if price is not None and not 0 <= price < math.inf:
            raise ValueError(f"--price-per-hour is {price}; expected a number from 0 on")
        asked = load_study(self.study)
        machine = taken(sweep.Machine, self, memory_bytes=bytes_of(self.memory_gib))
        folders = sweep.Folders.of(asked, results=self.results, cache=self.cache)
        made, timing = sweep.plan_study(asked, folders, machine, self.noise_from)
        totals = ["total_flops", "elapsed_seconds", "idle_share", "usual_seconds", "bound_seconds"]
        totals += ["gpu_hours", "spent_flops"] if asked.reuse else ["gpu_hours"]
        told = {**made.model_dump(mode="json"), "timing": timing}
        told |= {name: getattr(made, name) for name in totals}
        if price is not None and made.gpu_hours is not None:
            told["cost"] = {name: price * hours for name, hours in made.gpu_hours.items()}
        answer(told, plan_tables(made, timing, price), json=self.json)


@dataclass(frozen=True, kw_only=True)
class Run(OfTraining):
    """Train what a study needs. After Ctrl-C the same command goes on where it stopped."""

    on: Annotated[
        Literal["local", "workers", "slurm", "ray"], arg(metavar="local|workers|slurm|ray")
    ] = "local"
    """Who trains: this machine, whoever starts `isoflop work`, or jobs of a cluster."""

    def __call__(self) -> int:
        asked, folders = self.found()
        execution = self.execution()
        with ExitStack() as left:
            if self.on != "local":
                from isoflop.sweep.cluster import cluster_of, queue_on

                cluster, given = cluster_of(self.study), self.of_workers()
                queue = queue_on(self.on, self.study, asked.name, folders, cluster, given)
                left.callback(queue.close, tell)
                execution = replace(execution, executor=queue)
            outcome = self.trained(asked, folders, execution)
        print(
            f"{outcome.finished} runs finished, {outcome.diverged} diverged, {outcome.failed} "
            f"failed, {outcome.left} left"
        )
        if outcome.stale:
            return USAGE
        begun, _ = self.settled()
        for edge in sweep.status(begun, folders.root, folders.results).edges:
            print(quoted(edge_words(edge)))
        if outcome.failed or outcome.left:
            print(quoted(f"what went wrong: {typed('status', self.study)}"))
            return FAILED
        print(quoted(f"next: {typed('report', self.study)}"))
        return 0


@dataclass(frozen=True, kw_only=True)
class Work(OfTraining):
    """Train the runs of a study that nobody has, the longest first, beside any other workers.

    Start it as often as you like, on any machine that sees the study's folder.
    """

    study: Annotated[Path, Positional, arg(metavar="STUDY|FOLDER")]
    """The study, or the folder it lives in."""
    until_idle: bool = False
    """Leave once nothing is free, in place of waiting for what others leave."""
    time_limit: Annotated[float | None, arg(metavar="MIN")] = None
    """Be gone by then, with a checkpoint of every run."""
    mixed: bool = False
    """Work beside runs of other versions; records tell which are which."""

    def __call__(self) -> int:
        limit = self.time_limit
        if self.study.is_dir():
            return replace(self, study=self.study / STUDY, out=self.out or self.study)()
        asked, folders = self.found()
        shift = Shift(None if limit is None else 60 * limit, self.until_idle, self.mixed)
        execution = self.execution(shift=shift, workers=self.workers or 1)
        outcome = self.trained(asked, folders, execution)
        print(f"{outcome.finished} runs of {asked.name} finished, {outcome.left} left")
        return USAGE if outcome.stale else 0


@dataclass(frozen=True, kw_only=True)
class Search(OfTraining):
    """Train the trials of [search], as many for every variant, and show what was found."""

    json: Json = False

    def __call__(self) -> int:
        from isoflop.fit.search import SearchResult
        from isoflop.sweep.search import search_study

        asked, folders = self.found()
        with tracking(folders.root / TRIALS, self.track, asked.name):
            outcome, made = search_study(asked, folders, self.execution())
        check_uninterrupted(outcome)
        if isinstance(made, SearchResult):
            told = {**made.model_dump(mode="json"), "toml": toml_lines(asked, made)}
            answer(told, search_tables(asked, made), json=self.json)
        else:
            answer(made, [trial_table(made)], json=self.json)
        return FAILED if outcome.left else 0


@dataclass(frozen=True, kw_only=True)
class Report(OfStudy):
    """Write figures, their tables and one self-contained page from the runs so far."""

    cache: Cache = CACHE

    def __call__(self) -> None:
        from isoflop.sweep.report import report_study

        asked, folders = self.found()
        print(quoted(f"page: {report_study(asked, folders, self.study)}"))


@dataclass(frozen=True, kw_only=True)
class Export(OfStudy):
    """Write a study's records, speeds and figures where they can be committed or shared."""

    to: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Gets a folder named as the study; --results if left out."""
    dataset: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Write a dataset for the Hugging Face hub instead."""

    def __call__(self) -> None:
        from isoflop.sweep.report import FIGURES, export_study

        asked, folders = self.settled()
        if self.dataset is not None:
            if self.to is not None:
                raise ValueError("--to is of records; with --dataset expected --results alone")
            from isoflop.interop.dataset import export_dataset
            from isoflop.results import StudyResults

            written = list(export_dataset(StudyResults(asked, folders), self.dataset))
        else:
            written = list(export_study(asked, folders.root, self.results, self.to))
        figures = [path for path in written if path.parent.name == FIGURES]
        for path in written:
            if path not in figures:
                print(quoted(f"wrote {path}"))
        if figures:
            print(quoted(f"wrote {len(figures)} files in {figures[0].parent}"))


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Free disk: delete checkpoints of runs that have a record. Records and metrics stay."""

    study: StudyFile
    out: Out = None
    everything: Annotated[bool, arg(help="Also those of the best runs.")] = False

    def __call__(self) -> None:
        asked, folders = OfStudy(study=self.study, out=self.out).settled()
        freed = sweep.clean(asked, folders.root, everything=self.everything)
        print(f"freed {size(freed.bytes)}: checkpoints of {freed.runs} runs, {freed.kept} kept")


@dataclass(frozen=True, kw_only=True)
class Rebuild(OfStudy):
    """Train the best models of a study again where their checkpoints are gone, and compare.

    Best is the lowest validation loss of each variant and budget, as `isoflop clean` keeps. After
    Ctrl-C the same command goes on.
    """

    variant: Annotated[str | None, Positional, arg(metavar="[VARIANT]")] = None
    """The only one to rebuild."""
    workers: Workers = None
    device: Device = "cpu"
    cache: Cache = CACHE

    def __call__(self) -> int:
        asked, folders = self.settled()
        models = sweep.best_models(asked, folders.root, self.results, self.variant)
        gone = [model for model in models if not model.at_hand]
        for model in models:
            if model.at_hand:
                print(quoted(f"{model.variant}: its checkpoint is in {model.folder.path}"))
        if not gone:
            return 0
        execution = sweep.Execution(self.workers, self.device)
        made, interrupted = sweep.rebuild(asked, folders, gone, execution)
        for one in made:
            print(quoted(described(one)))
        if interrupted:
            raise KeyboardInterrupt
        finished = sum(one.record.state == "finished" for one in made)
        return 0 if finished == len(gone) else FAILED
