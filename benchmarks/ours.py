"""forget_jax's side: trains and scores as the commands do, with the settings of their configs."""

import contextlib
import functools
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax import cli
from forget_jax.benchmarks import world
from forget_jax.benchmarks.shapes import ADAPTERS, PRETRAINED, SHAPES, SKIPPED
from forget_jax.benchmarks.side import serve
from forget_jax.benchmarks.waiting import Waiting
from forget_jax.data.batches import Buckets
from forget_jax.lm import decoder, generate, lora
from forget_jax.lm.cost import flops, memory, peak
from forget_jax.lm.hf import checkpoint, layout, peft
from forget_jax.lm.model import Adapters, Model
from forget_jax.scoring import likelihood
from forget_jax.scoring.settings import Score
from forget_jax.scoring.stream import Layout
from forget_jax.training.loop import Listener, Recipe, StepPlan, Task, train
from forget_jax.training.settings import Train
from forget_jax.types import Tree


def make(folder: Path, shape: str, adapter: lora.LoRAConfig) -> None:
    """Writes a model, with random weights or its own, and random adapters, for both sides."""
    config = SHAPES[shape]
    if shape in PRETRAINED:
        model = Model(config, checkpoint.load(PRETRAINED[shape]).params)
    else:
        model = Model(config, decoder.init(config, jax.random.key(0)))
    checkpoint.save(folder / "model", model)
    base = str((folder / "model").resolve())
    for k in range(ADAPTERS):
        fresh = Adapters(adapter, lora.init(adapter, model.params, jax.random.key(k)))
        peft.save(folder / f"fresh{k}", fresh, config, base)
        peft.save(folder / f"trained{k}", _as_if_trained(fresh, k), config, base)


def _as_if_trained(adapter: Adapters, k: int) -> Adapters:
    """An adapter whose update is not zero."""
    draw = np.random.default_rng(k)
    tree = jax.tree.map_with_path(
        lambda path, x: (
            jnp.asarray(0.01 * draw.standard_normal(x.shape), x.dtype) if path[-1].key == "b" else x
        ),
        adapter.tree,
    )
    return Adapters(adapter.config, tree)


def random_model(config: decoder.DecoderConfig, dtype: str) -> Model:
    """Parameters drawn on the device in their own dtype, one array at a time."""
    tree: Tree = {}
    for i, (path, shape) in enumerate(layout.shapes(config).items()):
        is_vector = path.rpartition("/")[2] in ("scale", "bias")
        draw = jax.jit(
            lambda key, shape=shape: jax.random.normal(key, shape, dtype) * jnp.asarray(0.02, dtype)
        )
        value = jnp.ones(shape, dtype) if is_vector else draw(jax.random.key(i))
        layout.put(tree, path, value)
    return Model(config, tree)


class Ours:
    """The requests that this side answers."""

    def load(self, folder: str, shape: str, rank: int, random: bool) -> dict[str, Any]:
        """Loads the folder's model, made first where there is none, or random weights.

        Args:
          random: draw the weights on the device; the adapters too.
        """
        cli._setup_jax(None)
        self.folder, config = Path(folder), SHAPES[shape]
        self.lora = lora.LoRAConfig(rank=rank)
        if random:
            self.model = random_model(config, "bfloat16")
        else:
            if not (self.folder / "model" / "config.json").exists():
                make(self.folder, shape, self.lora)
            self.model = Model(config, checkpoint.load(self.folder / "model").params)
        self.random = random
        return {}

    def about(self) -> dict[str, Any]:
        """What this side runs on."""
        device = jax.devices()[0]
        return {
            "backend": jax.default_backend(),
            "device": device.device_kind,
            "system": f"jax {jax.__version__}",
            "way": "merged" if likelihood.merges(self.model) else "together",
        }

    def matmul_peak(self) -> dict[str, Any]:
        """FLOP/s of the fastest square matrix products."""
        return {"flops": peak.matmul()}

    def _adapters(self, kind: str, count: int) -> Adapters:
        """A stack of adapters on the device, `fresh` or `trained`."""
        if self.random:
            keys = jax.random.split(jax.random.key(1), count)
            trees = [lora.init(self.lora, self.model.params, key) for key in keys]
            each = [Adapters(self.lora, tree) for tree in trees]
            if kind == "trained":
                each = [_as_if_trained(one, k) for k, one in enumerate(each)]
        else:
            each = [peft.load(self.folder / f"{kind}{k}", self.model) for k in range(count)]
        whole = jax.tree.map(lambda *x: jnp.stack(x), *(one.tree for one in each))
        return Adapters(self.lora, whole)

    def train(
        self, rows: str, orders: Sequence[Sequence[int]], fields: dict[str, Any], trace: str = ""
    ) -> dict[str, Any]:
        """Trains one task per order, together; the rate is over the steps after the first two.

        Args:
          orders: which rows each task consumes, in order.
          fields: `train` fields that differ from the config's defaults.
          trace: a folder for a profiler trace of it, from which the waiting is read.
        """
        settings = Train(schedule="constant", warmup=0, save_every=0, **fields)
        examples = world.load(self.folder / f"{rows}.npz")
        tasks = [
            Task(f"t{m}", examples, m, len(order) // settings.batch_size, np.array(order))
            for m, order in enumerate(orders)
        ]
        records: list[dict[str, Any]] = []
        cpu = [0.0]
        waiting = Waiting(Path(trace))

        def log(record: dict[str, Any]) -> None:
            records.append(record)
            if len(records) == SKIPPED:
                cpu[0] = time.process_time()
                if trace:
                    waiting.start()

        with contextlib.redirect_stderr(io.StringIO()):  # its progress line
            train(
                self.model,
                Recipe(settings, self.lora),
                tasks,
                initial=self._adapters("fresh", len(orders)).tree,
                listener=Listener(log=log),
            )
        cpu_seconds = time.process_time() - cpu[0]
        plan, config = StepPlan(tasks, settings), self.model.config
        timed = range(SKIPPED, len(records))
        trained = [plan.examples[i] for step in timed for i in plan.rows(step)]
        done = flops.work(config, [len(e.ids) for e in trained], sum(e.tokens for e in trained))
        seconds = sum(record["seconds"] for record in records[SKIPPED:])
        return {
            "seconds": seconds,
            "tokens": done.tokens,
            "cpu_seconds": cpu_seconds,
            "useful": plan.useful_fraction(len(records)),
            "first_seconds": records[0]["seconds"],
            "losses": [float(np.mean(list(r["loss"].values()))) for r in records],
            "flops": flops.training(config, done, self.lora),
            "peak_bytes": peak.memory(),
            **({"waiting": waiting.share()} if trace else {}),
        }

    def plan(self, rows: int, length: int) -> dict[str, Any]:
        """The bytes that the memory plan foresees for training, as the command prints it."""
        work = memory.Work(rows, length, "bfloat16", self.lora)
        wanted = memory.plan(self.model.config, work)
        return {"bytes": wanted.total, "line": wanted.line()}

    def score(self, rows: str, adapters: int, how: str, trace: str = "") -> dict[str, Any]:
        """Scores all rows.

        Args:
          adapters: how many; 0 scores the base.
          how: `together` in one pass, `merged` each into the base, or `single`, each in a pass.
        """
        settings, config = Score(), self.model.config
        examples = world.load(self.folder / f"{rows}.npz")
        buckets = Buckets.of(examples, settings.buckets)
        packing = likelihood.packs(settings.packing, config, examples, buckets, settings.rows)
        adapters_K = self._adapters("trained", adapters) if adapters else None
        waiting = Waiting(Path(trace))
        if trace:
            waiting.start()
        began, cpu = time.perf_counter(), time.process_time()
        layout = Layout.of(examples, buckets, settings.rows, packing)
        call = functools.partial(likelihood.score, self.model, encoded=examples, layout=layout)
        if how == "single" and adapters_K is not None:
            found = [call(adapters_K[k : k + 1]) for k in range(adapters)]
        else:
            found = [call(adapters_K, merge=how == "merged")]
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        nll_KxN = np.concatenate(found)
        lengths, targets = [len(e.ids) for e in examples], sum(e.tokens for e in examples)
        done, planned = flops.work(config, lengths, targets), layout.plan(examples)
        return {
            "seconds": seconds,
            "tokens": done.tokens * len(nll_KxN),
            "cpu_seconds": cpu_seconds,
            "useful": done.tokens / sum(s.rows * s.length for s, _ in planned),
            "nll": (nll_KxN.sum(1) / targets).tolist(),
            "flops": flops.scoring(
                config, done, self.lora if adapters and how != "merged" else None, len(nll_KxN)
            ),
            "peak_bytes": peak.memory(),
            **({"waiting": waiting.share()} if trace else {}),
        }

    def generate(self, rows: str, new_tokens: int, batch_size: int) -> dict[str, Any]:
        """So many likeliest tokens after each row, which nothing ends before."""
        prompts = [e.ids.tolist() for e in world.load(self.folder / f"{rows}.npz")]
        began, cpu = time.perf_counter(), time.process_time()
        said = generate.greedy(
            self.model, None, prompts, generate.Until(new_tokens), batch_size=batch_size
        )
        return {
            "seconds": time.perf_counter() - began,
            "tokens": sum(map(len, said)),
            "cpu_seconds": time.process_time() - cpu,
            "useful": 1.0,
            "said": said,
            "peak_bytes": peak.memory(),
        }


if __name__ == "__main__":
    serve(Ours())
