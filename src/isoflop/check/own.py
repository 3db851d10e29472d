"""A variant of one's own, judged in a small model that else is the plain transformer.

Its costs are held against what is counted, and its module against what the door asks of it
(`isoflop.variants`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from isoflop.check.comparing import TOLERANCE, Check, Found, Place, apart, by_size
from isoflop.check.coordinates import changes, slopes
from isoflop.check.counting import WHOLE, Key, counted, parts_of
from isoflop.check.steps import LENGTH, VOCABULARY, compiled, learned, small_run, ways
from isoflop.config import BlockAttention, Choices, Decision, ModelConfig, Recipe, Routed
from isoflop.costs import cache_bytes, forward_flops, own_costs, tokens_by_block
from isoflop.evaluation import control_noise
from isoflop.generation import WholePasses, engine_for
from isoflop.model import Transformer, build
from isoflop.training import Trainer, initialise
from isoflop.variants import Costs, costs_of, period, protocols

SIZES: tuple[dict[str, Any], ...] = (
    {"width": 96, "heads": 6, "kv_heads": 6, "head_width": 16, "hidden": 256},
    {"width": 64, "heads": 2, "kv_heads": 2, "head_width": 32, "hidden": 160},
)
"""Ratios differ, so that a closed form is not right by chance."""
WRONG = 0.01
"""Share by which costs may miss what is counted: a comparison at equal FLOPs rests on them."""
LEAST_SHARE = 0.2
"""Of the model's FLOPs; where a part does less, its share is taken of these."""
STEPS = 3
"""Of training, after which what starts at zero has moved."""
LEAK = 1e-4
"""Change of logits, over their spread, beyond what rounding in float32 explains."""
START = 1.0
"""Nats by which a first loss may differ from the logarithm of the vocabulary."""
SLOPE, SEEDS = 0.3, 2
"""How far an exponent of width or depth may be from none and from the plain model's, and seeds that
it is found with."""
LENGTHS = (64, 128)
"""Tokens at which FLOPs are counted, one for each of `SIZES`."""
VITAL = ("parameters", "FLOPs", "gradients")
"""Checks without which none can be made: where one raises, so do those after it."""


def _blocks(choices: Choices, least: int) -> int:
    """Return a number of blocks, at least so many, that the choices allow."""
    every, depth, attention = 1, choices.depth, choices.attention
    if isinstance(depth, Routed):
        every, least = depth.every, max(least, 1, *(block + 1 for block in depth.blocks or ()))
    if isinstance(attention, BlockAttention):
        least = max(least, attention.full_last)
    step = math.lcm(period(choices.own), every)
    return math.ceil(least / step) * step


def _random(sequences: int, length: int, device: str, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (sequences, length), generator=generator).to(device)


def _trained(place: Place, **choices: Any) -> tuple[Transformer, set[str]]:
    """Return a model after some steps, and names of the parameters that had a gradient.

    Raises:
        FloatingPointError: one was not finite.
    """
    config = small_run(place, STEPS, **choices)
    model = build(config.model)
    initialise(model, config.recipe, seed=0)
    trainer = Trainer(model.to(place.device), config, compiled=False)
    reached: set[str] = set()
    for index in range(STEPS):
        tokens = _random(config.sequences_per_step, LENGTH + 1, place.device, index)
        trainer.gradients(tokens, index)
        found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        wrong = [name for name, gradient in found.items() if not gradient.isfinite().all()]
        if wrong:
            # What is behind has it from what is one's own, and that from the last of it.
            name = max(reversed(wrong), key=lambda name: "own." in name)
            raise FloatingPointError(f"that of {_short(name)} is not finite in step {index}")
        reached |= {name for name, gradient in found.items() if gradient.any()}
        for parameter in model.parameters():
            parameter.grad = None
        trainer.step(tokens, index, 1.0)
    return model, reached


def _short(name: str) -> str:
    """Return the name of a parameter as its file has it, with its block."""
    block, _, own = name.removeprefix("blocks.").partition(".")
    return f"{own.rpartition('own.')[2]} in block {block}" if "own." in own else name


def _parameters(place: Place, **choices: Any) -> Found:
    total, wrong = 0, ""
    for sizes in SIZES:
        config = small_run(place, **{**choices, **sizes}).model
        modules = parts_of(build(config))
        for key, costs in _said(config, LENGTH).items():
            held = modules[key].own.parameters() if key in modules else ()
            holds = sum(parameter.numel() for parameter in held)
            total += holds
            if holds != costs.parameters:
                wrong = wrong or f"{_named(key)} holds {holds:,}, `costs` says {costs.parameters:,}"
    return Found(None, None, wrong or f"{total:,} in two models", wrong=bool(wrong))


def _said(config: ModelConfig, length: int, convention: str = "causal") -> dict[Key, Costs]:
    """Return what each module of one's own is said to cost, by block and part."""
    return {(block, part): costs for block, part, costs in own_costs(config, length, convention)}


def _named(key: Key) -> str:
    return "the model" if key == WHOLE else f"{key[1]} in block {key[0]}"


def _flops(place: Place, **choices: Any) -> Found:
    worst, note = 0.0, "not compared: the load of no-op experts is even in the mean alone"
    for sizes, length in zip(SIZES, LENGTHS, strict=True):
        config = small_run(place, **{**choices, **sizes}).model
        # Of experts that do nothing tokens have the share charged for in the mean alone.
        uneven = {part for part, one in config.own.items() if one.settings.get("noop_experts")}
        model = build(config, seed=0).to(place.device)
        found, backward = counted(model, _random(1, length, place.device))
        # Two tokens alone have few pairs, which could hide what is charged and not computed.
        twos, _ = counted(model, _random(length // 2, 2, place.device))
        causal, two = (_charged(config, tokens, "causal") for tokens in (length, 2))
        full, double, triple = (_charged(config, times * length, "full") for times in (1, 2, 3))
        given = tokens_by_block(config, length)
        for key, count in found.items():
            if uneven and (key == WHOLE or key[1] in uneven):
                continue
            low, high, (block, part) = causal[key], full[key], key
            said = (backward - 2) / 3 * count
            if key != WHOLE:
                # Pairs are all that `causal` may leave out: of a sequence, which grow as its
                # square, or of chunks, which a single token has none of.
                pairs = max(0.0, (triple[key] - 2 * double[key] + high) / 2)
                one = costs_of(config.own[part], part, config, block, 1, "full").flops
                alone = one * (length if part == "depth" else given[block])
                said = _beyond(low, min(high - pairs, alone), high)
            over = length // 2 * two[key] - twos[key]
            share = max(said, _beyond(count, low, high), over)
            share /= max(low, LEAST_SHARE * causal[WHOLE])
            if share >= worst:
                worst = share
                note = (
                    f"{_named(key)} counts {count / length:,.0f} a token, `costs` says "
                    f"{low / length:,.0f} causal and {high / length:,.0f} full; "
                    + f"in twos {twos[key] / length:,.0f} and {two[key] / 2:,.0f}; " * (over > 0)
                    + f"backward {backward:.2f} times, charged 2"
                )
    return Found(worst, WRONG, note)


def _charged(config: ModelConfig, length: int, convention: Any) -> dict[Key, float]:
    whole = forward_flops(config, length, convention)
    said = {key: costs.flops for key, costs in _said(config, length, convention).items()}
    # Scores of isoflop's router are no product that is counted.
    return {**said, WHOLE: whole.total - whole.router}


def _beyond(value: float, low: float, high: float) -> float:
    return max(0.0, low - value, value - high, key=by_size)


def _gradients(place: Place, **choices: Any) -> Found:
    model, reached = _trained(place, **choices)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    left = [_short(name) for name in trained if name not in reached]
    note = f"none reaches {', '.join(left[:3])}" if left else f"{len(trained)} parameters"
    return Found(None, None, note, wrong=bool(left))


def _later_tokens(place: Place, **choices: Any) -> Found:
    model, _ = _trained(place, **choices)
    length, rows = LENGTH - 3, 8
    before = _random(rows, length, place.device, 1)
    cut = torch.arange(1, rows + 1, device=place.device) * length // (rows + 1)
    earlier = torch.arange(length, device=place.device) <= cut[:, None]
    after = torch.where(earlier, before, (before + 1) % VOCABULARY)
    known = model.config.decisions
    # What routing beside it looks at would hide a leak of what is one's own.
    ahead = any("top_k" in one.decisions for one in model.config.own.values())
    trains: Decision = "top_k" if ahead else known[0]
    worst, notes = 0.0, []
    for decision, training in (*((one, False) for one in known), (trains, True)):
        model.train(training)
        noise = control_noise(model, decision, rows, length, seed=0)
        with torch.no_grad():
            one, again, two = (
                model(tokens, decision=decision, noise=noise).logits[earlier].double()
                for tokens in (before, before, after)
            )
        moved = (one - two).abs().amax(-1) / one.std()
        where = f"{'training' if training else 'evaluation'} by {decision}"
        share, most = float((moved > LEAK).double().mean()), float(moved.max())
        if not math.isfinite(most):
            raise FloatingPointError(f"logits in {where} are not finite")
        told = f"in {where} a leak moves {share:.0%} of them by up to {most:.1g} of their spread"
        if not torch.equal(one, again):
            told = f"in {where} the same tokens give other logits when they are given again"
        if share:
            notes.append(f"{told}, as DECISIONS says" if decision == "top_k" else told)
        if decision != "top_k":
            worst = max(worst, most)
    return Found(worst, LEAK, "; ".join(notes))


def _first_loss(place: Place, **choices: Any) -> Found:
    first = float(learned(small_run(place, **choices), place.device)[0])
    usual = math.log(VOCABULARY)
    return Found(abs(first - usual), START, f"{first:.2f}, ln {VOCABULARY} = {usual:.2f}")


def _over_sizes(place: Place, **choices: Any) -> Found:
    mine, plain = _exponents(place, **choices), _exponents(place, blocks=choices["blocks"])
    told = [f"{name} {found:+.2f}, plain {plain[name]:+.2f}" for name, found in mine.items()]
    ranges = {name: (min(x, 0.0), max(x, 0.0)) for name, x in plain.items()}
    worst = max((_beyond(x, *ranges[name]) for name, x in mine.items()), key=by_size)
    return Found(worst, SLOPE, "; ".join(told))


def _exponents(place: Place, **choices: Any) -> dict[str, float]:
    def changed(width: int, blocks: int, seed: int) -> dict[str, float]:
        sizes = {"heads": width // 16, "kv_heads": None, "hidden": 2 * width}
        sizes |= {"width": width, "blocks": blocks}
        config = small_run(place, STEPS, **{**choices, **sizes})
        recipe = Recipe(learning_rate=2e-3, precision="fp32")
        config = config.model_copy(update={"recipe": recipe, "seed": seed})
        found = changes(config, _random(1, 13, place.device, 9))
        return {name: found[name] for name in ("stream", "logits")}

    least = choices["blocks"]
    found = {
        "width": slopes((32, 128), SEEDS, lambda width, seed: changed(width, 2 * least, seed)),
        "depth": slopes((least, 8 * least), SEEDS, lambda blocks, seed: changed(64, blocks, seed)),
    }
    return {f"{name} over {size}": x for size, one in found.items() for name, x in one.items()}


def _decoding(place: Place, **choices: Any) -> Found:
    model = _trained(place, **choices)[0].eval()
    engine = engine_for(model)
    if isinstance(engine, WholePasses):
        return Found(None, None, "not made: each token takes a whole pass; `decode` would spare it")
    texts = _random(2, 24, "cpu", 2).tolist()
    starts = (11, 5)
    logits = [engine.prefill([text[:start] for text, start in zip(texts, starts, strict=True)])]
    for index in range(8):
        following = [text[start + index] for text, start in zip(texts, starts, strict=True)]
        logits.append(engine.step(following))
    found = torch.stack(logits, 1)
    with torch.inference_mode():
        noise = control_noise(model, engine.decision, 2, 24, seed=0)
        whole = model(torch.tensor(texts, device=place.device), noise=noise).logits
    expected = [one[start - 1 : start + 8] for one, start in zip(whole, starts, strict=True)]
    difference = apart(found, expected)
    if isinstance(model.config.depth, Routed):
        return Found(difference, LEAK)
    said = sum(cache_bytes(model.config, start + 8, bytes_per_value=4) for start in starts)
    note = f"{engine.cache_bytes:,} bytes kept, `costs` says {said:,}"
    wrong = abs(engine.cache_bytes - said) > WRONG * said
    return Found(difference, LEAK, note, wrong=wrong)


def _bf16(place: Place, **choices: Any) -> Found:
    full, low = (
        learned(small_run(Place(place.device, precision), **choices), place.device)
        for precision in ("fp32", "bf16")
    )
    finite = bool(low[1].isfinite().all())
    note = "" if finite else "a gradient is not finite"
    return Found(apart(low[:1], full[:1]), TOLERANCE["bf16"], note, wrong=not finite)


_FINDS = (
    (
        "parameters",
        "of each module with what `costs` says",
        _parameters,
        "sizes follow from them: mend `parameters` in `costs`",
    ),
    (
        "FLOPs",
        "products that torch counts with what `costs` says, within 1%",
        _flops,
        "equal FLOPs rest on them: mend `flops` in `costs`, or compute no more than it says; only "
        "matmul, einsum that sums and convolutions count",
    ),
    (
        "gradients",
        "finite, and not zero in every parameter",
        _gradients,
        "what is not learned should be no parameter: use it, leave it out, or set its "
        "requires_grad to False; what is not finite comes of a root or a division at zero, say",
    ),
    (
        "steps in parts",
        "micro-batches, recomputed blocks and chunked logits with the plain step",
        ways,
        "draw nothing at random in `forward`, keep nothing of it on the module, and let no "
        "sequence see another; `told` are means over sequences",
    ),
    (
        "later tokens",
        "earlier logits with those after a change of later tokens",
        _later_tokens,
        "losses of what looks ahead compare with none: mask later tokens, or name "
        '"top_k" in DECISIONS behind a causal decision',
    ),
    (
        "first loss",
        "with the logarithm of the vocabulary",
        _first_loss,
        'the stream starts wrong: say in `roles` what writes into it ("output") and what starts at '
        '"zeros"',
    ),
    (
        "decoding",
        "logits and bytes over a cache with a whole pass and what `costs` says",
        _decoding,
        "text would be another model's: `decode` must give what `forward` gives, and "
        "`cache_values` count what its state holds",
    ),
    (
        "bf16",
        "loss with that in fp32",
        _bf16,
        "compute sums and exponentials on `.float()` and give back x's dtype",
    ),
    (
        "width and depth",
        "exponents of what three steps change with none and the plain model's",
        _over_sizes,
        "a learning rate will not carry over sizes: give each parameter its role in `roles`, and "
        "divide sums over width by what keeps them of one size",
    ),
    (
        "compiled step",
        "loss and gradients with the eager step",
        compiled,
        "put @torch.compiler.disable on what torch.compile gets wrong, or train with "
        "TORCHDYNAMO_DISABLE=1",
    ),
)


def checks(choices: Choices) -> tuple[Check, ...]:
    """Return the checks of models of these choices, something of one's own among them."""
    made: dict[str, Any] = {**dict(choices), "blocks": _blocks(choices, 2)}
    raised = f"mend it first: {protocols.__file__} says what is called with what"
    how: dict[str, Any] = {"in_every_precision": False, "raised": raised}
    return tuple(
        Check(name, compared, hint, partial(find, **made), vital=name in VITAL, **how)
        for name, compared, find, hint in _FINDS
    )
