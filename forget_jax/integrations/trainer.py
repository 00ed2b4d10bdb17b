"""A callback for transformers' and TRL's trainers: what the model will have forgotten, in time.

    callback = ForgettingCallback("runs/matrix", "runs/probes", tokenizer, every=100)
    callback.attach(trainer)
    trainer.train()

Every `every` steps it measures the probes' NLL in the model that trains, completes the row from a
matrix measured before, and logs the forecast by category to the trainer's own log. torch and
transformers are the caller's; importing this needs neither.
"""

import dataclasses
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from forget_jax.data import reading
from forget_jax.data.settings import Data
from forget_jax.errors import UserError, nearest
from forget_jax.files import Path, PathLike
from forget_jax.fleet.forgetting import OTHER_BASE
from forget_jax.integrations import forecast
from forget_jax.integrations.forecast import Forecast, Forecaster
from forget_jax.integrations.torch_nll import nll

LOGGED = "forgetting/"  # begins the names in the trainer's log


@dataclasses.dataclass(eq=False)
class ForgettingCallback:
    """Forecasts forgetting while another trainer trains.

    Attributes:
      matrix: of this base: a workdir of `associate`, or a file.
      probes: probes.jsonl of `forget-jax probes`, or its workdir.
      tokenizer: of the model, as transformers has it.
      every: steps between two measurements; one more is taken at the end.
      limits: of a forecast mean z in nats a token, by category (`all`, or a source).
      at_limit: what is done when the lower end of an interval is over its limit: `stop` ends the
        training, a function is called with the category and the forecast (as
        `Replayed.raising(0.25)`), each time; None only logs `forgetting/over`.
      batch_size: probes in a forward pass.
      coverage: of the intervals.
      method: that completes rows.
      data: how probes become tokens; None: as the matrix's run did it.
      forecasts: made so far.
    """

    matrix: PathLike
    probes: PathLike
    tokenizer: Any
    every: int = 100
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    at_limit: str | Callable[[str, Forecast], None] | None = None
    batch_size: int = 8
    coverage: float = 0.9
    method: str = "mixture"
    data: Data | None = None
    forecasts: list[Forecast] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        """Reads matrix and probes, and calibrates the intervals.

        Raises:
          UserError: what cannot be read, does not fit together, or a limit on no category.
        """
        began = time.perf_counter()
        if self.every < 1 or self.batch_size < 1:
            raise UserError("every and batch_size must be 1 or more")
        if self.at_limit not in (None, "stop") and not callable(self.at_limit):
            raise UserError(f"at_limit must be 'stop', a function or None, not {self.at_limit!r}")
        place = Path(self.probes)
        place = place / "probes.jsonl" if place.is_dir() else place
        data = self.data or forecast.data_of(self.matrix)
        plain = dataclasses.replace(data, shuffle=-1, columns=())
        rows = reading.load((os.fspath(place),), plain)
        context = data.context or getattr(self.tokenizer, "model_max_length", 1024)
        chosen = reading.template(plain, scored=True)
        self._encoded, _ = reading.encode(rows, self.tokenizer, chosen, plain, min(context, 2**20))
        names = list(dict.fromkeys(e.name for e in self._encoded))
        counts = dict.fromkeys(names, 0)
        for e in self._encoded:
            counts[e.name] += e.tokens
        self._tokens_S = np.array(list(counts.values()))
        self._forecaster = Forecaster(forecast.load(self.matrix), names, self.coverage, self.method)
        for category in self.limits:
            if category not in self._forecaster.names:
                known = ", ".join(self._forecaster.names)
                raise UserError(
                    f"limits: there is no category {category!r}"
                    f"{nearest(category, self._forecaster.names)}; there are {known}"
                )
        self._kept = self._kept_base(names)
        self._forecaster.forecast(np.zeros(len(names)))  # compiled before training begins
        self._trainer: Any = None
        self._base_S: np.ndarray | None = None
        self._setup, self._spent, self._began = time.perf_counter() - began, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        """Events of the trainer that nothing is done at."""
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)

    def attach(self, trainer: Any) -> "ForgettingCallback":
        """Adds itself to a trainer, into whose log it writes."""
        self._trainer = trainer
        trainer.add_callback(self)
        return self

    def _kept_base(self, names: Sequence[str]) -> np.ndarray | None:
        """What the base gave the probes in the matrix's run, nats a token, where it is kept.

        Raises:
          UserError: the probes have other numbers of tokens there.
        """
        kept = forecast.base_of(self.matrix)
        if kept is None or not set(names) <= set(kept.index):
            return None
        theirs = kept.loc[list(names)]
        if len(other := np.flatnonzero(theirs.tokens.to_numpy() != self._tokens_S)):
            j = int(other[0])
            raise UserError(
                f"{len(other)} probes have other numbers of target tokens than in {self.matrix}, "
                f"such as {names[j]}: {self._tokens_S[j]} here, {theirs.tokens.iloc[j]} there; "
                "give the base's own tokenizer, and as `data` the fields the matrix was made with"
            )
        found: np.ndarray = theirs.nll.to_numpy(float)
        return found

    def _measure(self, model: Any) -> np.ndarray:
        """NLL of each probe, nats a token."""
        return nll(model, self._encoded, self.batch_size) / self._tokens_S

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measures the base: before the first step, or without the adapter."""
        if self._trainer is None:
            raise UserError("ForgettingCallback is attached by callback.attach(trainer)")
        began, model = time.perf_counter(), kwargs["model"]
        if state.global_step == 0:
            self._base_S = self._measure(model)
        elif hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                self._base_S = self._measure(model)
        elif self._kept is not None:
            self._base_S = self._kept
        else:
            raise UserError(
                "training goes on from a checkpoint of a whole model, so the base's losses cannot "
                "be measured: give as matrix the workdir of associate, which keeps them"
            )
        if self._kept is not None:
            apart = float(np.nanmedian(np.abs(self._base_S - self._kept)))
            if apart > OTHER_BASE:
                raise UserError(
                    f"{self.matrix} is of another base: the probes' NLLs differ by {apart:.3f} "
                    "nats a token (median); start from the base that the matrix was made of"
                )
        self._setup += time.perf_counter() - began
        self._spent, self._began = 0.0, time.perf_counter()
        self._logged_at = -1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Measures, foretells and logs, every so many steps."""
        if state.global_step % self.every:
            return control
        return self._look(state, control, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """The same once more, of the model as it ends."""
        if state.global_step == self._logged_at:
            return control
        return self._look(state, control, kwargs["model"])

    def _look(self, state: Any, control: Any, model: Any) -> Any:
        began = time.perf_counter()
        assert self._base_S is not None
        found = self._forecaster.forecast(self._measure(model) - self._base_S, state.global_step)
        self.forecasts.append(found)
        self._logged_at = state.global_step
        over = [c for c, limit in self.limits.items() if found.categories[c].low > limit]
        seconds = time.perf_counter() - began
        self._spent += seconds
        self._trainer.log(self._record(found, over, seconds))
        for category in over:
            if self.at_limit == "stop":
                control.should_training_stop = True
            elif callable(self.at_limit):
                self.at_limit(category, found)
        return control

    def _record(self, found: Forecast, over: Sequence[str], seconds: float) -> dict[str, float]:
        """What is logged."""
        record: dict[str, float] = {}
        for name, category in found.categories.items():
            record[f"{LOGGED}{name}"] = category.z
            record[f"{LOGGED}{name}_low"] = category.low
            record[f"{LOGGED}{name}_high"] = category.high
        record[f"{LOGGED}probes"] = found.probes
        record[f"{LOGGED}seconds"] = seconds
        record[f"{LOGGED}overhead"] = self.overhead
        if len(self.forecasts) == 1:
            record[f"{LOGGED}setup_seconds"] = self._setup
        if self.limits:
            record[f"{LOGGED}over"] = float(len(over))
        return record

    @property
    def overhead(self) -> float:
        """Share of the time since training began that measurements took, setting up left out."""
        return self._spent / max(time.perf_counter() - self._began, 1e-9)


def _nothing(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
    """At an event of the trainer that is not needed."""


class Replayed:
    """Rows of a task, some of them replaced by rows that are replayed: a share that may be raised.

    A data set for torch's loaders (map-style). The share is shared with their workers; batches that
    they have fetched ahead keep the share of their time.
    """

    def __init__(
        self, task: Sequence[Any], replay: Sequence[Any], share: float = 0.0, seed: int = 0
    ):
        """Rows of both, in the form the trainer takes, and the share to begin with.

        Raises:
          UserError: no row of either, or a share outside 0 to 1.
        """
        if not (len(task) and len(replay)):
            raise UserError("give at least one row of the task and one to replay")
        self.task, self.replay, self.seed = task, replay, seed
        self._share = multiprocessing.Value("d", 0.0)
        self._visits: dict[int, int] = {}
        self.share = share

    @property
    def share(self) -> float:
        """Of rows that are replayed."""
        return float(self._share.value)

    @share.setter
    def share(self, value: float) -> None:
        if not 0 <= value <= 1:
            raise UserError(f"a share of replayed rows lies between 0 and 1, not at {value}")
        self._share.value = value

    def raising(self, share: float) -> Callable[[str, Forecast], None]:
        """What raises the share to this, for `ForgettingCallback.at_limit`; never lowers it."""

        def at_limit(category: str, found: Forecast) -> None:
            if share > self.share:
                print(
                    f"step {found.step}: forecast forgetting of {category} is over its limit; "
                    f"{share:.0%} of rows are replayed from now on",
                    file=sys.stderr,
                )
                self.share = share

        return at_limit

    def __len__(self) -> int:
        return len(self.task)

    def __getitem__(self, i: int) -> Any:
        """Row `i` of the task, or a row to replay in its place: drawn anew at every visit."""
        i = int(i)
        visit = self._visits[i] = self._visits.get(i, 0) + 1
        rng = np.random.default_rng((self.seed, i, visit))
        if rng.random() < self.share:
            return self.replay[int(rng.integers(len(self.replay)))]
        return self.task[i]
