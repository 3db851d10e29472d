"""How a model is trained: optimiser, rates, schedule, initialisation, precision."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from isoflop.frozen import Frozen, left_out

Precision = Literal["bf16", "fp32"]


class AdamW(Frozen):
    """Adam with decoupled weight decay (arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0, le=1e6)


class Muon(Frozen):
    """Momentum whose update is orthogonalised, for hidden matrices; AdamW for all else.

    What is orthogonalised is a matrix: query, key and value each by itself, gate and value too,
    though they lie in one parameter (arXiv 2502.16982; "Muon: an optimizer for hidden layers").
    """

    kind: Literal["muon"] = "muon"
    momentum: float = Field(default=0.95, ge=0, lt=1)
    nesterov: bool = True
    steps: int = Field(default=5, ge=1, le=99)
    """Newton-Schulz iterations of an update."""
    weight_decay: float = Field(default=0.1, ge=0, le=1e6)
    adjust: Literal["match_rms_adamw", "original", "spectral"] = "match_rms_adamw"
    """What multiplies the orthogonal update of a matrix (A, B): 0.2 max(A, B)^1/2, whose root mean
    square is AdamW's; max(1, A/B)^1/2; or (A/B)^1/2 (arXiv 2310.17813)."""
    adamw: AdamW = AdamW()
    """Of embeddings, head, norms, routers and decision heads."""
    adamw_rate: float = Field(default=0.4, gt=0, le=1e6)
    """Their learning rate over that of the hidden matrices, both at the reference shape."""
    own: Literal["whole", "each"] = Field(default="whole", exclude_if=lambda one: one == "whole")
    """Matrices of parts that come through the door: `each` by itself, as those of built-in parts,
    and each expert's; or as before there was a choice, `whole` parameters, and experts by AdamW."""


Optimiser = Annotated[AdamW | Muon, Field(discriminator="kind")]


class Cosine(Frozen):
    """Half a cosine from the peak to the final rate (arXiv 1608.03983)."""

    kind: Literal["cosine"] = "cosine"


class Linear(Frozen):
    """A line from the peak to the final rate (arXiv 2502.15938 ends at zero)."""

    kind: Literal["linear"] = "linear"


class WarmupStableDecay(Frozen):
    """The peak, held until the last part of training decays it (arXiv 2405.18392)."""

    kind: Literal["wsd"] = "wsd"
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps in which the rate falls."""
    decay: Literal["linear", "sqrt"] = "linear"
    """How it falls over progress x: as 1 - x, or as 1 - x^1/2."""


Schedule = Annotated[Cosine | Linear | WarmupStableDecay, Field(discriminator="kind")]


class RecipeSettings(Frozen):
    """How a model is trained, but for its precision.

    Rates are those of the reference shape; `training` transfers them. What AdamW has as settings
    may stand beside `optimiser` too, as it did before there was a choice.
    """

    learning_rate: float = Field(default=8e-3, gt=0, le=1e38)
    """Peak rate of the hidden matrices at `reference_width`."""
    reference_width: int = Field(default=64, ge=1, le=10**6)
    reference_blocks: int = Field(default=4, ge=1, le=10**4)
    optimiser: Optimiser = AdamW()
    schedule: Schedule = Cosine()
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises to its peak."""
    warmup_steps: int | None = Field(default=None, ge=0, le=10**12)
    """Steps in place of that share."""
    final_fraction: float = Field(default=0.0, ge=0, le=1)
    """Learning rate at the last step as a share of the peak."""
    gradient_clip: float = Field(default=1.0, gt=0, le=1e9)
    """Largest global norm of the gradient of everything but the decision heads."""
    router_rate: float = Field(default=1.0, gt=0, le=1e6)
    """Learning rate of the routers as a multiple of what AdamW trains at the reference shape."""
    embedding_scale: float = Field(default=1.0, gt=0, le=1e6)
    """Standard deviation of the initial embedding."""
    router_scale: float = Field(default=0.02, gt=0, le=1e6)
    """Standard deviation of the router's initial weights at `reference_width`."""
    average_half_life: float | None = Field(default=None, gt=0, lt=1)
    """Half-life, as a share of the run's tokens, of an exponential average of the weights that is
    evaluated beside the last ones; None for none."""

    @property
    def depends_on_length(self) -> str | None:
        """What of the first steps of training depends on how many there are; None for nothing."""
        if not isinstance(self.schedule, WarmupStableDecay):
            return f'recipe.schedule is {self.schedule.kind!r}; expected {{ kind = "wsd" }}'
        if self.warmup_steps is None:
            return "recipe.warmup_steps is missing; expected it in place of warmup_fraction"
        if self.average_half_life is not None:
            return "recipe.average_half_life is a share of a run's tokens; remove it"
        return None

    @model_validator(mode="before")
    @classmethod
    def _settings_of_adamw(cls, value: Any) -> Any:
        """Take AdamW's settings from beside `optimiser`."""
        if not isinstance(value, dict):
            return value
        beside = {name: value[name] for name in AdamW.model_fields if name in value}
        if not beside:
            return value
        if "optimiser" in value:
            raise ValueError(
                f"{', '.join(beside)} beside optimiser, which has its own; expected "
                'optimiser = { kind = "adamw", ... } with all of them'
            )
        rest = {name: one for name, one in value.items() if name not in beside}
        return rest | {"optimiser": {"kind": "adamw", **beside}}

    def named(self, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what a run is called by, as before there was a choice of optimisers."""
        if isinstance(self.optimiser, AdamW):
            kept |= {k: v for k, v in kept.pop("optimiser", {}).items() if k != "kind"}
        return kept


class Recipe(RecipeSettings):
    """How a run is trained."""

    precision: Precision = "bf16"
    """Of matrix products and attention; weights and sums are fp32 in any case."""


class RecipeRules(Frozen):
    """Settings that follow from a run's batch and length, each in place of its fixed one.

    All are off until they are given; docs/recipe.md tells what each gained.
    """

    beta2_half_life: float | None = Field(default=None, gt=0, le=1e18)
    """Tokens after which AdamW's second moment has forgotten half, whatever the batch (arXiv
    2507.07101; that beta2 matters at small batches: 2406.19146)."""
    decay_time_scale: float | None = Field(default=None, gt=0, le=1e6)
    """Share of the run over which decay averages the updates: weight_decay = 1 / (share * steps *
    peak rate), for Muon's matrices and for AdamW's (arXiv 2405.13698)."""
    rate_horizon_tokens: float | None = Field(default=None, gt=0, le=1e18)
    """Tokens of a run at which learning rates are as written; at others they are multiplied by
    (tokens / these)^-0.32 (arXiv 2409.19913)."""
    warmup_tokens_per_parameter: float | None = Field(default=None, ge=0, le=1e6)
    """Tokens of warm-up for each parameter of the model, at most half the run (arXiv 2406.19146
    takes 1)."""
    epsilon_tokens_per_step: float | None = Field(default=None, gt=0, le=1e18)
    """Batch at which AdamW's epsilon is as written; at others it is multiplied by (batch /
    this)^-1/2, the part of the square root rule that no other setting takes (arXiv 2205.10287)."""
    batch_exponent: float | None = Field(default=None, ge=0, le=1)
    """Power of the tokens of a run near the best size with which the tokens of a step grow, from
    the built-in 2,048 at 5e12 FLOPs (0.38 in arXiv 2505.13738)."""

    @property
    def by_length(self) -> str | None:
        """The first rule in use that knows how long a run is; None for none."""
        fixed = ("beta2_half_life", "epsilon_tokens_per_step")
        return next((n for n, one in self if one is not None and n not in fixed), None)

    def applied(self, recipe: Recipe, *, batch: int, steps: int, parameters: int) -> Recipe:
        """Return the recipe of a run of so many steps.

        Args:
            recipe: with the settings that no rule is in use for.
            batch: tokens per step.
            steps: of the run.
            parameters: of its model, in total.
        """
        choice, rate = recipe.optimiser, recipe.learning_rate
        update, of_adamw, of_all = (dict[str, Any]() for _ in range(3))
        if self.rate_horizon_tokens is not None:
            rate *= (batch * steps / self.rate_horizon_tokens) ** -RATE_OVER_HORIZON
            update["learning_rate"] = rate
        if self.warmup_tokens_per_parameter is not None:
            wanted = round(self.warmup_tokens_per_parameter * parameters / batch)
            update["warmup_steps"] = min(wanted, steps // 2)
        if self.beta2_half_life is not None:
            of_adamw["beta2"] = 0.5 ** (batch / self.beta2_half_life)
        if self.epsilon_tokens_per_step is not None:
            adamw = choice if isinstance(choice, AdamW) else choice.adamw
            of_adamw["epsilon"] = adamw.epsilon * (self.epsilon_tokens_per_step / batch) ** 0.5
        if self.decay_time_scale is not None:
            of_all["weight_decay"] = 1 / max(1e-300, self.decay_time_scale * steps * rate)
        if isinstance(choice, Muon):
            # What it leaves to AdamW has a rate of its own.
            own = {name: decay / choice.adamw_rate for name, decay in of_all.items()}
            of_all["adamw"] = choice.adamw.model_copy(update=of_adamw | own)
        else:
            of_all |= of_adamw
        update["optimiser"] = choice.model_copy(update=of_all).model_dump()  # so that it is checked
        return Recipe.model_validate({**dict(recipe), **update})


RATE_OVER_HORIZON = 0.32
"""How fast the best rate falls with the tokens of a run (arXiv 2409.19913)."""


class RecipeSource(Frozen):
    """Where the rates of a recipe were found."""

    corpus: str | tuple[str, ...]
    """As in `DataConfig`, like the two after it."""
    tokenizer: str
    sequence_length: int = Field(ge=2, le=10**9)
    optimiser: Literal["adamw", "muon"] = "adamw"
    budget_flops: float | None = Field(default=None, gt=0, le=1e40)
    """Training FLOPs of a run there."""
    records: str | None = None
    """File of the runs that they were chosen from."""

    @field_validator("corpus", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Take a list as well, as what a study's recipe was read to has it."""
        return tuple(value) if isinstance(value, list) else value


BUILT_IN = RecipeSource(
    corpus="sotu",
    tokenizer="bytes",
    sequence_length=256,
    budget_flops=5e12,
    records="results/mod-variants/search.jsonl.gz",
)
"""Of the default learning rate."""

STALE_NATS = 0.02
"""How much better than a variant's own another rate must be before the grid to be no noise of the
one seed: in mod-isoflop, where three seeds find none better, others were ahead by up to 0.018."""


class StudyRecipe(RecipeSettings):
    """How the runs of a study are trained."""

    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of matrix products and attention; `auto` takes what is faster where the study is started
    first, and keeps it."""
    source: RecipeSource | None = Field(default=None, exclude_if=left_out)
    """Where the rates come from; None for those that are built in."""
    check_first: bool | Literal["auto"] = Field(default=False, exclude_if=lambda on: on is False)
    """Try other learning rates at one size of each variant before the grid is trained, and stop
    where one is clearly better; `auto` where the study's corpus, tokenizer, sequence length or
    optimiser is not the source's."""

    rules: RecipeRules | None = Field(default=None, exclude_if=left_out)
    """Settings that follow from a run's batch and length; a run holds what they come to."""

    @property
    def depends_on_length(self) -> str | None:
        """What of the first steps of training depends on how many there are; None for nothing."""
        if self.rules is not None and (rule := self.rules.by_length):
            return f"recipe.rules.{rule} follows from a run's length; remove it"
        return super().depends_on_length

    def settled(self) -> Recipe:
        """Return the recipe of a run.

        Raises:
            ValueError: the precision is still `auto`.
        """
        if self.precision == "auto":
            raise ValueError(
                "recipe.precision is 'auto' and not settled yet; expected 'bf16' or 'fp32' where "
                "runs are planned: see `isoflop.settled` and `Study.with_precision`"
            )
        return Recipe.model_validate(self.model_dump(exclude={"source", "check_first", "rules"}))
