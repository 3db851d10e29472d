import numpy as np
import pytest
from scaling_records import LENGTH, SIZES, SPANS, compute, power_law, study
from scipy import special

from isoflop.config import RunRecord
from isoflop.fit import ScalingFit, fit_scaling, gap_sentence
from isoflop.fit.spans.values import SpanGap

A, B = 1.3, -0.09
FULL = power_law(A, B)
MARGIN = 0.01
WHOLE = (0, LENGTH)
LOUD = {"seed_noise": 0.002, "document_noise": 0.1, "gap_noise": 0.002}
"""Noise that a margin of 0.01 stands out of."""


def of(fit: ScalingFit, span: tuple[int, int] = WHOLE) -> list[SpanGap]:
    """Return the gaps in a span: over sizes, then at each size."""
    return [one for one in fit.gaps if (one.start, one.stop) == span]


def shifted(by: float):
    return lambda c, span: FULL(c, span) + by


def both(by: float = 0.0) -> dict[str, object]:
    return {"full": FULL, "block": shifted(by)}


def fitted(laws, *, margin: float | None = MARGIN, **options) -> ScalingFit:
    return fit_scaling(*study(laws, **options), baseline="full", margin=margin)


def changed(record: RunRecord, first: int = 0, **update: object) -> RunRecord:
    """Return a record whose spans of the test split, from `first` on, are changed alike."""
    one = record.evaluations[0]
    spans = [span.model_copy(update=update) for span in one.spans[first:]]
    evaluation = one.model_copy(update={"spans": (*one.spans[:first], *spans)})
    return record.model_copy(update={"evaluations": (evaluation,)})


def test_a_known_law_is_recovered_on_both_axes() -> None:
    fit = fitted({"full": FULL, "block": power_law(1.4, -0.07)})
    assert fit.spans == SPANS
    lines = {(p.variant, p.start, p.stop, p.axis): p for p in fit.projections}
    assert len(lines) == 2 * len(SPANS) * 2
    for span in SPANS:
        for name, a, b in (("full", A, B), ("block", 1.4, -0.07)):
            line = lines[name, *span, "6nd"]
            assert (line.status, line.sizes) == ("converged", 5)
            assert (line.a.value, line.b.value) == pytest.approx((a, b), rel=1e-9)
            assert line.at(2e-9) == pytest.approx(a * 2e-9**b, rel=1e-9)
    # C_causal = k C_6nd^0.9, so the exponent grows by 1 / 0.9.
    assert lines["full", *WHOLE, "causal"].b.value == pytest.approx(B / 0.9, rel=1e-9)


def test_losses_are_means_over_seeds_with_what_they_rest_on() -> None:
    records, variant_of = study(both(), seed_noise=0.01, document_noise=0.1)
    fit = fit_scaling(records, variant_of, baseline="full")
    one = fit.losses[1]
    assert (one.variant, one.non_embedding, one.start, one.stop) == ("full", 7_000, *SPANS[0])
    # Records of the first variant come first, by size and then seed.
    own = [record.evaluations[0].spans[0].loss for record in records[3:6]]
    assert one.loss.value == pytest.approx(np.mean(own))
    assert one.loss.low < one.loss.value < one.loss.high
    assert one.compute["6nd"] == pytest.approx(compute(7_000))
    assert (one.seeds, one.documents, one.windows) == ((0, 1, 2), 6, 27)
    assert one.tokens == 27 * LENGTH // 3
    assert [loss.non_embedding for loss in fit.losses[:5]] == list(SIZES.values())


def test_seeds_and_documents_both_widen_the_interval_of_a_loss() -> None:
    def width(**noise: float) -> float:
        loss = fitted({"full": FULL}, **noise).losses[0].loss
        return loss.high - loss.low

    assert width() == pytest.approx(0, abs=1e-12)
    records, _ = study({"full": FULL}, seed_noise=0.01)
    by_size = np.array([one.evaluations[0].spans[0].loss for one in records]).reshape(5, 3)
    pooled = by_size.var(axis=1, ddof=1).mean()
    seeds = width(seed_noise=0.01)
    # 5 sizes x 3 seeds leave 10 degrees of freedom.
    assert seeds == pytest.approx(2 * special.stdtrit(10, 0.975) * np.sqrt(pooled / 3))
    documents = width(document_noise=0.002)
    assert width(seed_noise=0.01, document_noise=0.002) > max(seeds, documents) * 1.02


def test_few_sizes_have_a_line_without_interval_or_none() -> None:
    two, one = (
        fitted({"full": FULL}, sizes=tuple(SIZES)[:sizes]).projections[0] for sizes in (2, 1)
    )
    assert (two.status, two.sizes) == ("converged", 2)
    assert two.b.value == pytest.approx(B, rel=1e-9)
    assert (two.b.low, two.b.high) == (None, None)
    assert (one.status, one.sizes, one.a, one.b) == ("too_few", 1, None, None)


def test_identical_records_have_a_gap_of_exactly_zero() -> None:
    records, variant_of = study({"full": FULL}, seed_noise=0.01, document_noise=0.2)
    copies = [one.model_copy(update={"run_id": f"copy of {one.run_id}"}) for one in records]
    variant_of |= {one.run_id: "block" for one in copies}
    fit = fit_scaling([*records, *copies], variant_of, baseline="full", margin=MARGIN)
    for gap in fit.gaps:
        assert (gap.difference.low, gap.difference.value, gap.difference.high) == (0, 0, 0)
        assert (gap.outcome, gap.p_different) == ("equivalent", 1.0)
    assert len(fit.gaps) == len(SPANS) * (1 + len(SIZES))


def test_a_gap_inside_the_margin_is_equivalent_even_where_its_sign_is_known() -> None:
    fit = fitted(both(0.004), **LOUD)
    gap = of(fit)[0]
    low, high = gap.difference.ends
    assert 0 < low < 0.004 < high < MARGIN
    assert gap.p_different < 0.05
    assert gap.outcome == "equivalent"
    assert (gap.pairs, gap.documents, gap.windows, gap.reason) == (15, 6, 27, None)
    assert gap_sentence(fit, gap, "nats per byte") == (
        "Positions 0-95: block is equivalent to full within 0.01 nats per byte (difference "
        f"{gap.difference.value:+.4f} [{low:+.4f}, {high:+.4f}] nats per byte, 15 pairs of runs)."
    )


@pytest.mark.parametrize(("by", "outcome"), [(-0.02, "better"), (0.02, "worse")])
def test_a_gap_of_twice_the_margin_is_never_equivalent(by: float, outcome: str) -> None:
    for seed in range(4):
        fit = fitted(both(by), generator=np.random.default_rng(seed), **LOUD)
        assert {gap.outcome for gap in fit.gaps if gap.non_embedding is None} == {outcome}
        side = "lower" if by < 0 else "higher"
    assert gap_sentence(fit, of(fit, SPANS[0])[2]).startswith(
        f"Positions 0-31 at N = 7,000: block has a {side} loss than full (difference "
    )
    corrected = of(fit)[0].model_copy(update={"p_different": 0.08, "outcome": "unresolved"})
    said = gap_sentence(fit, corrected)
    assert "excludes 0, but not once corrected for the other spans" in said


def test_one_span_out_of_the_margin_is_worse_and_without_a_margin_none_is_equivalent() -> None:
    def late(c: float, span: tuple[int, int]) -> float:
        return FULL(c, span) + (0.03 if span == (64, 96) else 0.0)

    fit = fitted({"full": FULL, "block": late}, **LOUD)
    assert of(fit, (0, 32))[0].outcome == "equivalent"
    assert of(fit, (64, 96))[0].outcome == "worse"
    fit = fitted(both(), margin=None, **LOUD)
    assert (of(fit)[0].outcome, of(fit)[0].p_equivalent) == ("unresolved", None)


def test_parts_of_the_error_are_those_of_pairs_and_of_documents() -> None:
    records, variant_of = study(both(), sizes=((2, 16), (4, 32)), seeds=(3, 5), **LOUD)
    fit = fit_scaling(records, variant_of, baseline="full", margin=MARGIN)
    spans = [one.evaluations[0].spans[0] for one in records]
    # By variant, size and seed.
    losses = np.array([one.loss for one in spans]).reshape(2, 2, 2)
    apart = losses[1] - losses[0]
    mean, single = of(fit, SPANS[0])[:2]
    variance = apart.var(axis=1, ddof=1).mean()
    assert mean.difference.value == pytest.approx(apart.mean())
    assert mean.seed_error == pytest.approx(np.sqrt(variance / 4))
    assert single.non_embedding == 3_000
    assert single.seed_error == pytest.approx(np.sqrt(variance / 2))
    assert single.difference.value == pytest.approx(apart[0].mean())
    tokens = np.array(spans[0].document_windows) * 32
    of_documents = np.array([one.document_losses for one in spans]).reshape(2, 4, -1)
    sums = (of_documents[1] - of_documents[0]).mean(axis=0)
    without = [
        np.delete(sums, i).sum() / np.delete(tokens, i).sum() - sums.sum() / tokens.sum()
        for i in range(6)
    ]
    assert mean.document_error == pytest.approx(np.sqrt(5 / 6 * np.sum(np.square(without))))


def test_one_seed_has_the_documents_part_only_and_decides_nothing() -> None:
    fit = fitted(both(-0.5), seeds=(4,), **LOUD)
    gap = of(fit)[0]
    assert gap.difference.high < 0
    assert (gap.outcome, gap.seed_error) == ("unresolved", None)
    assert (gap.p_equivalent, gap.p_different) == (None, None)
    assert gap.document_error > 0
    said = gap_sentence(fit, gap)
    assert said.startswith("Positions 0-95: it is unresolved which of block and full is better (")
    assert said.endswith(
        "5 pairs of runs; one pair of runs at each size, so seed noise is not known)."
    )


def test_what_is_missing_is_left_out_and_told() -> None:
    records, variant_of = study(both(), **LOUD)
    kept = []
    for one in records:
        name, size = variant_of[one.run_id], one.parameters.non_embedding
        if (name, size) == ("full", 90_000):
            one = one.model_copy(update={"state": "diverged", "evaluations": ()})
        if (name, size, one.config.seed) != ("block", 3_000, 1):
            kept.append(one)
    fit = fit_scaling(kept, variant_of, baseline="full", margin=MARGIN)
    mean, *single = of(fit)
    assert mean.pairs == 11
    assert mean.reason == "N = 90,000: no finished pair of runs with the same seed"
    assert [one.pairs for one in single] == [2, 3, 3, 3, 0]
    assert (single[-1].difference, single[-1].outcome) == (None, "unresolved")
    assert "cannot be compared (no finished pair" in gap_sentence(fit, single[-1])
    lines = {one.variant: one.sizes for one in fit.projections if one.axis == "6nd"}
    assert lines == {"full": 4, "block": 5}


def with_steps(one: RunRecord) -> RunRecord:
    return one.model_copy(update={"config": one.config.model_copy(update={"steps": 7})})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.model_copy(update={"data_sha256": "other"}), "data, documents"),
        (lambda one: changed(one, document_windows=(2, 6, 4, 7, 2, 6)), "documents or windows"),
        (with_steps, "training tokens of one size"),
    ],
)
def test_runs_of_other_data_are_not_held_against_each_other(change, reason: str) -> None:
    records, variant_of = study(both(), **LOUD)
    records[-1] = change(records[-1])
    with pytest.raises(ValueError, match=reason):
        fit_scaling(records, variant_of, baseline="full")


def test_a_span_that_one_document_reaches_is_left_out() -> None:
    records, variant_of = study(both(), **LOUD)
    cut = [changed(one, 2, document_losses=(3.0,), document_windows=(3,)) for one in records]
    fit = fit_scaling(cut, variant_of, baseline="full", margin=MARGIN)
    assert {(one.start, one.stop) for one in fit.losses} == {(0, 32), (32, 64)}
    assert "fewer than two documents" in of(fit)[0].reason
    assert {one.status for one in fit.projections if one.stop == LENGTH} == {"too_few"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "Full"}, "expected one of"),
        ({"margin": -1}, "margin is -1"),
        ({"level": 95}, "level is 95"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_scaling(*study(both()), **{"baseline": "full", **options})


def test_records_that_are_not_of_one_study_are_refused_or_left_aside() -> None:
    records, variant_of = study(both())
    again = records[0].model_copy(update={"run_id": "again"})
    with pytest.raises(ValueError, match="another of seed 0 of 'full' at 2 blocks of width 16"):
        fit_scaling([*records, again], variant_of | {"again": "full"}, baseline="full")
    bare = records[0].config.model_copy(update={"positions": None})
    without = [one.model_copy(update={"config": bare}) for one in records]
    with pytest.raises(ValueError, match=r"one study with \[positions\]"):
        fit_scaling(without, variant_of, baseline="full")
    only = {run_id: name for run_id, name in variant_of.items() if name == "full"}
    assert not fit_scaling(records, only, baseline="full").gaps


def test_better_is_corrected_over_the_spans() -> None:
    # Differences within the noise: of those whose own interval excludes 0 some must not stand.
    uncorrected = corrected = 0
    for seed in range(12):
        generator = np.random.default_rng(seed)
        fit = fitted(both(0.0025), margin=None, generator=generator, **LOUD)
        for gap in (one for one in fit.gaps if one.non_embedding is None):
            excludes = gap.difference.side != 0
            uncorrected += excludes
            corrected += gap.outcome != "unresolved"
            assert excludes or gap.outcome == "unresolved"
    assert 0 < corrected < uncorrected
