"""What settings are over the budget, and what to write of a search into the study."""

from __future__ import annotations

from collections.abc import Sequence

from isoflop.config import Exponents, Setting, Study, Variant
from isoflop.estimate import Estimate
from isoflop.fit.search import FoundRecipe, SearchResult, SettingLaw, setting_law
from isoflop.planning.recipe import TOKENS_PER_STEP_EXPONENT, with_settings


def laws(study: Study, recipes: Sequence[FoundRecipe]) -> list[SettingLaw]:
    """Return the law of each setting that two or more budgets give an interval of."""
    best: dict[tuple[str, Setting], dict[float, Estimate]] = {}
    for recipe in recipes:
        for one in recipe.settings:
            if one.best is not None and one.standing == "inside":
                found = best.setdefault((recipe.variant, one.setting), {})
                found[recipe.budget_flops] = one.best
    found_laws = []
    for (variant, setting), by_budget in best.items():
        law = setting_law(by_budget, study.budgets_flops[0])
        if law is not None:
            found_laws.append(
                SettingLaw(
                    variant=variant,
                    setting=setting,
                    value=law[0],
                    exponent=law[1],
                    budgets=len(by_budget),
                )
            )
    return found_laws


def found_variants(study: Study, result: SearchResult) -> list[Variant]:
    """Return the study's variants with what was found, those that something is known of.

    A setting that surely moves with the budget has its law. Others are constant, at what the last
    budget gave, but for tokens per step, which else grow as they do where nobody names them.
    """
    found = []
    for variant in study.variants:
        recipes = [one for one in result.recipes if one.variant == variant.name]
        if not recipes:
            continue
        last = recipes[-1]
        values = {one.setting: one.chosen for one in last.settings}
        exponents: dict[Setting, float] = {}
        several = len(study.budgets_flops) > 1
        if "tokens_per_step" in values and study.tokens_per_step is None and several:
            exponents["tokens_per_step"] = float(f"{TOKENS_PER_STEP_EXPONENT:.3f}")
            growth = study.budgets_flops[0] / last.budget_flops
            values["tokens_per_step"] *= growth**TOKENS_PER_STEP_EXPONENT
        for law in result.laws:
            if law.variant == variant.name and law.exponent.side:
                exponents[law.setting] = float(f"{law.exponent.value:.3f}")
                values[law.setting] = float(f"{law.value:.3g}")
        if "tokens_per_step" in values:
            length = study.data.sequence_length
            values["tokens_per_step"] = max(1, round(values["tokens_per_step"] / length)) * length
        made = with_settings(study, variant, values)
        moving = Exponents(**exponents) if exponents else None
        found.append(made.model_copy(update={"exponents": moving}))
    return found
