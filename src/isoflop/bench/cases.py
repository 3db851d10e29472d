"""What is measured: contenders for the same step, ours and Hugging Face's Llama, in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.config import (
    AdamW,
    AttentionKernel,
    DataConfig,
    Frozen,
    ModelConfig,
    Precision,
    Recipe,
    RunConfig,
    TopK,
)
from isoflop.model.peers import described, is_plain
from isoflop.training import compiles_by_default, own_step, random_tokens

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Implementation = Literal["isoflop", "transformers"]

VOCABULARY = 4096

HEAD_WIDTH = 64
STANDARD_SHAPES = ((256, 8, 512, 8), (512, 8, 1024, 4))
"""Width, blocks, sequence length and sequences per step of the standard comparison."""

BUDGET_FLOPS = 1e14
"""Of the run whose step is measured there."""

NO_PEER = "transformers is not installed: no comparison with Hugging Face's Llama"

DENSE = "dense"
ROUTED = "MoD 12.5%"
ROUTED_DEPTH = TopK(capacity=0.125, every=2)


class Contender(Frozen):
    """What is called the same wherever it is told of."""

    variant: str
    implementation: Implementation = "isoflop"
    compiled: bool

    @property
    def name(self) -> str:
        """The contender in words: 'dense (compiled)', 'dense (transformers, eager)'."""
        way = "compiled" if self.compiled else "eager"
        of = "" if self.implementation == "isoflop" else f"{self.implementation}, "
        return f"{self.variant} ({of}{way})"


class Case(Contender):
    """One contender: a run's step, and what computes it."""

    config: RunConfig
    attention: AttentionKernel | None = None
    """What attends all keys of our own; None for the rule."""


def standard_groups(
    precision: Precision = "bf16", *, sequences: int | None = None, routed: bool = True
) -> tuple[tuple[Case, ...], ...]:
    """Return the standard comparison: per shape dense, routed and Hugging Face's Llama.

    Args:
        precision: of products.
        sequences: of a step; None for those of `STANDARD_SHAPES`.
        routed: with the routed model.
    """
    groups = []
    for width, blocks, sequence_length, batch in STANDARD_SHAPES:
        model = plain_model(width, blocks, HEAD_WIDTH, VOCABULARY)
        dense = RunConfig(
            model=model,
            data=DataConfig(tokenizer=f"bpe:{VOCABULARY}", sequence_length=sequence_length),
            recipe=Recipe(precision=precision),
            steps=1,
            sequences_per_step=batch if sequences is None else sequences,
            # So long that training would look for the fastest attention.
            budget_flops=BUDGET_FLOPS,
        )
        skipping = model.model_copy(update={"depth": ROUTED_DEPTH})
        part = dense.model_copy(update={"model": skipping})
        peer: Implementation = "transformers"
        groups.append(
            (
                Case(variant=DENSE, config=dense, compiled=True),
                Case(variant=DENSE, config=dense, compiled=False),
                *([Case(variant=ROUTED, config=part, compiled=True)] if routed else []),
                Case(variant=DENSE, config=dense, compiled=False, implementation=peer),
                Case(variant=DENSE, config=dense, compiled=True, implementation=peer),
            )
        )
    return tuple(groups)


def study_group(models: Iterable[tuple[str, RunConfig]]) -> tuple[Case, ...]:
    """Return a study's models as one group, each model once, compiled where training would.

    Args:
        models: name of the variant and one of its runs.

    Raises:
        ValueError: there is no model.
    """
    cases: dict[tuple[str, ModelConfig, int], Case] = {}
    for variant, config in models:
        case = Case(variant=variant, config=config, compiled=compiles_by_default(config))
        cases.setdefault((variant, config.model, config.tokens_per_step), case)
    if not cases:
        raise ValueError("there are no models to measure; expected at least one")
    return tuple(cases.values())


def plain_model(width: int, blocks: int, head_width: int, vocabulary: int) -> ModelConfig:
    """Return a dense model of Llama's shape.

    Its feed-forward width is 8/3 of the model's, to the next multiple of 32.

    Raises:
        ValueError: heads do not fill the width.
    """
    heads, rest = divmod(width, head_width)
    if rest or not heads:
        raise ValueError(f"width is {width}; expected a multiple of {head_width}, a head's width")
    return ModelConfig(
        vocabulary=vocabulary,
        width=width,
        blocks=blocks,
        heads=heads,
        head_width=head_width,
        hidden=-(-8 * width // (3 * 32)) * 32,
    )


Step = Callable[[], None]
"""One optimiser step on a batch that stays the same."""


def prepare_step(case: Case) -> Step:
    """Return the step of a case, its model made and its optimiser at hand.

    Raises:
        ValueError: the peer has no such model.
        ModuleNotFoundError: the peer is not installed.
    """
    if case.implementation == "transformers":
        return _llama_step(case.config, random_tokens(case.config), compiled=case.compiled)
    return own_step(case.config, attention=case.attention, compiled=case.compiled)


def llama(model: ModelConfig, positions: int) -> LlamaForCausalLM:
    """Return Hugging Face's Llama of the shape of a model, on its fast attention.

    Args:
        model: its shape.
        positions: tokens of the longest sequence.

    Raises:
        ValueError: Llama has no such model.
        ModuleNotFoundError: transformers is not installed.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if not is_plain(model) or model.query_key_norm:
        raise ValueError(f"Llama has no such model: {model}; expected the plain decoder")
    of_run = described(model, positions) | {"use_cache": False}
    made = LlamaForCausalLM(LlamaConfig(**of_run))
    made.set_attn_implementation("sdpa")
    return made


def _llama_step(config: RunConfig, tokens: Tensor, *, compiled: bool) -> Step:
    recipe = config.recipe
    model = llama(config.model, config.data.sequence_length)
    model.train()
    parameters = list(model.parameters())
    adamw = recipe.optimiser if isinstance(recipe.optimiser, AdamW) else recipe.optimiser.adamw
    optimiser = torch.optim.AdamW(
        parameters,
        lr=recipe.learning_rate,
        betas=(adamw.beta1, adamw.beta2),
        eps=adamw.epsilon,
        weight_decay=adamw.weight_decay,
        fused=True,
    )

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=inputs).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    # The loss is compiled along, which gives the peer the larger graph.
    compute = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    inputs, targets = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bf16"):
            loss = compute(inputs, targets)
        # The type stub of backward is untyped in torch.
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(parameters, recipe.gradient_clip, foreach=True)
        # Our step reports both, so the peer's does too.
        float(loss.detach()), float(norm)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step
