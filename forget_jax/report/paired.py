"""Paired tests: all of a section's in one table."""

from collections.abc import Mapping
from dataclasses import dataclass

from forget_jax.report.section import Cell, Table


@dataclass(frozen=True)
class PairedTest:
    """What one way gives less what another does, pair by pair.

    Attributes:
      pairs, tasks: what was paired, and of how many tasks.
      mean, low, high: of the differences, with their interval.
      p, p_holm: of the test that the mean is zero; corrected over comparisons with the same other.
      needed: tasks at which such an effect would be found.
    """

    pairs: int
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    tasks: int = 0
    needed: int | None = None

    @property
    def decided(self) -> float:
        """The corrected p where there is one; 1 where there is none."""
        p = self.p if self.p_holm is None else self.p_holm
        return 1.0 if p is None else p


def paired_table(tests: Mapping[str, PairedTest], of: str, note: str) -> Table:
    """A row for each test; columns that no test has a figure for are left out.

    Args:
      tests: by the names of two, `one − other`.
      of: what differs, with its unit.
      note: which test it is.
    """
    columns: dict[str, list[Cell]] = {
        f"difference of {of}": list(tests),
        "pairs": [t.pairs for t in tests.values()],
        "mean": [t.mean for t in tests.values()],
        "95 % from": [t.low for t in tests.values()],
        "to": [t.high for t in tests.values()],
        "p": [t.p for t in tests.values()],
        "p (Holm)": [t.p_holm for t in tests.values()],
        "tasks needed": [t.needed for t in tests.values()],
    }
    shown = {name: cells for name, cells in columns.items() if any(c is not None for c in cells)}
    return Table("Paired tests", tuple(shown), tuple(zip(*shown.values(), strict=True)), note)
