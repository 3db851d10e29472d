#!/usr/bin/env python3
"""How fast transformers' `generate` is on a routed model beside ours, greedy, one sequence.

    tools/generation_speed.py > results/bench/generate.json

Both run the same model on one thread over the same compact cache, in turns. Times are of the
process, so that others at work on the machine do not count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch

from isoflop.config import ModelConfig, TopK
from isoflop.generation import Sampling, engine_for, generate
from isoflop.interop.hugging_face import IsoflopConfig, IsoflopForCausalLM

PROMPT, TOKENS, ROUNDS = 256, 128, 12
WIDTHS = (128, 512)


def seconds(call: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def measured(width: int) -> dict[str, float | int]:
    """Measure one width; the ratio is ours over theirs in time, a median over rounds."""
    shape = ModelConfig(
        vocabulary=4096,
        width=width,
        blocks=8,
        heads=width // 64,
        head_width=64,
        hidden=width * 8 // 3 // 32 * 32,
        depth=TopK(capacity=0.125, every=2),
    )
    torch.manual_seed(0)
    theirs = IsoflopForCausalLM(
        IsoflopConfig(shape.model_dump(mode="json"), sequence_length=PROMPT + TOKENS)
    ).eval()
    prompt = torch.randint(shape.vocabulary, (1, PROMPT))
    greedy = Sampling(temperature=0)

    def ours() -> list[int]:
        engine = engine_for(theirs.model)
        (made,) = generate(engine, prompt.tolist(), greedy, max_tokens=TOKENS)
        return [token.id for token in made.tokens]

    def through_transformers() -> list[int]:
        options = {"max_new_tokens": TOKENS, "do_sample": False, "pad_token_id": 0}
        return theirs.generate(prompt, eos_token_id=None, **options)[0, PROMPT:].tolist()

    assert ours() == through_transformers(), "both write the same"
    pairs = [(seconds(ours), seconds(through_transformers)) for _ in range(ROUNDS)]
    low, _, high = quantiles([a / b for a, b in pairs], n=4)
    return {
        "width": width,
        "prompt": PROMPT,
        "tokens": TOKENS,
        "ours_seconds": median(a for a, _ in pairs),
        "transformers_seconds": median(b for _, b in pairs),
        "speed_ratio": median(a / b for a, b in pairs),
        "low": low,
        "high": high,
        "rounds": ROUNDS,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        print(json.dumps([measured(width) for width in WIDTHS], indent=2))
