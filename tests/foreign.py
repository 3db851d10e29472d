"""Tokenisers as others make them, as the `tokenizer.json` of the `tokenizers` library."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "the state of the union is strong, and our law shall keep it.\n\n \u00dcber alles 2026! " * 9
]
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""As in vocabularies from GPT-4's on: ends of lines join what stands before them."""


def byte_level(
    path: Path, size: int = 300, *, special: tuple[str, ...] = ("<|endoftext|>",)
) -> Path:
    """Write byte-level BPE as Llama 3 and Qwen have it, special tokens behind all others."""
    library = Tokenizer(models.BPE())
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special), initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(TEXTS, trainer)
    library.add_special_tokens(list(special))
    library.enable_truncation(8)
    library.save(str(path))
    return path


def with_fallback(path: Path) -> Path:
    """Write BPE over characters with bytes to fall back on, as Llama 2 and Mistral have it."""
    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    learnt.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    told = json.loads(learnt.to_str())["model"]
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    ordered = sorted(told["vocab"], key=told["vocab"].get)
    library = Tokenizer(
        models.BPE(
            vocab={one: at for at, one in enumerate([*first, *ordered])},
            merges=[tuple(one) for one in told["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    library.add_special_tokens(first[:3])
    library.normalizer = learnt.normalizer
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    library.save(str(path))
    return path
