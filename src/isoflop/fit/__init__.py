"""Minima, power laws, loss surface, bootstrap, comparison."""

from isoflop.fit.checks import RateCheck, VarianceComponents, rate_checks, variance_components
from isoflop.fit.comparison import Comparison, LossMatch, compare, loss_matching
from isoflop.fit.curves import ESTIMATORS, CurveMinimum, fit_surface, minima, optimum_law
from isoflop.fit.disagreement import (
    MinimumDisagreement,
    SurfaceDisagreement,
    minimum_disagreements,
    surface_disagreement,
)
from isoflop.fit.document_error import document_estimate
from isoflop.fit.envelope import EnvelopeFit, fit_envelope
from isoflop.fit.fitted import (
    FitResult,
    FittedLaw,
    FittedMinimum,
    FittedSurface,
    IntervalSource,
    MinimumInterval,
    VariantFit,
)
from isoflop.fit.fitting import fit_runs
from isoflop.fit.frame import (
    COLUMNS,
    TrainedSize,
    budgets,
    curve_rows,
    frame,
    one_budget,
    trained_sizes,
    training_curves,
)
from isoflop.fit.huber import fit_huber
from isoflop.fit.interval import (
    WithError,
    basic_interval,
    difference,
    mean_estimate,
    percentile_interval,
    welch,
)
from isoflop.fit.minimum import (
    ESTIMATOR_NAMES,
    PARABOLA_SIZES,
    Estimator,
    Minimum,
    Parabola,
    Status,
    akima,
    fit_parabola,
    parabola,
)
from isoflop.fit.minimum_draws import CurveDraws, RunNoise, run_noise
from isoflop.fit.noise import NoisyMinimum, minimum_difference, noisy_minimum
from isoflop.fit.point_prediction import PointPrediction, predict_point
from isoflop.fit.power_law import PowerLaw, fit_power_law, power_law_intervals
from isoflop.fit.prediction import (
    Miss,
    Prediction,
    leave_largest_out,
    misses,
    predict,
    sample_surfaces,
)
from isoflop.fit.profile import profile_intervals
from isoflop.fit.projection import fit_variable_projection
from isoflop.fit.resampling import (
    bootstrap,
    bootstrap_document_difference,
    bootstrap_documents,
)
from isoflop.fit.scaling import (
    PFLOPS_DAY,
    Axis,
    Projection,
    ScalingFit,
    SizeLoss,
    SpanGap,
    gap_sentence,
)
from isoflop.fit.scaling_fitting import fit_scaling
from isoflop.fit.settings import FitSettings
from isoflop.fit.spread import SpreadRatio, seed_spread, spread_ratio
from isoflop.fit.surface import Surface, SurfaceFit, surface_minimum
from isoflop.fit.surface_bootstrap import DRAWS_WORDS, surface_draws, surface_intervals
from isoflop.fit.surface_comparison import (
    SurfaceComparison,
    SurfaceGap,
    compare_surfaces,
)
from isoflop.fit.surface_sample import FAR
from isoflop.fit.surface_words import distance_words, surface_sentence
from isoflop.fit.tables import (
    LeftOutRows,
    RunTable,
    group_budgets,
    is_json_table,
    read_table,
    run_table,
)
from isoflop.fit.verdict import BudgetVerdict, Multiplier, holm, verdicts
from isoflop.fit.verdict_summary import incomparable_sentences, summary_sentences
from isoflop.fit.verdict_words import (
    doubt_sentence,
    estimates_sentence,
    fraction_sentence,
    sentence,
)

__all__ = [
    "COLUMNS",
    "DRAWS_WORDS",
    "ESTIMATORS",
    "ESTIMATOR_NAMES",
    "FAR",
    "PARABOLA_SIZES",
    "PFLOPS_DAY",
    "Axis",
    "BudgetVerdict",
    "Comparison",
    "CurveDraws",
    "CurveMinimum",
    "EnvelopeFit",
    "Estimator",
    "FitResult",
    "FitSettings",
    "FittedLaw",
    "FittedMinimum",
    "FittedSurface",
    "IntervalSource",
    "LeftOutRows",
    "LossMatch",
    "Minimum",
    "MinimumDisagreement",
    "MinimumInterval",
    "Miss",
    "Multiplier",
    "NoisyMinimum",
    "Parabola",
    "PointPrediction",
    "PowerLaw",
    "Prediction",
    "Projection",
    "RateCheck",
    "RunNoise",
    "RunTable",
    "ScalingFit",
    "SizeLoss",
    "SpanGap",
    "SpreadRatio",
    "Status",
    "Surface",
    "SurfaceComparison",
    "SurfaceDisagreement",
    "SurfaceFit",
    "SurfaceGap",
    "TrainedSize",
    "VarianceComponents",
    "VariantFit",
    "WithError",
    "akima",
    "basic_interval",
    "bootstrap",
    "bootstrap_document_difference",
    "bootstrap_documents",
    "budgets",
    "compare",
    "compare_surfaces",
    "curve_rows",
    "difference",
    "distance_words",
    "document_estimate",
    "doubt_sentence",
    "estimates_sentence",
    "fit_envelope",
    "fit_huber",
    "fit_parabola",
    "fit_power_law",
    "fit_runs",
    "fit_scaling",
    "fit_surface",
    "fit_variable_projection",
    "fraction_sentence",
    "frame",
    "gap_sentence",
    "group_budgets",
    "holm",
    "incomparable_sentences",
    "is_json_table",
    "leave_largest_out",
    "loss_matching",
    "mean_estimate",
    "minima",
    "minimum_difference",
    "minimum_disagreements",
    "misses",
    "noisy_minimum",
    "one_budget",
    "optimum_law",
    "parabola",
    "percentile_interval",
    "power_law_intervals",
    "predict",
    "predict_point",
    "profile_intervals",
    "rate_checks",
    "read_table",
    "run_noise",
    "run_table",
    "sample_surfaces",
    "seed_spread",
    "sentence",
    "spread_ratio",
    "summary_sentences",
    "surface_disagreement",
    "surface_draws",
    "surface_intervals",
    "surface_minimum",
    "surface_sentence",
    "trained_sizes",
    "training_curves",
    "variance_components",
    "verdicts",
    "welch",
]
