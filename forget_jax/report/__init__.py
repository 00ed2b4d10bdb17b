"""The page: sections made from arrays and plain values, and the HTML that holds them."""

from forget_jax.report.association_sections import Completed, methods_section, rank_section
from forget_jax.report.behaviour_section import Behaved, Flips, behaviour_section
from forget_jax.report.bench_section import bench_section
from forget_jax.report.check_section import Checked, check_section
from forget_jax.report.factoids_section import FactsCompared, FactsKept, factoids_section
from forget_jax.report.law_checks import Extrapolated, LawChecks, Resampled
from forget_jax.report.law_section import FittedLaw, LawSurface, Part, scaling_section
from forget_jax.report.matrix_section import Forgetting, matrix_section
from forget_jax.report.mix_section import Expected, mix_section
from forget_jax.report.page import page
from forget_jax.report.paired import PairedTest
from forget_jax.report.pareto import Mark
from forget_jax.report.plan_section import PlanBasis, Planned, UnseenRow, plan_section
from forget_jax.report.predicted_section import (
    Learned,
    PredictedExample,
    PredictedMean,
    PredictedProbabilities,
    predicted_section,
)
from forget_jax.report.probes_section import probes_section
from forget_jax.report.reliability import Reliability
from forget_jax.report.replay_section import (
    Replayed,
    Replays,
    Room,
    replay_section,
)
from forget_jax.report.run_sections import score_section, timing_section, training_section
from forget_jax.report.section import Figure, Section, Table, Text

__all__ = [
    "Behaved",
    "Checked",
    "Completed",
    "Expected",
    "Extrapolated",
    "FactsCompared",
    "FactsKept",
    "Figure",
    "FittedLaw",
    "Flips",
    "Forgetting",
    "LawChecks",
    "LawSurface",
    "Learned",
    "Mark",
    "PairedTest",
    "Part",
    "PlanBasis",
    "Planned",
    "PredictedExample",
    "PredictedMean",
    "PredictedProbabilities",
    "Reliability",
    "Replayed",
    "Replays",
    "Resampled",
    "Room",
    "Section",
    "Table",
    "Text",
    "UnseenRow",
    "behaviour_section",
    "bench_section",
    "check_section",
    "factoids_section",
    "matrix_section",
    "methods_section",
    "mix_section",
    "page",
    "plan_section",
    "predicted_section",
    "probes_section",
    "rank_section",
    "replay_section",
    "scaling_section",
    "score_section",
    "timing_section",
    "training_section",
]
