"""The page: sections made from plain arrays and dicts, and the HTML that holds them."""

from forget_jax.report.association_sections import matrix_section, methods_section, rank_section
from forget_jax.report.bench_section import bench_section
from forget_jax.report.law_section import scaling_section
from forget_jax.report.page import page
from forget_jax.report.probes_section import probes_section
from forget_jax.report.remedy_sections import factoids_section, replay_section
from forget_jax.report.run_sections import score_section, timing_section, training_section
from forget_jax.report.section import Figure, Section, Table, Text

__all__ = [
    "Figure",
    "Section",
    "Table",
    "Text",
    "bench_section",
    "factoids_section",
    "matrix_section",
    "methods_section",
    "page",
    "probes_section",
    "rank_section",
    "replay_section",
    "scaling_section",
    "score_section",
    "timing_section",
    "training_section",
]
