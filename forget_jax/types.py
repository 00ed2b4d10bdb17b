"""What several rooms call things: trees and arrays, and the letters of array shapes.

A suffix names an array's axes, `h_BxLxD`. One letter means one thing:

| letter | axis |
|---|---|
| B, L | rows of a batch, tokens of a row |
| T, E | targets of a row, examples that share a row |
| D, F, V | width, features out of a kernel, vocabulary |
| H, G, Q | query heads, groups of key and value heads, query heads of a group |
| Dh | width of a head |
| I, J | queries and keys of a block of attention |
| M, S | tasks, seats of tasks that train now (a step's share of M) |
| A | blocks of seats and rows that lie on different devices |
| R | rows of all blocks, or rows of tokens of a data set (an example in windows has several) |
| K, N, C | models scored together, examples, examples (or positions) of a chunk |
"""

from typing import Any

Tree = Any  # nested dicts (or registered dataclasses) of arrays
Array = Any  # numpy on the host, jax on devices and inside compiled functions
