"""The subcommands on one model: train it, measure it, let it write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from isoflop import storage
from isoflop.cli.options import (
    CACHE,
    RESULTS,
    RUNS,
    Cache,
    CapTokens,
    CapWindow,
    Checkpoint,
    ConfigFile,
    Device,
    Json,
    MemoryGib,
    Out,
    Results,
    TorchThreads,
    bytes_of,
    cap_of,
)
from isoflop.config import Decision
from isoflop.text import quoted


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
    memory_gib: MemoryGib = None,
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
    return train_one(
        run,
        folder,
        cache=cache,
        device=device,
        threads=threads,
        memory_bytes=bytes_of(memory_gib),
    )


def evaluate(
    checkpoint: Checkpoint,
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
    cap_window: CapWindow = None,
    cap_tokens: CapTokens = None,
    cache: Cache = CACHE,
    device: Annotated[Literal["cpu", "cuda"], arg(help="What to evaluate on.")] = "cpu",
    threads: TorchThreads = None,
    precision: Annotated[
        Literal["bf16", "fp32"] | None, arg(metavar="bf16|fp32", help="The run's if left out.")
    ] = None,
    out: Annotated[Path | None, arg(metavar="FILE", help="Write it there, as JSON.")] = None,
    json: Json = False,
) -> None:
    """Measure a trained model by routing decision: loss, the leak, agreement with top-k, tokens.

    Without options that say otherwise, the result is kept as evaluation.json in the run's folder.
    Under a cap, each causal decision is shown as it is and capped.
    """
    from isoflop.cli.evaluated import evaluation_tables
    from isoflop.cli.evaluating import evaluate_run, keep
    from isoflop.cli.tables import show, show_json
    from isoflop.runs import RunFolder

    folder = RunFolder(checkpoint)
    cap = cap_of(cap_window, cap_tokens)
    found = evaluate_run(
        folder,
        cache=cache,
        split=split,
        tokens=tokens,
        corpus=corpus,
        among=decisions,
        cap=cap,
        device=device,
        threads=threads,
        precision=precision,
    )
    usual = split == "test" and tokens is None and corpus is None and precision is None
    if usual and not decisions and cap is None:
        print(quoted(f"wrote {keep(folder, found)}"), file=sys.stderr)
    if out is not None:
        storage.write_json(out, found.model_dump(mode="json"))
        print(quoted(f"wrote {out}"), file=sys.stderr)
    if json:
        show_json(found.model_dump(mode="json"))
    else:
        show(evaluation_tables(found, folder.config()))


def sample(
    checkpoint: Checkpoint,
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
    cap_window: CapWindow = None,
    cap_tokens: CapTokens = None,
    cache: Cache = CACHE,
    threads: TorchThreads = None,
    plain: Annotated[bool, arg(help="Text without colours.")] = False,
    write: Annotated[
        bool, arg(help="Keep it as sample.json in the run's folder, for the report.")
    ] = False,
    json: Annotated[bool, arg(help="Print JSON when it is done, in place of text.")] = False,
) -> None:
    """Generate text, each token coloured by how many routed blocks processed it."""
    from isoflop.cli.sampled import TextDisplay, summary
    from isoflop.cli.sampling import Wishes, keep, sample_run
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
