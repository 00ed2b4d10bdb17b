"""The table of scores of a run: made once, filled chunk by chunk, checked before it is used."""

import concurrent.futures
import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from forget_jax import distributed, files
from forget_jax.data import windows
from forget_jax.data.batches import Buckets
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.lm import sharding
from forget_jax.lm.cost import memory
from forget_jax.lm.model import Adapters, Model
from forget_jax.runs.progress import Progress
from forget_jax.scoring import disk, divergence, likelihood
from forget_jax.scoring.settings import Score
from forget_jax.scoring.stream import Layout, stream

NLL = "nll_sum"
SEEN_SECONDS = 120  # for what another process wrote to be seen; NFS keeps names up to a minute


class Table:
    """scores.zarr of one run and the examples that are its columns.

    An example in windows has several rows and one column: its figures are sums over its windows.
    """

    def __init__(
        self, path: files.PathLike, models: Sequence[str], encoded: Sequence[Encoded], score: Score
    ):
        """Makes the table, or finds it made.

        Args:
          path: of the zarr group.
          models: names of the table's rows, in order.
          encoded: tokenised examples; the rows of one name are one column.

        Raises:
          UserError: an example named twice, or a table of other models or examples is there.
        """
        self.path = files.Path(path)
        self.models, self.encoded, self.score = list(models), encoded, score
        self.buckets = Buckets.of(encoded, score.buckets)
        self._layout: Layout | None = None
        self.owner_R = windows.owners([e.name for e in encoded])
        self.first_R = windows.firsts(self.owner_R)
        self.tokens_N = np.add.reduceat([e.tokens for e in encoded], self.first_R, dtype=np.int32)
        self.tokens_done, self.seconds = 0, 0.0  # of this start: for the rate
        sums = [_column(m) for m in divergence.MEASURES] if score.measures else [NLL]
        names = [encoded[r].name for r in self.first_R]
        if len(set(names)) < len(names):
            raise UserError("an example is named twice: every column needs a name of its own")
        if distributed.is_writer():
            disk.create(
                self.path,
                models,
                names,
                [encoded[r].source for r in self.first_R],
                score.chunk,
                sums,
                int(self.tokens_N.max()) if score.per_token else 0,
            )
            disk.mend(self.path, min(score.chunk, len(names)))
        distributed.barrier("the table of scores is there")

    def fill(
        self,
        model: Model,
        adapters_K: Adapters | None,
        names: Sequence[str],
        base: Model | None = None,
    ) -> None:
        """Scores every chunk of the named models that is not scored yet.

        Args:
          adapters_K: a stack of adapters; None for the model alone.
          names: of the adapters in order; of the model itself where there are none.
          base: what measures compare with; None for `model`.
        """
        rows = [self.models.index(name) for name in names]
        if self._layout is None:
            cut = (self.encoded, self.buckets, self.score.rows)
            packing = likelihood.packs(self.score.packing, model.config, *cut)
            self._layout = Layout.of(*cut, packing)
        if adapters_K is None:
            self._fill(model, None, rows, base)
            return
        if adapters_K.on_host:
            adapters_K = Adapters(adapters_K.config, sharding.put(adapters_K.tree))
        if not self.score.measures and self._merges(model, adapters_K):
            for k, row in enumerate(rows):
                if self._left([row]):
                    self._fill(likelihood.merged(model, adapters_K[k]), None, [row], base)
            return
        together = self._together(model, adapters_K, len(rows))
        for start in range(0, len(rows), together):
            # a last, smaller group is filled up, so that nothing is compiled for it
            chosen = np.minimum(np.arange(start, start + together), len(rows) - 1)
            some = adapters_K if together == len(rows) else adapters_K[chosen]
            self._fill(model, some, rows[start : start + together], base)

    @property
    def layout(self) -> Layout:
        """How the examples become batches; settled by the first model that is scored."""
        assert self._layout is not None
        return self._layout

    def _merges(self, model: Model, adapters_K: Adapters) -> bool:
        """Whether adapters are scored merged into the base: where that is fastest, and fits.

        Not where the settings ask for several of them in one pass.
        """
        fastest = likelihood.merges(model) and self.score.adapters_together < 2
        return fastest and self._fits(model, adapters_K, 1, merge=True)

    def _together(self, model: Model, adapters_K: Adapters, count: int) -> int:
        """How many adapters are scored at a time; groups differ by at most one."""
        most = self.score.adapters_together or count
        while (
            not self.score.adapters_together
            and most > 1
            and not self._fits(model, adapters_K, most)
        ):
            most = -(-most // 2)
        return -(-count // -(-count // most))

    def _fits(self, model: Model, adapters_K: Adapters, count: int, merge: bool = False) -> bool:
        """Whether so many adapters are scored within a device's memory, as process 0 says."""
        rows = self.layout.rows // sharding.row_shards()
        work = memory.Work(
            rows if likelihood.at_a_time() else rows * count,
            self.layout.buckets.edges[-1],
            model.dtype,
            adapters_K.config,
            count,
            train=False,
            shards=sharding.shards(),
            merge=merge,
        )
        return distributed.agreed(memory.fits(memory.plan(model.config, work)))

    def _left(self, rows: Sequence[int]) -> list[int]:
        """The chunks of a group of models that are not scored yet."""
        done_C = distributed.agreed(disk.done(self.path, rows, self.score.chunk))
        left: list[int] = np.flatnonzero(~done_C).tolist()
        return left

    def _fill(
        self, model: Model, adapters_K: Adapters | None, rows: Sequence[int], base: Model | None
    ) -> None:
        """The chunks that are not scored yet of one group of models; may hold more adapters."""
        chunks = [(c, self._rows_of(c)) for c in self._left(rows)]
        if not chunks:
            return
        arrays: tuple[Any, ...] = (model, adapters_K)
        fn = functools.partial(likelihood.score_batch, per_token=self.score.per_token)
        if self.score.measures:
            arrays = (base or model, *arrays)
            fn = functools.partial(divergence.diverge_batch, per_token=self.score.per_token)
        left = sum(len(examples) for _, examples in chunks)
        before = len(self.encoded) - left
        what = self.models[rows[0]] if len(rows) == 1 else f"{len(rows)} models"
        began, writing = time.monotonic(), None
        bad: list[tuple[int, int]] = []
        with (
            Progress(f"score {what}", len(self.encoded), before, "example") as progress,
            concurrent.futures.ThreadPoolExecutor(1, "write") as writer,
        ):
            moved = functools.partial(_moved, progress, before)
            for c, found in stream(fn, arrays, chunks, self.layout, moved, progress.doing):
                figures = self._figures(fn, arrays, c, found, len(rows))
                bad += [(rows[k], self._at(c).start + j) for k, j in _not_finite(figures[NLL])]
                if c % distributed.count() == distributed.index():
                    if writing is not None:
                        writing.result()
                    tokens_C = self.tokens_N[self._at(c)]
                    writing = writer.submit(
                        disk.write, self.path, rows, self._at(c), figures, tokens_C
                    )
            if writing is not None:
                writing.result()
        self.seconds += time.monotonic() - began
        self.tokens_done += len(rows) * sum(len(e.ids) for _, chunk in chunks for e in chunk)
        say_not_finite([(self.models[row], self.encoded[self.first_R[j]].name) for row, j in bad])
        distributed.barrier("scores are written")

    def _at(self, c: int) -> slice:
        """The columns of a chunk."""
        return slice(c * self.score.chunk, min((c + 1) * self.score.chunk, len(self.first_R)))

    def _rows_of(self, c: int) -> Sequence[Encoded]:
        """The rows of tokens of a chunk's examples."""
        first, end = np.searchsorted(self.owner_R, [self._at(c).start, self._at(c).stop])
        return self.encoded[first:end]

    def _figures(
        self,
        fn: Any,
        arrays: tuple[Any, ...],
        c: int,
        found: dict[str, np.ndarray],
        count: int,
    ) -> dict[str, np.ndarray]:
        """A chunk's columns of the table for the first `count` models, from figures of its rows."""
        rows = self._rows_of(c)
        first_NLL = found["nll" if self.score.measures else NLL]
        bad_R = ~np.isfinite(first_NLL).all(0)
        if self.layout.packed is not None and bad_R.any():
            # what is not finite in one example spoils its neighbours in the row: each alone
            alone = dataclasses.replace(self.layout, packed=None)
            some = [e for e, bad in zip(rows, bad_R, strict=True) if bad]
            ((_, again),) = stream(fn, arrays, [(0, some)], alone)
            for name, values in again.items():
                if name == "logp":
                    found[name][:, bad_R, : values.shape[2]] = values
                else:
                    found[name][:, bad_R] = values
        owner_R = windows.owners([e.name for e in rows])
        figures = {}
        for name, values in found.items():
            if name == "logp":
                figures[name] = self._per_token(rows, owner_R, values[:count])
            else:
                figures[_column(name)] = windows.summed(values[:count], owner_R)
        nll = figures[NLL]
        figures[NLL] = np.where(np.isfinite(nll), nll, np.nan)
        return figures

    def _per_token(
        self, rows: Sequence[Encoded], owner_R: np.ndarray, logp_KxRxT: np.ndarray
    ) -> np.ndarray:
        """Log-probabilities of every example's targets, those of its windows joined, KxCxT."""
        shape = (len(logp_KxRxT), owner_R[-1] + 1, int(self.tokens_N.max()))
        joined = np.full(shape, np.nan, np.float32)
        ends = np.zeros(shape[1], int)
        for r, (e, j) in enumerate(zip(rows, owner_R, strict=True)):
            joined[:, j, ends[j] : ends[j] + e.tokens] = logp_KxRxT[:, r, : e.tokens]
            ends[j] += e.tokens
        return joined

    def useful_fraction(self) -> float:
        """Real tokens over tokens computed, over the whole table."""
        real = sum(len(e.ids) for e in self.encoded)
        chunks = range(-(-len(self.first_R) // self.score.chunk))
        plans = (self.layout.plan(self._rows_of(c)) for c in chunks)
        return real / sum(shape.rows * shape.length for plan in plans for shape, _ in plan)

    def order_dependence(
        self, model: Model, adapters_K: Adapters | None, names: Sequence[str], most: int = 64
    ) -> dict[str, float]:
        """How far scores move when the same examples are batched otherwise.

        The first examples are scored again, last first, in one bucket of twice the rows.

        Args:
          model, adapters_K, names: as `fill` was given them, with the base first of `names`.
          most: examples that are scored again.

        Returns:
          The largest and the median change of an NLL and, with adapters, of a forgetting z, and the
          median |z|, all in nats a token.
        """
        N = min(most, len(self.first_R))
        rows = self.encoded[: int(np.searchsorted(self.owner_R, N))]
        if adapters_K is not None:
            adapters_K = Adapters(adapters_K.config, sharding.put(adapters_K.tree))
        again_KxN = rescored(model, adapters_K, rows, self.score.rows)
        with disk.read(self.path) as table:
            first_KxN = table[NLL].values[[self.models.index(n) for n in names], :N]
        first_KxN, again_KxN = first_KxN / self.tokens_N[:N], again_KxN / self.tokens_N[:N]
        figures = {"examples": N, **_moves("nll", np.abs(again_KxN - first_KxN))}
        if len(names) > 1:
            z_KxN, z_again_KxN = first_KxN[1:] - first_KxN[0], again_KxN[1:] - again_KxN[0]
            figures |= _moves("z", np.abs(z_again_KxN - z_KxN))
            figures["z_median"] = float(np.nanmedian(np.abs(z_KxN)))
        return figures


def rescored(
    model: Model, adapters_K: Adapters | None, encoded: Sequence[Encoded], rows: int
) -> np.ndarray:
    """NLL sums of examples (K, N), batched unlike a table's: last first, one bucket, 2 x `rows`."""
    turned = Layout.of(encoded[::-1], Buckets.of(encoded, 1), 2 * rows)
    again_KxR = likelihood.score(model, adapters_K, encoded[::-1], turned)
    return windows.summed(again_KxR[:, ::-1], windows.owners([e.name for e in encoded]))


def _moves(what: str, moved: np.ndarray) -> dict[str, float]:
    return {
        f"{what}_moved_most": float(np.nanmax(moved)),
        f"{what}_moved_median": float(np.nanmedian(moved)),
    }


def _column(measure: str) -> str:
    """The column of a measure's sums."""
    return measure if measure == NLL else f"{measure}_sum"


def _moved(progress: Progress, before: int, done: int) -> None:
    progress.at(before + done)


def _not_finite(nll_KxC: np.ndarray) -> list[tuple[int, int]]:
    return [(int(k), int(j)) for k, j in np.argwhere(~np.isfinite(nll_KxC))]


def say_not_finite(cells: Sequence[tuple[str, str]], most: int = 3) -> None:
    """One line on the (model, example) cells whose NLL is not finite, the first few named."""
    if cells:
        named = ", ".join(f"{example} under {model}" for model, example in cells[:most])
        more = f" and {len(cells) - most} more" if len(cells) > most else ""
        print(f"the NLL is not finite, and missing in the table, of {named}{more}", file=sys.stderr)


def complete(path: files.PathLike) -> xr.Dataset:
    """The whole table of scores, once all of it is seen from here: some disks tell others late.

    Raises:
      UserError: an example lacks a score.
    """
    deadline = time.monotonic() + (SEEN_SECONDS if distributed.count() > 1 else 0)
    while True:
        with disk.read(path) as scored:
            scored.load()
        if (scored.tokens.values >= 0).all() or time.monotonic() > deadline:
            check_complete(scored)
            return scored
        time.sleep(1)


def check_complete(scored: xr.Dataset) -> None:
    """Raises where an example lacks a score: no matrix is built from such a table."""
    missing = int((scored.tokens.values < 0).sum())
    if missing:
        raise UserError(f"{missing} scores are missing; start the same command again: it resumes")
