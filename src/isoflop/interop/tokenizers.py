"""The tokeniser of a run as the `tokenizer.json` that the tools of Hugging Face read."""

from __future__ import annotations

from typing import Any

from isoflop.data import ByteTokenizer, Tokenizer
from isoflop.data.tokenizer import END, IdTokenizer, byte_characters


def tokenizer_json(tokenizer: Tokenizer, *, begins: bool) -> str | None:
    """Return `tokenizer.json`; None where nothing but the number of ids is known.

    Args:
        tokenizer: of a run.
        begins: whether a text begins with what ends documents, as where windows go across them.
    """
    if isinstance(tokenizer, IdTokenizer):
        return None
    from tokenizers import Tokenizer as Library
    from tokenizers import processors

    if isinstance(tokenizer, ByteTokenizer):
        library = _bytes()
    else:
        library = Library.from_str(tokenizer.specification)
    end = tokenizer.end_text
    library.no_truncation()
    library.no_padding()
    library.post_processor = None
    if begins:
        library.post_processor = processors.TemplateProcessing(
            single=[end, "$A"], pair=[end, "$A", "$B:0"], special_tokens=[(end, tokenizer.end)]
        )
    return str(library.to_str(pretty=True))


def tokenizer_config(sequence_length: int, end: str = END) -> dict[str, Any]:
    """Return `tokenizer_config.json`, which names the class and what ends a text."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end,
        "pad_token": end,
        "model_max_length": sequence_length,
        "clean_up_tokenization_spaces": False,
    }


def _bytes() -> Any:
    """Return byte-level BPE that merges nothing: an id per byte, 0 for the end of a document."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models, pre_tokenizers

    spelled = {END: 0, **{one: byte for byte, one in enumerate(byte_characters()) if byte}}
    library = Library(models.BPE(vocab=spelled, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([END])
    return library
