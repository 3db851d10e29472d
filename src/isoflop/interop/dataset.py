"""A study's runs as a dataset for the Hugging Face hub: Parquet, a card, a citation."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from isoflop import storage
from isoflop.config import RunRecord
from isoflop.results import StudyResults
from isoflop.text import quoted
from isoflop.version import __version__

FILES = ("runs", "evaluations", "curves")
CARD, CITATION = "README.md", "CITATION.cff"
BEGIN = {
    CARD: "---\ntags: [scaling-laws, isoflop]\n",
    CITATION: "cff-version: 1.2.0\nmessage: If you use these runs, please cite them as below.\n",
}
"""How files of text begin, by which a folder is known again that was written here."""


def export_dataset(results: StudyResults, out: Path) -> list[Path]:
    """Write `runs`, `evaluations` and `curves` as Parquet, with `README.md` and `CITATION.cff`.

    Args:
        results: of a study.
        out: the folder; what was written there before is replaced.

    Returns:
        The files written.

    Raises:
        ValueError: no run has a record, pyarrow is not installed, or a file is there that was not
            written here.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise ValueError('Parquet needs pyarrow; pip install "isoflop[parquet]"') from None
    _check_own(out)
    records = list(results.analysis.records.values())
    tables = {
        "runs": results.runs.assign(
            config=[one.config.model_dump_json() for one in _ordered(results)]
        ),
        "evaluations": pd.DataFrame(row for one in records for row in _evaluations(one)),
        "curves": pd.DataFrame(row for one in records for row in _curve(one)),
    }
    storage.make_folder(out)
    # The card first, by which a folder is known again that was written in part.
    texts = {CARD: _card(results, len(tables["runs"])), CITATION: _citation(results)}
    for file, text in texts.items():
        storage.write_text(out / file, text)
    for name, table in tables.items():
        storage.write_bytes(out / f"{name}.parquet", table.to_parquet(index=False))
    return [out / file for file in (*texts, *(f"{name}.parquet" for name in tables))]


def _check_own(out: Path) -> None:
    """Raise a ValueError of one line where a file is there that was not written here."""
    card = out / CARD
    for path in (card, out / CITATION, *(out / f"{name}.parquet" for name in FILES)):
        shown = path if path.name in BEGIN else card
        start = BEGIN[shown.name].encode()
        own = shown.is_file() and shown.read_bytes().startswith(start)
        if os.path.lexists(path) and not own:
            raise ValueError(quoted(f"{path} exists and is not overwritten; name another folder"))


def _ordered(results: StudyResults) -> list[RunRecord]:
    return [results.analysis.records[run_id] for run_id in results.runs["run_id"]]


def _evaluations(record: RunRecord) -> list[dict[str, object]]:
    kept = {"split", "decision", "weights", "loss", "bits_per_byte", "tokens"}
    return [
        {"run_id": record.run_id, **one.model_dump(mode="json", include=kept)}
        | {"weights": one.weights}
        for one in record.evaluations
        if one.cap is None
    ]


def _curve(record: RunRecord) -> list[dict[str, object]]:
    tokens = record.config.tokens_per_step
    return [
        {"run_id": record.run_id, "step": one.step, "tokens": one.step * tokens, "loss": one.loss}
        for one in record.curve
    ]


def _card(results: StudyResults, runs: int) -> str:
    study, unit = results.study, results.study.data.loss_unit
    configs = "\n".join(
        f"  - config_name: {name}\n    data_files: {name}.parquet" for name in FILES
    )
    names = ", ".join(variant.name for variant in study.variants)
    data = study.data
    told = (
        f"{runs} training runs of {names} on {', '.join(data.corpora)} (`{data.tokenizer_name}`, "
        f"windows of {data.sequence_length} tokens), counted as `{study.convention}`. Made with "
        f"isoflop {__version__}."
    )
    return f"""{BEGIN[CARD]}configs:
{configs}
---

# {study.name}

{told}

{results.answer}

- `runs`: a row for each run: variant, seed, shape, parameters, tokens, forward FLOPs per token,
  losses ({unit}), and its whole configuration as JSON.
- `evaluations`: held-out losses by split and routing decision.
- `curves`: training losses, each the mean since the point before.
"""


def _citation(results: StudyResults) -> str:
    name = results.study.name
    return f"""{BEGIN[CITATION]}type: dataset
title: "{name}: training runs of an isoflop study"
authors:
  - name: The authors of the study {name}
references:
  - type: software
    title: "isoflop: transformer variants compared at equal training compute"
    authors:
      - name: The isoflop developers
    version: {__version__}
"""
