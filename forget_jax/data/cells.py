"""A row whose cells are read when asked for: a column that nobody maps cannot stop a reader."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from forget_jax.errors import UserError


class Cells(Mapping[str, Any]):
    """Column names and values of one row.

    Attributes:
      names: of the columns, in order.
      cell: the value in the column of a name.
      where: the file and row, for error messages.
    """

    __slots__ = ("cell", "names", "where")

    def __init__(self, names: Mapping[str, Any], cell: Callable[[str], Any], where: str):
        self.names, self.cell, self.where = names, cell, where

    def __getitem__(self, name: str) -> Any:
        """The cell of a column.

        Raises:
          KeyError: no such column.
          UserError: a cell that is no value of Python's, such as text that is not UTF-8.
        """
        if name not in self.names:
            raise KeyError(name)
        try:
            return self.cell(name)
        except UserError:
            raise
        except Exception as e:  # what decodes a cell is a library, or a library of that library
            reason = " ".join(str(e).split())[:120] or type(e).__name__
            raise UserError(f"{self.where}: column {name!r} cannot be read ({reason})") from e

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
