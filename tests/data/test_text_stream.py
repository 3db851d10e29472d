"""Text of ids that come one at a time, whole characters at once."""

from __future__ import annotations

import pytest

from isoflop.data import BpeTokenizer, ByteTokenizer, TextStream

TEXT = "a\u00e9\u4e2d\U0001f600z"


def pieces_of(tokenizer, ids):
    stream = TextStream(tokenizer)
    return [stream.add(one, last=place == len(ids) - 1) for place, one in enumerate(ids)]


def test_a_character_comes_with_its_last_byte():
    found = pieces_of(ByteTokenizer(), list(TEXT.encode()))
    assert found == ["a", "", "\u00e9", "", "", "\u4e2d", "", "", "", "\U0001f600", "z"]


@pytest.mark.parametrize(
    "made_up",
    [
        b"\xff\x1b[31m",
        b"a\x80\x80b",
        b"\xc3(",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98",
        b"\xe4\xb8",
        b"\xf0\x9fz\xc3",
    ],
)
def test_what_is_not_utf_8_is_replaced_as_if_decoded_at_once(made_up):
    found = pieces_of(ByteTokenizer(), list(made_up))
    assert "".join(found) == made_up.decode(errors="replace")
    assert "\N{REPLACEMENT CHARACTER}" in "".join(found)


def test_the_end_of_a_document_is_no_text():
    stream = TextStream(ByteTokenizer())
    assert [stream.add(one) for one in (0, 0x61, 0xC3, 0, 0xA9)] == ["", "a", "", "", "\u00e9"]


def test_bpe_pieces_join_to_the_text():
    tokenizer = BpeTokenizer.train(iter([TEXT.encode() * 3 + b" union of states"]), 262)
    ids = tokenizer.encode([TEXT.encode()])[0].tolist()
    assert "".join(pieces_of(tokenizer, ids)) == TEXT
