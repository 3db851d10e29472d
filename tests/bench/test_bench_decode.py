"""What is measured of decoding, what the ratios are of, and how it reads."""

from __future__ import annotations

import itertools
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec

import pytest
import torch

from isoflop.bench import DecodeReport, bench_decode, decode, decode_cases, measured
from isoflop.bench.decode import DecodeCase, EngineDecoder, LlamaDecoder, measure, turn
from isoflop.config import ModelConfig
from isoflop.costs import cache_bytes, forward_flops, parameters
from isoflop.generation import Engine, nominal_share
from isoflop.model import build

CONTEXT, BATCH = 24, 3


def case(**changes: object) -> DecodeCase:
    model = ModelConfig(vocabulary=40, width=20, blocks=4, heads=2, head_width=6, hidden=28)
    settings = {
        "model": model,
        "context": CONTEXT,
        "batch": BATCH,
        "threads": 1,
        "dtype": "fp32",
        "seconds": 0,
    }
    return DecodeCase.model_validate({**settings, **changes})


def decoder(*, routed: bool, dtype: torch.dtype = torch.float32) -> EngineDecoder:
    model = case().routed if routed else case().model
    return EngineDecoder(model, CONTEXT, BATCH, 8, dtype)


def test_cases_are_every_combination_once() -> None:
    cases = decode_cases(contexts=(2048, 256, 256), batches=(16, 1), threads=(1,), dtypes=("fp32",))
    found = [(one.batch, one.context) for one in cases]
    assert found == [(1, 256), (1, 2048), (16, 256), (16, 2048)]
    standard = decode_cases()
    assert {(one.context, one.batch, one.dtype) for one in standard} == set(
        itertools.product((256, 1024, 2048, 8192), (1, 16), ("fp32", "bf16"))
    )
    for one in standard:
        assert (one.model.width, one.model.blocks, one.model.vocabulary) == (512, 8, 4096)
        assert (one.model.routed_blocks, one.routed.routed_blocks) == ((), (1, 3, 5, 7))
        assert one.routed.model_copy(update={"depth": one.model.depth}) == one.model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"contexts": (100,)}, "context is 100; expected 8 or a multiple"),
        ({"contexts": (0,)}, "context is 0"),
        ({"batches": (4, 0)}, "batch is 0"),
        ({"threads": (0,)}, "threads is 0"),
        ({"width": 100}, "width is 100; expected a multiple of 64"),
        ({"blocks": 1}, "blocks is 1; expected 2"),
        ({"dtypes": ()}, "nothing to measure"),
    ],
)
def test_what_cannot_be_measured_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_cases(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_filled_cache_is_what_a_prefill_leaves(routed: bool, dtype: torch.dtype) -> None:
    filled = decoder(routed=routed, dtype=dtype)
    config = filled.engine.model.config
    model = build(config, seed=0).to(dtype)
    engine = Engine(model, forced=nominal_share(model) if routed else None)
    engine.prefill([[7] * CONTEXT] * BATCH, reserve=8)
    assert filled.engine.lengths == engine.lengths
    for ours, theirs in zip(filled.engine.caches, engine.caches, strict=True):
        assert ours.lengths == theirs.lengths
        assert ours.keys(1).shape == theirs.keys(1).shape
        assert ours.keys(1).dtype == theirs.keys(1).dtype == dtype
        assert ours._keys.shape == theirs._keys.shape
        assert float(ours.keys(2).abs().min()) > 0
    assert filled.cache_bytes == engine.cache_bytes
    assert filled.cache_bytes == cache_bytes(config, CONTEXT, BATCH, dtype.itemsize)


def test_a_turn_processes_the_nominal_share_and_is_set_back() -> None:
    ours = decoder(routed=True)
    before = [list(cache.lengths) for cache in ours.engine.caches]
    stored, keys = ours.cache_bytes, [cache.keys(0).clone() for cache in ours.engine.caches]
    for _ in range(8):
        ours.step()
    assert ours.engine.lengths == [CONTEXT + 8] * BATCH
    assert [cache.lengths[0] for cache in ours.engine.caches] == [32, 4, 32, 4]
    ours.rewind(8)
    assert ours.realised_share == 0.125
    turn(ours, 16)
    assert ours.realised_share == 0.125
    assert ours.engine.lengths == [CONTEXT] * BATCH
    assert [cache.lengths for cache in ours.engine.caches] == before
    assert ours.cache_bytes == stored
    assert all(
        torch.equal(cache.keys(0), former)
        for cache, former in zip(ours.engine.caches, keys, strict=True)
    )
    # Less than a period is no nominal share: what is said is what happened.
    turn(ours, 1)
    assert ours.realised_share != 0.125


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rows_are_the_arithmetic_of_a_measurement(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**6))
    monkeypatch.setattr(measured.time, "perf_counter", lambda: float(next(ticks)))
    one = case(dtype=dtype)
    dense, routed = measure(one, peer=False)
    assert (dense.name, routed.name) == ("dense", "MoD 12.5%")
    # A turn of a period of steps is between two ticks of the clock.
    assert dense.step_seconds == routed.step_seconds == 1 / 8
    assert (routed.low, routed.speed_ratio, routed.high) == (1.0, 1.0, 1.0)
    assert dense.tokens_per_second == 8 * BATCH
    assert dense.rounds == routed.rounds == decode.LEAST_ROUNDS
    assert (dense.realised_share, routed.realised_share) == (1.0, 0.125)
    for made, model in ((dense, one.model), (routed, one.routed)):
        assert made.cache_bytes == cache_bytes(model, CONTEXT, BATCH, 4 if dtype == "fp32" else 2)
        assert made.parameters == parameters(model).total
        steps = [forward_flops(model, CONTEXT + more).total for more in (0, 8)]
        assert made.flops_per_step == BATCH * (steps[1] - steps[0]) / 8


def test_turns_are_as_long_as_the_context_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []

    def timed(decoder: EngineDecoder, steps: int) -> float:
        turns.append(steps)
        decoder.engine.step([0] * BATCH)
        decoder.rewind(1)
        return 0.002

    monkeypatch.setattr(decode, "turn", timed)
    measure(case(context=1024), peer=False)
    # Two to warm up and choose; then a fifth of a second, but no more than 1/32 of the context.
    assert turns == [*[8] * 4, *[32, 32] * 3]


def test_the_peer_computes_what_ours_does() -> None:
    pytest.importorskip("transformers", reason="needs transformers")
    plain = decoder(routed=False)
    peer = LlamaDecoder(case().model, CONTEXT, BATCH, 8, torch.float32)
    assert peer.cache_bytes == plain.cache_bytes
    ours, theirs = plain.engine.model, peer.model.model
    with torch.no_grad():
        theirs.embed_tokens.weight.copy_(ours.embedding.weight)
        peer.model.lm_head.weight.copy_(ours.head.weight)
        for block, layer in zip(ours.blocks, theirs.layers, strict=True):
            parts = block.attention.query_key_value.weight.split(12)
            attention = layer.self_attn
            for linear, part in zip(
                (attention.q_proj, attention.k_proj, attention.v_proj), parts, strict=True
            ):
                linear.weight.copy_(part)
            attention.o_proj.weight.copy_(block.attention.output.weight)
            gate, up = block.feed_forward.gate_up.weight.split(28)
            layer.mlp.gate_proj.weight.copy_(gate)
            layer.mlp.up_proj.weight.copy_(up)
            layer.mlp.down_proj.weight.copy_(block.feed_forward.down.weight)
    found = []
    for one in (plain, peer):
        ids = []
        for _ in range(6):
            one.step()
            ids.append(torch.as_tensor(one._ids).flatten().tolist())
        one.rewind(6)
        one._ids = torch.zeros(BATCH, 1, dtype=torch.int64) if one is peer else [0] * BATCH
        one.step()
        assert torch.as_tensor(one._ids).flatten().tolist() == ids[0]
        found.append(ids)
    assert found[0] == found[1]
    assert len({tuple(ids) for ids in found[0]}) > 1


@pytest.mark.slow
def test_measured_in_a_process_of_its_own() -> None:
    made = bench_decode([case()], force=True)
    peer = find_spec("transformers") is not None
    names = ["dense", "MoD 12.5%", *(["Hugging Face's Llama"] if peer else [])]
    assert [one.name for one in made.rows] == names
    assert all(one.cache_bytes == made.rows[0].cache_bytes for one in made.rows[2:])
    assert DecodeReport.model_validate_json(made.model_dump_json()) == made


def test_what_is_missing_or_killed_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured_here(call: object, one: DecodeCase, *, peer: bool) -> list[object]:
        assert not peer
        if one.context > CONTEXT:
            raise BrokenProcessPool
        return measure(one, peer=peer)

    monkeypatch.setattr(decode, "in_fresh_process", measured_here)
    monkeypatch.setattr(decode, "find_spec", lambda name: None)
    told: list[str] = []
    made = bench_decode([case(), case(context=8192)], force=True, watch=told.append)
    assert [(one.name, one.context) for one in made.rows] == [("dense", 24), ("MoD 12.5%", 24)]
    assert told[0] == "1 of 2: fp32, batch 3, 24 tokens, threads: 1"
    missing, left_out = made.notes
    assert missing == "transformers is not installed: no comparison with Hugging Face's Llama"
    assert left_out.startswith("fp32, batch 3, 8,192 tokens: left out, its process was killed")
