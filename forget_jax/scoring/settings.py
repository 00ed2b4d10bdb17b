"""How examples are scored and answers compared: the `score` and `exact_match` fields."""

import dataclasses

from forget_jax.scoring.exact_match import CUTS, NORMALISERS
from forget_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class Score:
    """Shapes of the batches, and what is kept of every example."""

    rows: int = setting(8, "rows of the longest bucket on the device at a time", least=1)
    buckets: int = setting(6, "the most row lengths to compile for", least=1)
    chunk: int = setting(
        1024, "examples between two writes of the table; the grain of resuming", least=1
    )
    packing: str = setting(
        "auto",
        "several examples in a row: true, false, or auto (where that computes less)",
        choices=("auto", "true", "false"),
    )
    adapters_together: int = setting(
        0, "adapters scored in one pass; 0: the fastest way that fits", least=0
    )
    per_token: bool = setting(
        False, "keep the log-probability of every target token, `logp` in scores.zarr"
    )
    measures: bool = setting(
        False, "also soft and argmax cross-entropy to the base, KL and top-1 agreement"
    )


@dataclasses.dataclass(frozen=True)
class ExactMatch:
    """How answers are recited and compared (arXiv 2406.14026)."""

    max_new_tokens: int = setting(512, "the most tokens of an answer (2406.14026: 512)", least=1)
    cut: str = setting(
        "blank_line",
        "where an answer ends, beside EOS: blank_line (2406.14026), newline or none",
        choices=CUTS,
    )
    normaliser: str = setting(
        "squad",
        "how answers are compared: as squad or triviaqa does, or strict (but for case)",
        choices=NORMALISERS,
    )
