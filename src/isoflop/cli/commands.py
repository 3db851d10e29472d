"""The subcommands. Each reads its study, calls one room and shows what came back.

Rooms are imported inside, so that `isoflop --help` starts without torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from isoflop.cli.bench_commands import bench
from isoflop.cli.fit_options import FitOptions
from isoflop.cli.options import (
    CACHE,
    RESULTS,
    RUNS,
    Cache,
    ConfigFile,
    Device,
    Json,
    Out,
    Results,
    StudyFile,
    Workers,
)
from isoflop.config import Decision
from isoflop.config.problems import quoted

app = SubcommandApp()


@app.command
def init(
    path: Annotated[Path, Positional, arg(metavar="[PATH]", help="Where to write it.")] = Path(
        "study.toml"
    ),
) -> None:
    """Write a commented study to start from, and its JSON Schema for editors beside it."""
    from isoflop.cli.starter import write_starter

    for written in write_starter(path):
        print(quoted(f"wrote {written}"))
    print(quoted(f"next: isoflop plan {path}"))


@app.command
def costs(
    config: ConfigFile,
    json: Json = False,
) -> None:
    """Show parameters, FLOPs and cache bytes; of a study, at the sizes expected to be best."""
    from isoflop.cli.costing import cost_rows
    from isoflop.cli.tables import cost_tables, show, show_json
    from isoflop.config.load import load

    rows = cost_rows(load(config))
    if json:
        show_json([row.model_dump(mode="json") for row in rows])
    else:
        show(cost_tables(rows))


@app.command
def plan(
    study: StudyFile,
    accelerator: Annotated[
        str | None, arg(metavar="NAME", help="Device to plan for, in place of this machine.")
    ] = None,
    utilisation: Annotated[float, arg(help="Achieved over peak FLOP/s of the device.")] = 0.4,
    workers: Workers = None,
    cache: Cache = CACHE,
    json: Json = False,
) -> None:
    """Show what a study would train and what that takes, before any training."""
    from isoflop.cli.planned import plan_json, plan_tables
    from isoflop.cli.plans import plan_study
    from isoflop.cli.tables import show, show_json
    from isoflop.config.load import load_study

    made, timing = plan_study(load_study(study), accelerator, utilisation, workers, cache)
    if json:
        show_json(plan_json(made, timing))
    else:
        show(plan_tables(made, timing))


@app.command
def train(
    config: ConfigFile,
    run_id: Annotated[
        str | None, Positional, arg(metavar="[RUN_ID]", help="Which run of a study.")
    ] = None,
    out: Out = None,
    results: Results = RESULTS,
    cache: Cache = CACHE,
    device: Device = "cpu",
    threads: Annotated[int | None, arg(metavar="INT", help="CPU threads of torch.")] = None,
) -> int:
    """Train one model: a run file, or one run of a study. After Ctrl-C it goes on."""
    from isoflop.cli.single import run_of, train_one
    from isoflop.config import RunConfig
    from isoflop.config.load import load
    from isoflop.runs import RunStore

    found = load(config)
    if isinstance(found, RunConfig):
        run, folder = found, RunStore(out or RUNS / "single").folder(found.run_id)
    elif run_id is None:
        raise ValueError(
            f"{config} is a study; name one of the runs that `isoflop plan {config}` lists, "
            f"or train all of it: isoflop run {config}"
        )
    else:
        run, folder = run_of(found, out or RUNS / found.name, results, run_id)
    return train_one(run, folder, cache=cache, device=device, threads=threads)


@app.command(name="eval")
def eval_(
    checkpoint: Annotated[
        Path,
        Positional,
        arg(metavar="CHECKPOINT", help="Folder of a finished run: runs/STUDY/runs/RUN_ID."),
    ],
    split: Annotated[Literal["test", "validation"], arg(help="Held-out text to read.")] = "test",
    tokens: Annotated[
        int | None, arg(metavar="INT", help="Tokens to read; the run's evaluation_tokens else.")
    ] = None,
    corpus: Annotated[
        str | None,
        arg(metavar="NAME", help="Another corpus to read, with the run's tokeniser."),
    ] = None,
    decisions: Annotated[
        tuple[Decision, ...], arg(help="Who decides, top-k aside; all that the model knows else.")
    ] = (),
    cache: Cache = CACHE,
    device: Annotated[Literal["cpu", "cuda"], arg(help="What to evaluate on.")] = "cpu",
    threads: Annotated[
        int | None, arg(metavar="INT", help="CPU threads of torch; as in training else.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a trained model by routing decision: loss, the leak, agreement with top-k, tokens.

    Without options that say otherwise, the result is kept as evaluation.json in the run's folder.
    """
    from isoflop.cli.evaluated import evaluation_tables
    from isoflop.cli.evaluating import evaluate_run, keep
    from isoflop.cli.tables import show, show_json
    from isoflop.runs import RunFolder

    folder = RunFolder(checkpoint)
    found = evaluate_run(
        folder,
        cache=cache,
        split=split,
        tokens=tokens,
        corpus=corpus,
        among=decisions,
        device=device,
        threads=threads,
    )
    if split == "test" and tokens is None and corpus is None and not decisions:
        print(quoted(f"wrote {keep(folder, found)}"), file=sys.stderr)
    if json:
        show_json(found.model_dump(mode="json"))
    else:
        show(evaluation_tables(found, folder.config()))


@app.command
def sample(
    checkpoint: Annotated[
        Path,
        Positional,
        arg(metavar="CHECKPOINT", help="Folder of a finished run: runs/STUDY/runs/RUN_ID."),
    ],
    prompt: Annotated[str, arg(metavar="TEXT", help="What is continued.")] = "",
    tokens: Annotated[int, arg(help="Tokens to draw, unless the document ends before.")] = 200,
    temperature: Annotated[float, arg(help="Divides the logits; 0 takes the likeliest.")] = 0.8,
    top_k: Annotated[
        int | None, arg(metavar="INT", help="Draw from so many likely tokens; all else.")
    ] = None,
    top_p: Annotated[float, arg(help="Draw from the likeliest of this probability.")] = 1.0,
    min_p: Annotated[
        float, arg(help="Draw from tokens at least so many times as likely as the likeliest.")
    ] = 0.0,
    seed: Annotated[int, arg(help="The same seed gives the same text.")] = 0,
    decision: Annotated[
        Decision | None, arg(help="Who decides, not top_k; the model's headline decision else.")
    ] = None,
    cap_window: Annotated[
        int | None, arg(metavar="INT", help="Cap what a block processes in so many positions.")
    ] = None,
    cap_tokens: Annotated[
        int | None, arg(metavar="INT", help="The cap; what the capacity makes of the window else.")
    ] = None,
    cache: Cache = CACHE,
    threads: Annotated[
        int | None, arg(metavar="INT", help="CPU threads of torch; as in training else.")
    ] = None,
    plain: Annotated[bool, arg(help="Text without colours.")] = False,
    write: Annotated[
        bool, arg(help="Keep it as sample.json in the run's folder, for the report.")
    ] = False,
    json: Annotated[bool, arg(help="Print JSON when it is done, in place of text.")] = False,
) -> None:
    """Generate text, each token coloured by how many routed blocks processed it."""
    from isoflop.cli.sampled import TextDisplay, summary
    from isoflop.cli.sampling import Wishes, cap_of, keep, sample_run
    from isoflop.cli.tables import show_json
    from isoflop.runs import RunFolder

    folder = RunFolder(checkpoint)
    wishes = Wishes(
        prompt=prompt,
        tokens=tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        decision=decision,
        cap=cap_of(cap_window, cap_tokens),
    )
    if json:
        found = sample_run(folder, wishes, cache=cache, show=lambda _: None, threads=threads)
        show_json(found.model_dump(mode="json"))
    else:
        routed = len(folder.config().model.routed_blocks)
        with TextDisplay(routed, plain=plain) as display:
            found = sample_run(folder, wishes, cache=cache, show=display.show, threads=threads)
        print(summary(found), file=sys.stderr)
    if write:
        print(quoted(f"wrote {keep(folder, found)}"), file=sys.stderr)


@app.command
def run(
    study: StudyFile,
    out: Out = None,
    workers: Workers = None,
    device: Device = "cpu",
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> int:
    """Train what a study needs. After Ctrl-C the same command goes on where it stopped."""
    from isoflop.config.load import load_study
    from isoflop.sweep import run_study

    asked = load_study(study)
    outcome = run_study(
        asked,
        out or RUNS / asked.name,
        cache,
        workers=workers,
        device=device,
        results=results,
    )
    if outcome.interrupted:
        raise KeyboardInterrupt
    print(
        f"{outcome.finished} runs finished, {outcome.diverged} diverged, {outcome.failed} failed, "
        f"{outcome.left} left"
    )
    if outcome.failed or outcome.left:
        print(quoted(f"what went wrong: isoflop status {study}"))
        return 1
    print(quoted(f"next: isoflop report {study}"))
    return 0


@app.command
def search(
    study: StudyFile,
    out: Out = None,
    workers: Workers = None,
    results: Results = RESULTS,
    cache: Cache = CACHE,
) -> int:
    """Train the trials of [search], the same for every variant, and show which was best."""
    from isoflop.cli.searching import found_trials, search_study, search_table
    from isoflop.cli.tables import show
    from isoflop.config.load import load_study

    asked = load_study(study)
    root = out or RUNS / asked.name
    outcome = search_study(asked, root, results, cache, workers)
    if outcome.interrupted:
        raise KeyboardInterrupt
    show([search_table(found_trials(asked, root, results))])
    return 1 if outcome.left else 0


@app.command
def status(
    study: StudyFile, out: Out = None, results: Results = RESULTS, json: Json = False
) -> None:
    """Show how far a study is, where its minima lie, and which runs failed."""
    from isoflop.cli.standing import status_json, status_tables
    from isoflop.cli.tables import show, show_json
    from isoflop.config.load import load_study
    from isoflop.sweep import status as find

    asked = load_study(study)
    found = find(asked, out or RUNS / asked.name, results)
    if json:
        show_json(status_json(found))
    else:
        show(status_tables(found, f"isoflop run {study}"))


@app.command
def report(
    study: StudyFile, out: Out = None, results: Results = RESULTS, cache: Cache = CACHE
) -> None:
    """Write figures, their tables and one self-contained page from the runs so far."""
    from isoflop.cli.reporting import report_study
    from isoflop.config.load import load_study

    asked = load_study(study)
    command = f"isoflop report {study}"
    page = report_study(asked, out or RUNS / asked.name, results, cache, command)
    print(quoted(f"page: {page}"))


@app.command
def fit(
    options: Annotated[FitOptions, arg(name="")],
    baseline: Annotated[
        str | None, arg(metavar="VARIANT", help="Whom the others are held against.")
    ] = None,
    margin: Annotated[
        float | None, arg(metavar="LOSS", help="Difference of loss that counts as none.")
    ] = None,
    cluster: Annotated[
        str | None,
        arg(metavar="COLUMN", help="Runs that share its value share noise, which surfaces heed."),
    ] = None,
) -> None:
    """Fit loss against size and tokens, with intervals, and compare variants."""
    from isoflop.cli.fitting import fit_tables, runs_to_fit, scaling_study
    from isoflop.cli.scaling import fit_scaling_study, scaling_tables
    from isoflop.cli.tables import show, show_json
    from isoflop.fit import fit_runs

    scaled = scaling_study(options.runs)
    if scaled is not None:
        fitted = fit_scaling_study(
            scaled,
            RUNS / scaled.name,
            options.results,
            baseline=baseline,
            margin=margin,
            level=options.level,
        )
        if options.json:
            show_json(fitted.model_dump(mode="json"))
        else:
            show(scaling_tables(fitted, scaled.data.loss_unit))
        return
    found, study = runs_to_fit(options, RUNS, cluster=cluster)
    names = found.table["variant"].drop_duplicates().tolist()
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    if study is not None:
        baseline = baseline or study.baseline_variant.name
        margin = margin or study.equivalence_margin
    result = fit_runs(
        found.table,
        baseline=baseline,
        margin=margin,
        delta=options.delta,
        level=options.level,
        resamples=options.resamples,
        seed=options.seed,
        cluster=None if cluster is None else "cluster",
        curves=found.curves,
        loss_unit=found.loss_unit,
    )
    if options.json:
        show_json(result.model_dump(mode="json"))
    else:
        show(fit_tables(result, found))


@app.command
def predict(
    options: Annotated[FitOptions, arg(name="")],
    budget: Annotated[float, arg(metavar="FLOPS", help="Training FLOPs to predict for.")],
    register: Annotated[
        Path | None, arg(metavar="FILE", help="Write the prediction there, before it is trained.")
    ] = None,
) -> None:
    """Predict the optimal size, tokens and loss at a budget that is not trained yet."""
    from isoflop.cli.fitting import runs_to_fit
    from isoflop.cli.predicting import prediction_tables, predictions
    from isoflop.cli.tables import show, show_json
    from isoflop.report.registration import register as write_down

    found, study = runs_to_fit(options, RUNS)
    made, tested = predictions(found, budget, options)
    if register is not None:
        write_down(register, study.name if study else options.runs.name, found.table, made)
        print(quoted(f"wrote {register}"), file=sys.stderr)
    if options.json:
        show_json(
            {
                "predictions": [one.model_dump(mode="json") for one in made],
                "leave_largest_out": [one.model_dump(mode="json") for one in tested],
            }
        )
    else:
        show(prediction_tables(made, tested, options.level))


@app.command
def export(
    study: StudyFile,
    to: Annotated[Path, arg(metavar="FOLDER", help="Gets a folder named as the study.")] = RESULTS,
    out: Out = None,
) -> None:
    """Write a study's records, speeds and figures where they can be committed or shared."""
    from isoflop.cli.reporting import export_figures, export_routed, export_speeds
    from isoflop.cli.searching import export_search
    from isoflop.config.load import load_study
    from isoflop.sweep import export as write

    asked = load_study(study)
    root = out or RUNS / asked.name
    print(quoted(f"wrote {write(asked, root, to)}"))
    for written in (export_search(asked, root, to), export_speeds(asked, root, to)):
        if written is not None:
            print(quoted(f"wrote {written}"))
    for written in export_routed(asked, root, to):
        print(quoted(f"wrote {written}"))
    figures = export_figures(asked, root, to)
    if figures:
        print(quoted(f"wrote {len(figures)} files in {figures[0].parent}"))


@app.command
def clean(
    study: StudyFile,
    out: Out = None,
    everything: Annotated[bool, arg(help="Also those of the best runs.")] = False,
) -> None:
    """Free disk: delete checkpoints of runs that have a record. Records and metrics stay."""
    from isoflop.cli.tables import size
    from isoflop.config.load import load_study
    from isoflop.sweep import clean as discard

    asked = load_study(study)
    freed = discard(asked, out or RUNS / asked.name, everything=everything)
    print(f"freed {size(freed.bytes)}: checkpoints of {freed.runs} runs, {freed.kept} kept")


app.command(bench, name="bench", help="Measure throughput on this machine.")
