"""What a study is: variants, budgets and seeds. The planner turns it into runs."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from isoflop.config.model import Choices, ShapeFamily
from isoflop.config.recipe import BUILT_IN, AdamW, Precision, Recipe, RecipeRules, StudyRecipe
from isoflop.config.run import (
    LARGEST_BUDGET_FLOPS,
    Convention,
    DataConfig,
    EvaluationText,
    Positions,
)
from isoflop.config.search import LARGEST_PARAMETERS, Exponents, Search
from isoflop.config.start import Start
from isoflop.frozen import LARGEST_SEED, Frozen, left_out

FEWEST_LOOKED_AT = 3
"""Seeds at the first look, where some are added: of two, an interval is wider than any losses."""


class Grid(Frozen):
    """Which sizes are trained per variant and budget."""

    sizes: int = Field(default=7, ge=1, le=100)
    factor: float = Field(default=1.6, ge=1.01, le=1000)
    """Ratio of neighbouring sizes' parameters."""
    margin: int = Field(default=2, ge=1, le=100)
    """Sizes wanted on either side of the minimum; more are added until it has them."""
    added_at_most: int = Field(default=6, ge=0, le=100)
    """Bound on the sizes added per variant and budget."""
    centre_parameters: float | None = Field(default=None, gt=0, le=LARGEST_PARAMETERS)
    """Expected optimal parameters at the first budget; None for the built-in expectation."""
    minimum_parameters: float | None = Field(default=None, gt=0, le=LARGEST_PARAMETERS)
    maximum_parameters: float | None = Field(default=None, gt=0, le=LARGEST_PARAMETERS)


ONE_SIZE = Grid(sizes=1, added_at_most=0)
"""Of a study that starts from a checkpoint."""


class ScaledModel(Frozen):
    """One size of a scaling study; heads and feed-forward follow from the shape family."""

    blocks: int = Field(ge=1, le=10**4)
    width: int = Field(ge=1, le=10**6)
    tokens: float | None = Field(default=None, ge=1, le=1e18)
    """D; None for the study's tokens per parameter."""


class Scaling(Frozen):
    """Sizes that every variant is trained at, for as many tokens: loss against compute.

    Compute is 6 N D, N without embeddings, the same for every variant of a size (arXiv 2502.13189,
    section 3.1).
    """

    models: tuple[ScaledModel, ...] = Field(min_length=1)
    tokens_per_parameter: float = Field(default=20.0, gt=0, le=1e9)
    """D over N, N without embeddings."""
    checked_model: int | None = Field(default=None, ge=0)
    """Which of the models other learning rates are tried at, from 0; None for the middle one."""

    @model_validator(mode="after")
    def _existing_model(self) -> Scaling:
        if self.checked_model is not None and self.checked_model >= len(self.models):
            raise ValueError(
                f"checked_model is {self.checked_model}; expected at most {len(self.models) - 1}, "
                "as models are counted from 0"
            )
        return self

    @property
    def checked(self) -> int:
        """Index of the model that other learning rates are tried at."""
        return len(self.models) // 2 if self.checked_model is None else self.checked_model


class _Named(Frozen):
    name: str = Field(min_length=1, max_length=80)


class Variant(Choices, _Named):
    """One contender, its name first. What it leaves out it takes from the study."""

    shape: ShapeFamily | None = None
    learning_rate: float | None = Field(default=None, gt=0, le=1e38)
    centre_parameters: float | None = Field(default=None, gt=0, le=LARGEST_PARAMETERS)
    weight_decay: float | None = Field(default=None, ge=0, le=1e6, exclude_if=left_out)
    """The optimiser's; of Muon that of the matrices and of the rest."""
    warmup_fraction: float | None = Field(default=None, gt=0, lt=1, exclude_if=left_out)
    tokens_per_step: int | None = Field(default=None, ge=1, le=10**12, exclude_if=left_out)
    router_rate: float | None = Field(default=None, gt=0, le=1e6, exclude_if=left_out)
    exponents: Exponents | None = Field(default=None, exclude_if=left_out)
    """How the settings above, learning rate and shape move from the study's first budget on."""


class Study(Frozen):
    """Which variant wins at the same compute? Budgets and variants are named, sizes are found.

    A scaling study names its sizes in place of budgets.
    """

    name: str
    budgets_flops: tuple[float, ...] = ()
    scaling: Scaling | None = None
    """Sizes to train every variant at, in place of budgets."""
    start: Start | None = Field(default=None, exclude_if=left_out)
    """Checkpoint that every run starts from: the only size, from which FLOPs are counted."""
    seeds: tuple[int, ...] = (0,)
    replicate: Literal["near_minimum", "all"] = "near_minimum"
    """Where seeds after the first are trained: at the minimum and its neighbours, or everywhere."""
    data_orders: tuple[int, ...] = ()
    """Data orders that every seed is trained with at each minimum, beside its own (the seed)."""
    learning_rate_check: tuple[float, ...] = ()
    """Multiples of each variant's learning rate that are tried at each of its minima."""
    learning_rate_check_seeds: int = Field(default=1, ge=1, le=10**6)
    """Seeds that each of these is tried with: so many of `seeds`, from the first on."""
    learning_rate_check_added: int = Field(default=0, ge=0, le=100)
    """Rates that may be added to these, one by one, where the best is the lowest or the highest
    tried: further out by as much as the last two are apart."""
    equivalence_margin: float | None = Field(default=None, gt=0, le=1e6)
    """Difference of loss that counts as none, nats per token; declared before training."""
    until_resolved: float | None = Field(default=None, gt=0, le=1e6)
    """The same margin, where seeds are added one by one at the minima of each variant and the
    baseline until it is better, worse or equivalent; None for the seeds declared alone."""
    seeds_at_most: int | None = Field(default=None, ge=1, le=10**4)
    """Seeds of a minimum in the end, the declared ones among them, where some may be added."""
    convention: Convention = "causal"
    tokens_per_step: int | None = Field(default=None, ge=1, le=10**12)
    """Tokens in an optimiser step; None for the built-in function of the budget."""
    reuse: bool = False
    """Runs that differ only in length share their steps up to where the shorter one decays. The
    sizes of all budgets are then of one ladder, so that there are such runs."""
    baseline: str | None = None
    """Variant the others are measured against; None for the first."""
    challenger: str | None = None
    """Routed variant singled out in the figures; None for the first with a routed block."""
    matched_shapes: bool = True
    """Also train the challenger in the shapes of the optimal baseline and of one twice its size."""
    evaluation_tokens: int = Field(default=262_144, ge=1, le=10**12)
    """Held-out tokens read of each split at the end of a run."""
    evaluation_text: EvaluationText = Field(default="start", exclude_if=lambda it: it == "start")
    """Where in a split they lie; as a run's."""
    positions: Positions | None = None
    """Ranges of positions whose losses are told apart."""
    data: DataConfig = DataConfig()
    recipe: StudyRecipe = StudyRecipe()
    shape: ShapeFamily = ShapeFamily()
    grid: Grid = Grid()
    search: Search | None = None
    """Trials of `isoflop search`; they decide nothing by themselves."""
    variants: tuple[Variant, ...] = Field(min_length=1)

    @field_validator("recipe", mode="before")
    @classmethod
    def _from_a_run(cls, value: object) -> object:
        """Take the recipe of a run as well, whose precision is settled."""
        return value.model_dump() if isinstance(value, Recipe) else value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError(
                f"name is {value!r}; expected 1 to 64 letters, digits, '.', '_' or '-', "
                "starting with a letter or digit, since it names a folder"
            )
        return value

    @field_validator("budgets_flops")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        within = all(0 < budget <= LARGEST_BUDGET_FLOPS for budget in value)
        if not within or list(value) != sorted(set(value)):
            raise ValueError(
                f"budgets_flops is {list(value)}; expected positive, ascending, distinct numbers "
                f"up to {LARGEST_BUDGET_FLOPS:g}"
            )
        return value

    @field_validator("seeds", "data_orders")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        least = "at least one, " if info.field_name == "seeds" else ""
        within = all(0 <= one <= LARGEST_SEED for one in value)
        if not within or len(set(value)) != len(value) or (least and not value):
            raise ValueError(
                f"{info.field_name} is {list(value)}; expected {least}distinct and not negative, "
                f"up to {LARGEST_SEED}"
            )
        return value

    @field_validator("learning_rate_check")
    @classmethod
    def _other_rates(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        within = all(1e-6 <= one <= 1e6 and one != 1 for one in value)
        if len(set(value)) != len(value) or not within:
            raise ValueError(
                f"learning_rate_check is {list(value)}; expected distinct multiples from 1e-6 to "
                "1e6, without 1, which is trained anyway"
            )
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.learning_rate_check_seeds > len(self.seeds):
            raise ValueError(
                f"learning_rate_check_seeds is {self.learning_rate_check_seeds}; expected at most "
                f"{len(self.seeds)}, as many as there are seeds"
            )
        if self.learning_rate_check_added and not self.learning_rate_check:
            raise ValueError(
                f"learning_rate_check_added is {self.learning_rate_check_added}, but no other rate "
                "is tried; expected learning_rate_check = [0.625, 1.6] or other multiples with it"
            )
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"variants are named {names}; expected distinct names")
        for key in ("baseline", "challenger"):
            named = getattr(self, key)
            if named is not None and named not in names:
                raise ValueError(f"{key} is {named!r}; expected one of {names}")
        if bool(self.budgets_flops) == (self.scaling is not None):
            raise ValueError(
                "budgets_flops and [scaling] are "
                + ("both there" if self.budgets_flops else "missing")
                + "; expected budgets_flops = [...] to find the best sizes at them, or "
                "[[scaling.models]] to train every variant at the same sizes"
            )
        for key in ("grid", "search", "replicate", "challenger", "matched_shapes", "reuse"):
            given = getattr(self, key) != type(self).model_fields[key].get_default()
            if self.scaling is not None and given:
                raise ValueError(
                    f"{key} is given, but [scaling] names the sizes; expected none, since it "
                    "serves the search for the best size at a budget: remove it"
                )
        self._check_start()
        self._check_added_seeds()
        self._check_moved_settings()
        if self.positions is not None:
            self.positions.check(self.data)
        if self.reuse and (bound := self._depends_on_length()):
            raise ValueError(f"reuse = true, but {bound} (only what no length decides is shared)")
        return self

    def _depends_on_length(self) -> str | None:
        """Say why runs of different lengths share no part; None where they may."""
        turning = next((one.name for one in self.variants if one.follows_training), None)
        if turning is not None:
            return f"{turning!r} changes at shares of training; expected variants that do not"
        if any(one.exponents for one in self.variants):
            return "exponents move settings with the budget; expected none"
        if self.tokens_per_step is None:
            return "tokens_per_step follows from the budget; expected one for all"
        return self.recipe.depends_on_length

    @property
    def shares_up_to(self) -> float | None:
        """Largest budget of runs that share their first steps; None where none do."""
        return self.budgets_flops[-1] if self.reuse else None

    def _check_start(self) -> None:
        if self.start is None:
            return
        for key in ("scaling", "search", "shape"):
            if getattr(self, key) != type(self).model_fields[key].get_default():
                raise ValueError(f"{key} is given beside [start], whose shape is the only one")
        if self.grid not in (Grid(), ONE_SIZE):
            raise ValueError("grid is given beside [start], whose shape is the only size")
        self.start.check_ids(self.data.vocabulary)
        for variant in self.variants:
            self.start.taken(variant, f"variant {variant.name!r}")
        # What serves several sizes, before anybody has the study.
        object.__setattr__(self, "grid", ONE_SIZE)
        object.__setattr__(self, "matched_shapes", False)

    def _check_added_seeds(self) -> None:
        most, declared = self.seeds_at_most, len(self.seeds)
        if (most is None) != (self.until_resolved is None):
            raise ValueError(
                f"until_resolved is {self.until_resolved} and seeds_at_most {most}; expected both, "
                "since the number of seeds has to end somewhere, or neither"
            )
        if most is None:
            return
        if self.equivalence_margin not in (None, self.until_resolved):
            raise ValueError(
                f"until_resolved is {self.until_resolved} and equivalence_margin "
                f"{self.equivalence_margin}; expected one margin: leave the second out"
            )
        if self.scaling is not None or len(self.variants) < 2:
            raise ValueError(
                "until_resolved adds seeds at minima of variants that are compared; expected "
                "budgets_flops and two variants or more"
            )
        if not FEWEST_LOOKED_AT <= declared < most or self.added_seeds[-1] > LARGEST_SEED:
            raise ValueError(
                f"until_resolved adds to {declared} seeds, up to seeds_at_most = {most}; expected "
                f"{FEWEST_LOOKED_AT} or more seeds, fewer than that, and none above {LARGEST_SEED}"
            )

    def _check_moved_settings(self) -> None:
        if self.scaling is not None and any(one.exponents for one in self.variants):
            raise ValueError(
                "exponents of a variant count from the first of budgets_flops, but [scaling] names "
                "the sizes; expected none: remove it"
            )
        recipe, rules = self.recipe, self.recipe.rules or RecipeRules()
        choice, usual = recipe.optimiser, AdamW()
        adamw = choice if isinstance(choice, AdamW) else choice.adamw
        decays = {choice.weight_decay, adamw.weight_decay} != {usual.weight_decay}
        rule, warm = "rules.warmup_tokens_per_parameter", rules.warmup_tokens_per_parameter
        fixed = (
            ("warmup_steps", recipe.warmup_steps, "warmup_fraction", False),
            (rule, warm, "warmup_steps", recipe.warmup_steps is not None),
            (rule, warm, "warmup_fraction", False),
            ("rules.decay_time_scale", rules.decay_time_scale, "weight_decay", decays),
            ("rules.beta2_half_life", rules.beta2_half_life, "beta2", adamw.beta2 != usual.beta2),
            ("rules.batch_exponent", rules.batch_exponent, "tokens_per_step", self.tokens_per_step),
        )
        given = {name for one in self.variants for name, value in one if value is not None}
        given |= set() if self.search is None else self.search.values.keys()
        for place, value, name, own in fixed:
            if value is not None and (own or name in given):
                raise ValueError(
                    f"recipe.{place} is {value:g}, beside which {name} is given too, for all, for "
                    "a variant or in [search]; expected one of them"
                )

    @property
    def margin(self) -> float | None:
        """Difference of loss that counts as none, nats per token, under either name."""
        return self.until_resolved or self.equivalence_margin

    @property
    def added_seeds(self) -> tuple[int, ...]:
        """Seeds that may be added to the declared ones, in this order: those after the largest."""
        first = max(self.seeds) + 1
        return tuple(range(first, first + (self.seeds_at_most or 0) - len(self.seeds)))

    @property
    def baseline_variant(self) -> Variant:
        """The variant the others are measured against."""
        return next((v for v in self.variants if v.name == self.baseline), self.variants[0])

    def with_precision(self, precision: Precision) -> Study:
        """Return the study with its precision settled."""
        recipe = self.recipe.model_copy(update={"precision": precision})
        return self.model_copy(update={"recipe": recipe})

    def learning_rates(self) -> dict[str, float]:
        """Return each variant's peak learning rate at the reference shape and the first budget."""
        usual = self.recipe.learning_rate
        return {one.name: one.learning_rate or usual for one in self.variants}

    def learning_rate(self, variant: str, budget_flops: float) -> float:
        """Return the peak learning rate of a variant, by its name, at a budget."""
        rate = self.learning_rates()[variant]
        moved = next(one.exponents for one in self.variants if one.name == variant)
        if moved is None:
            return rate
        return moved.moved("learning_rate", rate, budget_flops / self.budgets_flops[0])

    @property
    def differs(self) -> tuple[str, ...]:
        """What the study has otherwise than where its recipe comes from, in words."""
        source, data = self.recipe.source or BUILT_IN, self.data
        named = (source.corpus,) if isinstance(source.corpus, str) else source.corpus
        alike = {
            "corpus": data.corpora == named,
            "tokenizer": getattr(data.tokenizer, "source", data.tokenizer) == source.tokenizer,
            "sequence length": data.sequence_length == source.sequence_length,
            "optimiser": self.recipe.optimiser.kind == source.optimiser,
        }
        return tuple(name for name, same in alike.items() if not same)

    @property
    def checks_first(self) -> bool:
        """Whether other learning rates are tried before the grid is trained."""
        asked = self.recipe.check_first
        return bool(self.differs) if asked == "auto" else asked

    @property
    def challenger_variant(self) -> Variant | None:
        """The routed variant singled out in the figures, if there is one."""
        if self.challenger is not None:
            return next(v for v in self.variants if v.name == self.challenger)
        return next((v for v in self.variants if v.depth.kind == "top_k"), None)
