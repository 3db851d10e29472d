"""A run on token ids of others: losses per token, and nothing that would need their text."""

from __future__ import annotations

import json

import pytest

from isoflop.fit.tables.frame import frame


@pytest.fixture
def folder(make_run):
    return make_run("routed", "ids:50:3")


def test_losses_are_told_per_token_alone(folder, on_run):
    record = folder.record()
    assert record.state == "finished"
    assert len(record.evaluations) > 2
    assert all(one.bits_per_byte is None for one in record.evaluations)
    assert frame([record], {record.run_id: "a"})["bits_per_byte"].isna().all()
    shown = on_run("eval", folder)
    assert "nats per token" in shown
    assert f"{record.evaluation('test').loss:.4f}" in shown
    found = folder.evaluation()
    assert {one.bits_per_byte for one in found.measures.decisions} == {None}
    # Ids have no text, so they are named themselves.
    assert all(text == f"<{token}>" for token, text in found.token_texts.items())


def test_other_ids_can_be_read_and_text_cannot(folder, on_run, trained_root):
    own = folder.record().data_sha256
    other = trained_root / "other.bin"
    found = json.loads(on_run("eval", folder, "--corpus", other, "--json"))
    assert found["data_sha256"] != own
    told = on_run("eval", folder, "--corpus", trained_root / "other.jsonl", code=2)
    assert "expected a .bin or .npy file of token ids" in told


def test_nothing_is_written_in_ids(folder, on_run):
    told = on_run("sample", folder, "--prompt", "the", code=2)
    assert "was trained on token ids, whose text is not known" in told
