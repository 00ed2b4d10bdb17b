"""What a reader made of rows that say things in another way, and what it left out: for people."""

import dataclasses
import functools
import sys
from collections import Counter


@dataclasses.dataclass
class Notes:
    """What was noticed while the rows of one data set were read.

    Attributes:
      read_as: names of others, such as `human`, onto what they are read as, such as `user`.
      rows: what was done with how many rows, as what stands before and after that number.
    """

    read_as: dict[str, str] = dataclasses.field(default_factory=dict)
    rows: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)

    def say(self, spec: str) -> None:
        """Prints a line for each kind of thing that was noticed."""
        if self.read_as:
            pairs = ", ".join(f"{theirs} as {ours}" for theirs, ours in self.read_as.items())
            say(f"{spec}: reads {pairs}")
        for (before, after), count in self.rows.items():
            say(f"{spec}: {before} in {count} row{'s' * (count != 1)}{after}")


@functools.lru_cache(maxsize=1024)
def say(line: str) -> None:
    """Prints a line on stderr; once, where a run reads a data set several times."""
    print(line, file=sys.stderr)
