"""`forget-jax mix`: a training file of a task's rows and of what to replay beside them."""

import dataclasses
import io
import json
import sys
from collections.abc import Sequence

import jax
import numpy as np
import pandas as pd

from forget_jax import associations, files
from forget_jax.associations.matrix import Matrix
from forget_jax.commands import matrices, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Mix
from forget_jax.commands.summaries import CurvePoint, MixedRow
from forget_jax.commands.summaries import Mix as Summary
from forget_jax.data import reading
from forget_jax.data.batches import Buckets
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.rows import row_of
from forget_jax.errors import UserError
from forget_jax.integrations.snippets import snippets
from forget_jax.lm.hf import peft
from forget_jax.lm.hf.base import Base
from forget_jax.lm.model import Adapters
from forget_jax.randomness import generator
from forget_jax.replay import mix
from forget_jax.replay.candidates import Written, written
from forget_jax.replay.strategies import Known, coverage
from forget_jax.runs.progress import Progress
from forget_jax.runs.workdir import Workdir
from forget_jax.scoring import likelihood
from forget_jax.scoring.stream import Layout

SHOWN = 20  # rows of the page


def check(settings: Mix) -> None:
    """Refuses settings that cannot give a mix."""
    if not settings.task:
        raise UserError("give task: the rows to fine-tune on")
    strategy = _strategy(settings)
    needs_matrix = strategy in ("column_mean", "predicted", "coverage")
    if needs_matrix and not settings.matrix.path:
        raise UserError(f"mix.strategy={strategy} needs matrix.path, a matrix measured before")
    needs_adapter = strategy in ("predicted", "coverage", "measured")
    if needs_adapter and not settings.adapter:
        raise UserError(
            f"mix.strategy={strategy} needs adapter: one trained on the task (by `forget-jax "
            "finetune`, PEFT, TRL or axolotl), under which candidates are scored"
        )
    if not settings.model.path and (needs_adapter or _generates(settings)):
        raise UserError(
            "give model.path: the base scores the candidates"
            if needs_adapter
            else "give pool (candidates for replay), or model.path, so that the base writes some"
        )


def _strategy(settings: Mix) -> str:
    """How candidates are weighed: as said, or the best that what is given allows."""
    if settings.mix.strategy != "auto":
        return settings.mix.strategy
    if settings.matrix.path and settings.adapter:
        return "predicted"
    if settings.matrix.path:
        return "column_mean"
    return "measured" if settings.adapter and settings.pool else "random"


def _generates(settings: Mix) -> bool:
    return not settings.pool and not settings.matrix.path


def _without(pool: Sequence[Example], task: Sequence[Example]) -> list[Example]:
    """The candidates that are no rows of the task; says how many are.

    Raises:
      UserError: all are.
    """
    own = {reading.whole(e) for e in task}
    left = [e for e in pool if reading.whole(e) not in own]
    if not left:
        raise UserError("all candidates are rows of the task: give other rows as pool")
    if len(left) < len(pool):
        print(f"{len(pool) - len(left)} candidates are rows of the task: left out", file=sys.stderr)
    return left


@dataclasses.dataclass(frozen=True)
class Weighed:
    """What is known of the candidates.

    Attributes:
      value_J: by which they are drawn; NaN for never.
      z_J: expected forgetting of each without replay, nats a token; None where nothing says.
    """

    value_J: np.ndarray
    z_J: np.ndarray | None = None


def run(settings: Mix, work: Workdir) -> Ended:
    """Weighs the candidates, draws rows, and writes the files; needs a model only to score."""
    strategy, chosen = _strategy(settings), settings.mix
    task = reading.load((settings.task,), settings.data)
    curve = _curve(settings)
    advised = mix.recommended(curve, chosen.keep) if curve and not chosen.ratio else None
    ratio = chosen.ratio or (mix.DEFAULT_RATIO if advised is None else advised.ratio)
    count = round(len(task) * ratio)
    if count < 1:
        raise UserError(
            f"mix.ratio={ratio:g} gives no row beside the {len(task)} of the task: raise it"
        )
    pool = _pool(settings)
    needs_model = strategy in ("predicted", "coverage", "measured") or not pool
    base, reader = _load(settings, work) if needs_model else (None, None)
    if not pool:
        assert base is not None
        pool = written(base, work, Written(chosen.generated, chosen.generated_tokens), chosen.seed)
    pool = _without(pool, task)
    weighed = _weigh(settings, strategy, pool, base, reader)
    drawn = mix.choose_rows(weighed.value_J, count, chosen.temperature, chosen.seed)
    mean = float(np.nanmean(weighed.value_J))
    rows = [
        MixedRow(
            name=pool[j].name,
            source=pool[j].source,
            weight=float(drawn.weight_J[j]),
            value=float(weighed.value_J[j]),
            why=mix.reason(strategy, float(weighed.value_J[j]), mean),
            text=reading.whole(pool[j])[:280],
        )
        for j in drawn.row_K
    ]
    replayed = [pool[j] for j in drawn.row_K]
    conversations = _write(settings, work, task, replayed, rows)
    pasted = snippets(settings.model.path or "YOUR_BASE", str(work.path), conversations)
    text = "\n\n".join(f"## {name}\n\n```\n{lines}\n```" for name, lines in pasted.items())
    files.write_text(work / "use.md", f"# Training on this mix\n\n{text}\n")
    without = None if weighed.z_J is None else _by_source(pool, weighed.z_J)
    saved = _saved(curve, ratio)
    summary = Summary(
        strategy=strategy,
        ratio=ratio,
        task_rows=len(task),
        replayed=len(rows),
        candidates=len(pool),
        rows=tuple(rows[:SHOWN]),
        expected_z=None if weighed.z_J is None else float(np.nanmean(weighed.z_J)),
        expected_z_by_source=without or {},
        curve=tuple(
            CurvePoint(ratio=p.ratio, z=p.z, z_half=p.z_half, loss=p.loss, loss_half=p.loss_half)
            for p in curve
        ),
        saved=saved,
        trainers=dict(pasted),
        seconds=work.seconds(),
    )
    where = f"{work / 'train.jsonl'} ({len(task)} + {len(rows)} rows); how to use it: use.md"
    said = f"replay 1 row in {1 / ratio:.0f}, by {strategy.replace('_', ' ')}"
    if advised is None and not chosen.ratio:
        said += " (no curve was measured: give curve.path, a run of replay at several ratios)"
    return Ended(summary, f"{said}; {where}")


def _load(settings: Mix, work: Workdir) -> tuple[Base, Reader]:
    return values.load(settings.model, settings.data, score=settings.score, work=work)


def _curve(settings: Mix) -> list[mix.Ratio]:
    """Of a run of `replay`, where one is given."""
    if not settings.curve.path:
        return []
    where = files.Path(settings.curve.path) / "cells.csv"
    if not where.exists():
        raise UserError(
            f"{settings.curve.path} holds no cells.csv: give the workdir of a run of `forget-jax "
            "replay` that has ended"
        )
    return mix.curve(pd.read_csv(io.BytesIO(where.read_bytes())))


def _saved(curve: Sequence[mix.Ratio], ratio: float) -> float | None:
    """The share of forgetting that the curve's nearest ratio takes away; None without a curve."""
    if not curve or curve[0].z <= 0:
        return None
    nearest = min(curve[1:], key=lambda p: abs(np.log(p.ratio / ratio)))
    return 1 - nearest.z / curve[0].z


def _pool(settings: Mix) -> list[Example]:
    """The candidates: those given, or the columns of the matrix where its run kept their rows."""
    if settings.pool:
        return reading.load(settings.pool, settings.data)
    if not settings.matrix.path:
        return []
    matrix = matrices.load(settings.matrix.path)
    where = matrices.place(settings.matrix.path).parent / matrices.EXAMPLES
    if not where.exists():
        raise UserError(
            f"beside {settings.matrix.path} lie no texts of its examples: give pool, the rows that "
            "its columns are"
        )
    plain = dataclasses.replace(settings.data, columns=(), shuffle=-1)
    rows = {e.name: e for e in reading.load((str(where),), plain)}
    return [rows[name] for name in matrix.examples if name in rows]


def _weigh(
    settings: Mix,
    strategy: str,
    pool: Sequence[Example],
    base: Base | None,
    reader: Reader | None,
) -> Weighed:
    """The value of every candidate under a strategy."""
    if strategy == "random":
        return Weighed(np.zeros(len(pool)))
    if strategy == "measured":
        assert base is not None and reader is not None
        measured = _measured(settings, base, reader, pool)
        return Weighed(measured.z.to_numpy(), measured.z.to_numpy())
    matrix = matrices.load(settings.matrix.path)
    others_MxJ = _columns(matrix, pool)
    if strategy == "column_mean":
        mean_J = np.nanmean(others_MxJ, axis=0)
        return Weighed(mean_J, mean_J)
    assert base is not None and reader is not None
    rng, wanted = generator(settings.mix.seed, "random probes"), settings.mix.observed
    probes = rng.choice(len(pool), min(wanted, len(pool)), replace=False)
    measured = _measured(settings, base, reader, [pool[j] for j in probes])
    _check_same_base(settings, measured)
    z_1xS = measured.z.to_numpy()[None]
    z_J = associations.predict_rows(others_MxJ, probes[None], z_1xS, settings.mix.method)[0]
    if strategy == "predicted":
        return Weighed(z_J, z_J)
    return Weighed(coverage(Known(np.full(len(pool), np.nan), others_MxJ, z_J)), z_J)


def _columns(matrix: Matrix, pool: Sequence[Example]) -> np.ndarray:
    """The candidates' columns of the matrix, task x candidate.

    Raises:
      UserError: a candidate that is no column.
    """
    where = {name: j for j, name in enumerate(matrix.examples)}
    if missing := [e.name for e in pool if e.name not in where]:
        raise UserError(
            f"{len(missing)} of {len(pool)} candidates are no columns of the matrix, {missing[0]} "
            "first; give the upstream (and data.shuffle) that the matrix was made with, or leave "
            "pool empty to take its columns"
        )
    return np.asarray(matrix.z_MxN)[:, [where[e.name] for e in pool]]


def _measured(
    settings: Mix, base: Base, reader: Reader, examples: Sequence[Example]
) -> pd.DataFrame:
    """By example: forgetting under the adapter `z`, the base's `nll` (nats a token), `tokens`."""
    adapter = peft.load(settings.adapter, base.model, base.path)
    stacked = jax.tree.map(lambda x: x[None], adapter.tree)
    encoded, _ = reader.encode(examples, scored=True)
    if len(encoded) < len(examples):
        raise UserError(
            "candidates are scored whole: set data.too_long=truncate or left, and data.context so "
            "that none is dropped"
        )
    tokens = sum(len(e.ids) for e in encoded)
    print(
        f"scores {len(encoded)} candidates ({tokens:,} tokens) under the base and the adapter",
        file=sys.stderr,
    )
    layout = Layout.of(encoded, Buckets.of(encoded, settings.score.buckets), settings.score.rows)
    both = Adapters(adapter.config, stacked).with_base()
    with Progress("score candidates", len(encoded), unit="example") as progress:
        merge = likelihood.merges(base.model)
        nll_2xJ = likelihood.score(base.model, both, encoded, layout, progress.at, merge)
    targets = np.array([e.tokens for e in encoded])
    base_J, tuned_J = nll_2xJ / targets
    columns = {"z": tuned_J - base_J, "nll": base_J, "tokens": targets}
    return pd.DataFrame(columns, index=[e.name for e in encoded])


def _check_same_base(settings: Mix, measured: pd.DataFrame) -> None:
    """Refuses a matrix whose base read other tokens of the same examples, or gave them other NLLs.

    Raises:
      UserError: says how many, or by how much.
    """
    moved = matrices.base_moved(settings.matrix.path, measured[["nll", "tokens"]])
    if moved is None:
        return
    if others := len(moved.retokenised):
        raise UserError(
            f"{others} of {len(measured)} candidates have other numbers of target tokens than "
            "where the matrix was made; give the fields of data and the model it was made with"
        )
    if moved.is_another:
        raise UserError(
            f"the matrix is of another base: NLLs of the same examples differ by {moved.nll:.3f} "
            "nats a token (median); give the matrix of this base, or the data fields it was made "
            "with"
        )


def _by_source(pool: Sequence[Example], z_J: np.ndarray) -> dict[str, float]:
    frame = pd.DataFrame({"source": [e.source for e in pool], "z": z_J})
    return {str(s): float(z) for s, z in frame.groupby("source", sort=False).z.mean().items()}


def _write(
    settings: Mix,
    work: Workdir,
    task: Sequence[Example],
    replayed: Sequence[Example],
    rows: Sequence[MixedRow],
) -> bool:
    """Writes the rows, shuffled: as they are, and all in one form; whether as conversations."""
    lines = [row_of(e) | {"replayed": False, "weight": 0.0, "why": ""} for e in task]
    lines += [
        row_of(e) | {"replayed": True, "weight": row.weight, "why": row.why}
        for e, row in zip(replayed, rows, strict=True)
    ]
    order = generator(settings.mix.seed, "mixing").permutation(len(lines))
    mixed = [lines[i] for i in order]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in mixed)
    files.write_text(work / "train.jsonl", text)
    conversations = any(e.messages for e in (*task, *replayed))
    uniform = [_uniform(dict(line), conversations) for line in mixed]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in uniform)
    files.write_text(work / "uniform.jsonl", text)
    _save_dataset(work, uniform)
    return conversations


def _uniform(line: dict[str, object], conversations: bool) -> dict[str, object]:
    """A row with the columns that all have: a text is a completion of nothing."""
    prompt, completion = line.pop("prompt", None), line.pop("completion", None)
    text, turns = line.pop("text", None), line.pop("messages", None)
    line.pop("answers", None)
    line.pop("options", None)
    if isinstance(completion, list):
        completion = completion[0]
    said = completion if text is None else text
    if not conversations:
        return line | {"prompt": prompt or "", "completion": said}
    if turns is None:
        asked = [{"role": "user", "content": prompt}] if prompt else []
        turns = [*asked, {"role": "assistant", "content": said}]
    return line | {"messages": turns}


def _save_dataset(work: Workdir, rows: Sequence[dict[str, object]]) -> None:
    """As a folder that `datasets.load_from_disk` reads, on a disk of this machine."""
    if not files.is_local(work.path):
        print("dataset/ is written to local workdirs only; use train.jsonl", file=sys.stderr)
        return
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    Dataset.from_list(list(rows)).save_to_disk(str(work / "dataset"))
