"""Minima, power laws, loss surfaces, their intervals, and how variants compare."""

from isoflop.fit.compare.surfaces import compare_surfaces
from isoflop.fit.curves.minima import ESTIMATOR_NAMES, ESTIMATORS
from isoflop.fit.predictions import leave_largest_out, predict, predict_point
from isoflop.fit.results import FitResult, VariantFit
from isoflop.fit.runs import fit_runs
from isoflop.fit.settings import FitSettings
from isoflop.fit.spans.fit import fit_scaling
from isoflop.fit.spans.values import ScalingFit
from isoflop.fit.tables.frame import frame, training_curves
from isoflop.fit.tables.reading import RunTable, run_table
from isoflop.fit.words import gap_sentence, sentence, summary_sentences, surface_sentence
