"""A trained model as it is found: of a finished run, or in the folder of a checkpoint.

Torch, which takes seconds to load, is imported when the model or its tokeniser is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from isoflop.config import DataConfig, Decision, Recipe, RunConfig, RunRecord
from isoflop.config.problems import describe
from isoflop.config.start import CONFIG, described_model, weight_files
from isoflop.runs import RunFolder
from isoflop.strict_json import parse_json
from isoflop.text import quoted, typed

if TYPE_CHECKING:
    from isoflop.data import Tokenizer, TokenStore
    from isoflop.model import Transformer

CACHE = Path("cache")
LONGEST_WINDOW = 2048
"""Tokens of a checkpoint's windows at most, however many it is meant for."""


@dataclass(frozen=True)
class Opened:
    """A trained model that can be asked something."""

    folder: Path
    config: RunConfig
    """The run's. Of a checkpoint what is known: its model, its tokeniser, its windows."""
    record: RunRecord | None
    """None for a checkpoint, of which nobody knows what it was trained on."""
    decision: Decision | None = None
    """Who routes, as a checkpoint says; None for the model's headline decision."""

    @classmethod
    def of(cls, folder: Path) -> Opened:
        """Open a run's folder, or a checkpoint's: safetensors with config.json and tokenizer.json.

        Raises:
            ValueError: the folder is neither, its run is not finished, or nothing like its model is
                supported here; in one line.
        """
        if not is_checkpoint(folder):
            record = finished_record(RunFolder(folder))
            return cls(folder, record.config, record)
        weight_files(folder)
        told, path = described_model(folder), folder / "tokenizer.json"
        if not path.is_file():
            raise ValueError(
                quoted(f"{folder} has no tokenizer.json; expected it beside a checkpoint's weights")
            )
        try:
            data = DataConfig(
                tokenizer=str(path), sequence_length=min(told.longest, LONGEST_WINDOW)
            )
        except ValidationError as error:
            raise ValueError(quoted("; ".join(describe(error, DataConfig)))) from None
        if data.vocabulary > told.model.vocabulary:
            ids = f"{data.vocabulary} ids and the model {told.model.vocabulary}"
            raise ValueError(quoted(f"{path} has {ids}; expected the model's own"))
        config = RunConfig(
            model=told.model,
            data=data,
            recipe=Recipe(precision="fp32"),
            steps=1,
            sequences_per_step=1,
            seed=told.seed,
        )
        return cls(folder, config, None, told.decision)

    @property
    def name(self) -> str:
        """The run's id, or the checkpoint's folder."""
        return str(self.folder) if self.record is None else self.record.run_id

    def use_threads(self, threads: int | None) -> None:
        """Have torch use so many threads, as many as in training if None."""
        import torch

        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; expected at least 1")
        trained = None if self.record is None else self.record.environment.threads
        torch.set_num_threads(threads or trained or torch.get_num_threads())

    def model(self, device: str = "cpu") -> Transformer:
        """Return the model, in evaluation mode, in float32."""
        if self.record is not None:
            from isoflop.training import load_model

            return load_model(RunFolder(self.folder), device)
        from isoflop.model.pretrained import loaded

        return loaded(self.folder)[0].to(device)

    def tokenizer(self, cache: Path) -> Tokenizer:
        """Return the tokeniser, of a run from its prepared corpus if need be."""
        from isoflop.data import ByteTokenizer
        from isoflop.data.tokenizer import LibraryTokenizer

        if self.config.data.tokenizer == "bytes":
            return ByteTokenizer()
        if self.record is not None:
            return self.store(cache).tokenizer
        file = self.config.data.tokenizer
        assert not isinstance(file, str)
        return LibraryTokenizer(file.content(), file.end, self.config.model.vocabulary)

    def leads(self, tokenizer: Tokenizer) -> Sequence[int]:
        """Return the ids that stand before a text: in a run's stream the end of another."""
        if self.record is None:
            return list(getattr(tokenizer, "leads", ()))
        return self.config.data.ends if self.config.data.windows == "stream" else ()

    def store(self, cache: Path) -> TokenStore:
        """Return what a run was trained on; a ValueError of one line where that changed."""
        from isoflop.data import prepare

        data, record = self.config.data, self.record
        assert record is not None
        store = prepare(data, cache)
        if store.sha256 != record.data_sha256:
            as_another = ", or read it as another one with --corpus"
            raise ValueError(
                f"the data of run {record.run_id} changed: it was trained on SHA-256 "
                f"{record.data_sha256}, now the data has {store.sha256}; restore the corpus"
                f"{'' if data.tokenizer_name.startswith('bpe:') else as_another}"
            )
        return store

    def text(self, corpus: str | None, cache: Path) -> tuple[DataConfig, TokenStore]:
        """Return what is read of it, and its store: another corpus, or the run's own."""
        from isoflop.data import prepare

        own = self.config.data
        if corpus is None:
            if self.record is None:
                said = "which names no text; expected --corpus with what is to be read"
                raise ValueError(quoted(f"{self.folder} is a checkpoint's folder, {said}"))
            return own, self.store(cache)
        # Whose tokeniser is to be had by its text alone.
        trained = own.tokenizer_name.startswith("bpe:")
        other = DataConfig.model_validate({**own.model_dump(), "corpus": corpus})
        return other, prepare(other, cache, self.store(cache).tokenizer if trained else None)


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is meant to be a checkpoint's: it has weights, or tells a model."""
    try:
        told = parse_json((folder / CONFIG).read_bytes(), str(folder))
    except (OSError, ValueError):
        told = None
    return any(folder.glob("*.safetensors")) or (isinstance(told, dict) and "model_type" in told)


def finished_record(folder: RunFolder) -> RunRecord:
    """Return the record of a run that is finished and has its checkpoint."""
    wrong = "a checkpoint's folder, not a run's" if is_checkpoint(folder.path) else None
    if not (folder.path / "config.json").is_file():
        lacks = "it has no config.json" if folder.path.is_dir() else "there is none"
        wrong = f"not a run folder: {lacks}"
    if wrong is not None:
        raise ValueError(f"{folder.path} is {wrong}; expected one such as runs/STUDY/runs/RUN_ID")
    folder.config()  # refused where it is a link, or damaged
    record = folder.record()
    if record is None or record.state != "finished":
        raise ValueError(
            f"the run of {folder.path} is {folder.state()}; expected a finished one, "
            "whose model is the one that its record tells of"
        )
    if not folder.checkpoints.is_dir() or not any(folder.checkpoints.iterdir()):
        root = folder.path.absolute().parents[1]
        study = root / "study.json"
        hint = (
            f"`{typed('rebuild', study, '--out', root)}` trains the best models of its study again"
        )
        if not study.is_file():  # the folder itself has its record, and is trained no more
            again = typed("train", folder.path / "config.json", "--out", "FOLDER")
            hint = f"train the model again, elsewhere: {again}"
        raise ValueError(f"{folder.path} has no checkpoint, as after `isoflop clean`; {hint}")
    return record
