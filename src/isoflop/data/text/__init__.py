"""Corpora of text: surveyed, tokenised and written, and gone on with where that was stopped."""

from isoflop.data.text.build import UNFINISHED, build_from_text
