import numpy as np
import pytest
from scaling_records import LENGTH, SIZES, SPANS, compute, power_law, study
from scipy import stats

from isoflop.config import RunRecord, SpanLoss
from isoflop.fit import ScalingFit, fit_scaling, gap_sentence
from isoflop.fit.spans.values import SpanGap

A, B = 1.3, -0.09
FULL = power_law(A, B)
MARGIN = 0.01
WHOLE = (0, LENGTH)
LOUD = {"seed_noise": 0.002, "document_noise": 0.1, "gap_noise": 0.002}
"""Noise that a margin of 0.01 stands out of."""


def mean_gap(fit: ScalingFit, span: tuple[int, int] = WHOLE) -> SpanGap:
    return next(
        one for one in fit.gaps if (one.start, one.stop) == span and one.non_embedding is None
    )


def shifted(by: float):
    return lambda c, span: FULL(c, span) + by


def fitted(laws, *, margin: float | None = MARGIN, **options) -> ScalingFit:
    return fit_scaling(*study(laws, **options), baseline="full", margin=margin)


def with_spans(record: RunRecord, **update: object) -> RunRecord:
    """Return a record whose spans of the test split are changed alike."""
    one = record.evaluations[0]
    spans = tuple(span.model_copy(update=update) for span in one.spans)
    return record.model_copy(update={"evaluations": (one.model_copy(update={"spans": spans}),)})


def test_a_known_law_is_recovered_on_both_axes() -> None:
    fit = fitted({"full": FULL, "block": power_law(1.4, -0.07)})
    assert fit.spans == SPANS
    lines = {(p.variant, p.start, p.stop, p.axis): p for p in fit.projections}
    assert len(lines) == 2 * len(SPANS) * 2
    for span in SPANS:
        for name, a, b in (("full", A, B), ("block", 1.4, -0.07)):
            line = lines[name, *span, "6nd"]
            assert (line.status, line.sizes) == ("converged", 5)
            assert line.a is not None
            assert line.b is not None
            assert line.a.value == pytest.approx(a, rel=1e-9)
            assert line.b.value == pytest.approx(b, rel=1e-9)
            assert line.at(2e-9) == pytest.approx(a * 2e-9**b, rel=1e-9)
    # C_causal = k C_6nd^0.9, so the exponent grows by 1 / 0.9.
    causal = lines["full", *WHOLE, "causal"].b
    assert causal is not None
    assert causal.value == pytest.approx(B / 0.9, rel=1e-9)


def test_losses_are_means_over_seeds_with_what_they_rest_on() -> None:
    records, variant_of = study({"full": FULL, "block": FULL}, seed_noise=0.01, document_noise=0.1)
    fit = fit_scaling(records, variant_of, baseline="full")
    one = fit.losses[1]
    assert (one.variant, one.non_embedding, one.start, one.stop) == ("full", 7_000, *SPANS[0])
    own = [
        record.evaluations[0].spans[0].loss
        for record in records
        if variant_of[record.run_id] == "full" and record.parameters.non_embedding == 7_000
    ]
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
    assert seeds == pytest.approx(2 * stats.t.ppf(0.975, 10) * np.sqrt(pooled / 3))
    documents = width(document_noise=0.002)
    assert width(seed_noise=0.01, document_noise=0.002) > max(seeds, documents) * 1.02


@pytest.mark.parametrize(("sizes", "status"), [(2, "converged"), (1, "too_few")])
def test_few_sizes_have_a_line_without_interval_or_none(sizes: int, status: str) -> None:
    fit = fitted({"full": FULL}, sizes=tuple(SIZES)[:sizes])
    line = fit.projections[0]
    assert (line.status, line.sizes) == (status, sizes)
    if status == "converged":
        assert line.b is not None
        assert line.b.value == pytest.approx(B, rel=1e-9)
        assert (line.b.low, line.b.high) == (None, None)
    else:
        assert (line.a, line.b) == (None, None)
        with pytest.raises(ValueError, match="1 size with"):
            line.at(1.0)


def test_identical_records_have_a_gap_of_exactly_zero() -> None:
    records, variant_of = study({"full": FULL}, seed_noise=0.01, document_noise=0.2)
    copies = [one.model_copy(update={"run_id": f"copy of {one.run_id}"}) for one in records]
    variant_of |= {one.run_id: "block" for one in copies}
    fit = fit_scaling([*records, *copies], variant_of, baseline="full", margin=MARGIN)
    for gap in fit.gaps:
        assert gap.difference is not None
        assert (gap.difference.low, gap.difference.value, gap.difference.high) == (0, 0, 0)
        assert (gap.outcome, gap.p_different) == ("equivalent", 1.0)
    assert len(fit.gaps) == len(SPANS) * (1 + len(SIZES))
    assert fit.equivalent_everywhere("block") is True


def test_a_gap_inside_the_margin_is_equivalent_even_where_its_sign_is_known() -> None:
    fit = fitted({"full": FULL, "block": shifted(0.004)}, **LOUD)
    gap = mean_gap(fit)
    assert gap.difference is not None
    assert 0 < gap.difference.low < 0.004 < gap.difference.high < MARGIN
    assert gap.p_different is not None
    assert gap.p_different < 0.05
    assert gap.outcome == "equivalent"
    assert (gap.pairs, gap.documents, gap.windows, gap.reason) == (15, 6, 27, None)
    assert fit.equivalent_everywhere("block") is True


@pytest.mark.parametrize(("by", "outcome"), [(-0.02, "better"), (0.02, "worse")])
def test_a_gap_of_twice_the_margin_is_never_equivalent(by: float, outcome: str) -> None:
    for seed in range(10):
        fit = fitted(
            {"full": FULL, "block": shifted(by)}, generator=np.random.default_rng(seed), **LOUD
        )
        assert {gap.outcome for gap in fit.gaps if gap.non_embedding is None} == {outcome}
        assert fit.equivalent_everywhere("block") is False


def test_without_a_margin_nothing_is_equivalent() -> None:
    fit = fitted({"full": FULL, "block": FULL}, margin=None, **LOUD)
    gap = mean_gap(fit)
    assert (gap.outcome, gap.p_equivalent) == ("unresolved", None)
    assert fit.equivalent_everywhere("block") is None


def test_one_span_out_of_the_margin_denies_equivalence_everywhere() -> None:
    def late(c: float, span: tuple[int, int]) -> float:
        return FULL(c, span) + (0.03 if span == (64, 96) else 0.0)

    fit = fitted({"full": FULL, "block": late}, **LOUD)
    assert mean_gap(fit, (0, 32)).outcome == "equivalent"
    assert mean_gap(fit, (64, 96)).outcome == "worse"
    assert fit.equivalent_everywhere("block") is False
    with pytest.raises(ValueError, match=r"expected one of \['block'\]"):
        fit.equivalent_everywhere("full")


def test_parts_of_the_error_are_those_of_pairs_and_of_documents() -> None:
    records, variant_of = study(
        {"full": FULL, "block": FULL}, sizes=((2, 16), (4, 32)), seeds=(3, 5), **LOUD
    )
    fit = fit_scaling(records, variant_of, baseline="full", margin=MARGIN)
    loss = {
        (
            variant_of[one.run_id],
            one.parameters.non_embedding,
            one.config.seed,
        ): one.evaluations[0].spans[0]
        for one in records
    }
    apart = np.array(
        [
            [loss["block", n, s].loss - loss["full", n, s].loss for s in (3, 5)]
            for n in (3_000, 15_000)
        ]
    )
    gap = mean_gap(fit, SPANS[0])
    variance = apart.var(axis=1, ddof=1).mean()
    assert gap.difference is not None
    assert gap.difference.value == pytest.approx(apart.mean())
    assert gap.seed_error == pytest.approx(np.sqrt(variance / 4))
    single = [one for one in fit.gaps if (one.start, one.stop) == SPANS[0]][1]
    assert single.non_embedding == 3_000
    assert single.seed_error == pytest.approx(np.sqrt(variance / 2))
    assert single.difference is not None
    assert single.difference.value == pytest.approx(apart[0].mean())
    tokens = np.array(loss["full", 3_000, 3].document_windows) * 32
    sums = np.mean(
        [
            np.subtract(loss["block", n, s].document_losses, loss["full", n, s].document_losses)
            for n in (3_000, 15_000)
            for s in (3, 5)
        ],
        axis=0,
    )
    without = [
        np.delete(sums, i).sum() / np.delete(tokens, i).sum() - sums.sum() / tokens.sum()
        for i in range(6)
    ]
    assert gap.document_error == pytest.approx(np.sqrt(5 / 6 * np.sum(np.square(without))))


def test_one_seed_has_the_documents_part_only_and_decides_nothing() -> None:
    fit = fitted({"full": FULL, "block": shifted(-0.5)}, seeds=(4,), **LOUD)
    gap = mean_gap(fit)
    assert gap.difference is not None
    assert gap.difference.high < 0
    assert (gap.outcome, gap.seed_error) == ("unresolved", None)
    assert (gap.p_equivalent, gap.p_different) == (None, None)
    assert gap.document_error is not None
    assert gap.document_error > 0
    assert "seed noise is not known" in (gap.reason or "")
    assert fit.equivalent_everywhere("block") is None


def test_what_is_missing_is_left_out_and_told() -> None:
    records, variant_of = study({"full": FULL, "block": FULL}, **LOUD)

    def chosen(record: RunRecord, name: str, size: int, seed: int | None = None) -> bool:
        return (
            variant_of[record.run_id] == name
            and record.parameters.non_embedding == size
            and seed in (None, record.config.seed)
        )

    kept = [one for one in records if not chosen(one, "block", 3_000, 1)]
    kept = [
        one.model_copy(update={"state": "diverged", "evaluations": ()})
        if chosen(one, "full", 90_000)
        else one
        for one in kept
    ]
    fit = fit_scaling(kept, variant_of, baseline="full", margin=MARGIN)
    mean, *single = [one for one in fit.gaps if (one.start, one.stop) == WHOLE]
    assert mean.pairs == 11
    assert mean.reason == "N = 90,000: no finished pair of runs with the same seed"
    assert [one.pairs for one in single] == [2, 3, 3, 3, 0]
    assert single[-1].difference is None
    assert single[-1].outcome == "unresolved"
    assert "cannot be compared (no finished pair" in gap_sentence(fit, single[-1])
    lines = {one.variant: one.sizes for one in fit.projections if one.axis == "6nd"}
    assert lines == {"full": 4, "block": 5}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.model_copy(update={"data_sha256": "other"}), "have other data"),
        (
            lambda one: with_spans(one, document_windows=(2, 6, 4, 7, 2, 6)),
            "have other documents or windows",
        ),
        (
            lambda one: one.model_copy(
                update={"config": one.config.model_copy(update={"steps": 7})}
            ),
            "training tokens",
        ),
    ],
)
def test_runs_of_other_data_are_not_held_against_each_other(change, reason: str) -> None:
    records, variant_of = study({"full": FULL, "block": FULL}, **LOUD)
    changed = [change(one) if variant_of[one.run_id] == "block" else one for one in records]
    fit = fit_scaling(changed, variant_of, baseline="full", margin=MARGIN)
    for gap in fit.gaps:
        assert gap.difference is None
        assert reason in (gap.reason or "")
    assert fit.equivalent_everywhere("block") is None
    only_seed_0 = [change(one) if one.config.seed == 0 else one for one in records]
    with pytest.raises(ValueError, match="are seeds of one size"):
        fit_scaling(only_seed_0, variant_of, baseline="full")


def test_sizes_that_read_other_documents_have_no_gap() -> None:
    records, variant_of = study({"full": FULL, "block": FULL}, **LOUD)
    changed = [
        with_spans(one, document_windows=(2, 6, 4, 7, 2, 6))
        if one.config.model.blocks == 2
        else one
        for one in records
    ]
    gap = mean_gap(fit_scaling(changed, variant_of, baseline="full", margin=MARGIN))
    assert gap.difference is None
    assert "other sizes were evaluated on other documents" in (gap.reason or "")


def test_a_span_that_one_document_reaches_is_left_out() -> None:
    records, variant_of = study({"full": FULL, "block": FULL}, **LOUD)

    def cut(record: RunRecord) -> RunRecord:
        one = record.evaluations[0]
        spans: list[SpanLoss] = []
        for span in one.spans:
            if span.stop == LENGTH:
                span = span.model_copy(
                    update={
                        "document_losses": span.document_losses[:1],
                        "document_windows": span.document_windows[:1],
                    }
                )
            spans.append(span)
        evaluation = one.model_copy(update={"spans": tuple(spans)})
        return record.model_copy(update={"evaluations": (evaluation,)})

    fit = fit_scaling([cut(one) for one in records], variant_of, baseline="full", margin=MARGIN)
    assert {(one.start, one.stop) for one in fit.losses} == {(0, 32), (32, 64)}
    gap = mean_gap(fit)
    assert "fewer than two documents" in (gap.reason or "")
    late = next(one for one in fit.projections if one.stop == LENGTH)
    assert late.status == "too_few"


def test_unfinished_studies_have_gaps_without_numbers() -> None:
    records, variant_of = study({"full": FULL, "block": FULL})
    failed = [one.model_copy(update={"state": "failed", "evaluations": ()}) for one in records]
    fit = fit_scaling(failed, variant_of, baseline="full", margin=MARGIN)
    assert (fit.losses, fit.spans) == ((), SPANS)
    assert all(one.difference is None for one in fit.gaps)
    assert {one.status for one in fit.projections} == {"too_few"}


def test_what_cannot_be_fitted_is_refused() -> None:
    records, variant_of = study({"full": FULL, "block": FULL})
    with pytest.raises(ValueError, match="expected one of"):
        fit_scaling(records, variant_of, baseline="Full")
    with pytest.raises(ValueError, match="margin is -1"):
        fit_scaling(records, variant_of, baseline="full", margin=-1)
    with pytest.raises(ValueError, match="level is 95"):
        fit_scaling(records, variant_of, baseline="full", level=95)
    again = records[0].model_copy(update={"run_id": "again"})
    with pytest.raises(ValueError, match="are both seed 0 of 'full' at 2 blocks of width 16"):
        fit_scaling([*records, again], variant_of | {"again": "full"}, baseline="full")
    bare = records[0].config.model_copy(update={"positions": None})
    with pytest.raises(ValueError, match=r"one study with \[positions\]"):
        fit_scaling(
            [one.model_copy(update={"config": bare}) for one in records],
            variant_of,
            baseline="full",
        )
    with pytest.raises(ValueError, match="no validation loss by position"):
        fit_scaling(records, variant_of, baseline="full", split="validation")
    # Records of other studies are left aside.
    only = {run_id: name for run_id, name in variant_of.items() if name == "full"}
    assert not fit_scaling(records, only, baseline="full").gaps


def test_sentences_say_what_was_shown_and_no_more() -> None:
    fit = fitted({"full": FULL, "block": shifted(0.004)}, **LOUD)
    gap = mean_gap(fit)
    assert gap.difference is not None
    low, high = gap.difference.low, gap.difference.high
    assert gap_sentence(fit, gap, "nats per byte") == (
        "Positions 0-95: block is equivalent to full within 0.01 nats per byte (difference "
        f"{gap.difference.value:+.4f} [{low:+.4f}, {high:+.4f}] nats per byte, 15 pairs of runs)."
    )
    worse = fitted({"full": FULL, "block": shifted(0.02)}, **LOUD)
    single = next(one for one in worse.gaps if one.non_embedding == 7_000)
    assert gap_sentence(worse, single).startswith(
        "Positions 0-31 at N = 7,000: block has a higher loss than full (difference +0.0"
    )
    open_ = fitted({"full": FULL, "block": FULL}, seeds=(0,), **LOUD)
    said = gap_sentence(open_, mean_gap(open_))
    assert said.startswith("Positions 0-95: it is unresolved which of block and full is better (")
    assert said.endswith(
        "5 pairs of runs; one pair of runs at each size, so seed noise is not known)."
    )


def test_a_difference_that_holm_does_not_let_stand_is_said_to_be_so() -> None:
    fit = fitted({"full": FULL, "block": shifted(0.02)}, **LOUD)
    gap = mean_gap(fit).model_copy(update={"p_different": 0.08, "outcome": "unresolved"})
    assert "excludes 0, but not once corrected for the other spans" in gap_sentence(fit, gap)


def test_better_is_corrected_over_the_spans() -> None:
    # Differences within the noise: of those whose own interval excludes 0 some must not stand.
    uncorrected = corrected = 0
    for seed in range(30):
        fit = fitted(
            {"full": FULL, "block": shifted(0.0025)},
            margin=None,
            generator=np.random.default_rng(seed),
            **LOUD,
        )
        for gap in (one for one in fit.gaps if one.non_embedding is None):
            assert gap.difference is not None
            excludes = not gap.difference.low <= 0 <= gap.difference.high
            uncorrected += excludes
            corrected += gap.outcome != "unresolved"
            assert excludes or gap.outcome == "unresolved"
    assert 0 < corrected < uncorrected
