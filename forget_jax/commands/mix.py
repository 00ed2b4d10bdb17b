"""`forget-jax mix`: a training file of a task's rows and of what to replay beside them."""

import io
import json
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd

from forget_jax import files
from forget_jax.commands import matrices, mix_candidates, values
from forget_jax.commands.driver import Ended
from forget_jax.commands.settings import Mix
from forget_jax.commands.summaries import CurvePoint, MixedRow
from forget_jax.commands.summaries import Mix as Summary
from forget_jax.data import reading
from forget_jax.data.examples import Example
from forget_jax.data.reading import Reader
from forget_jax.data.rows import row_of
from forget_jax.errors import UserError
from forget_jax.integrations.snippets import snippets
from forget_jax.lm.hf.base import Base
from forget_jax.randomness import generator
from forget_jax.replay import mix
from forget_jax.replay.candidates import Written, answered, written
from forget_jax.runs.workdir import Workdir

SHOWN = 20  # rows of the page


def check(settings: Mix) -> None:
    """Refuses settings that cannot give a mix."""
    if not settings.task:
        raise UserError("give task: the rows to fine-tune on")
    strategy = mix_candidates.strategy(settings)
    needs_matrix = strategy in ("column_mean", "predicted", "coverage")
    if needs_matrix and not settings.matrix.path:
        raise UserError(f"mix.strategy={strategy} needs matrix.path, a matrix measured before")
    needs_adapter = strategy in ("predicted", "coverage", "measured")
    if needs_adapter and not settings.adapter:
        raise UserError(
            f"mix.strategy={strategy} needs adapter: one trained on the task (by `forget-jax "
            "finetune`, PEFT, TRL or axolotl), under which candidates are scored"
        )
    if not settings.model.path and (needs_adapter or mix_candidates.generates(settings)):
        raise UserError(
            "give model.path: the base scores the candidates"
            if needs_adapter
            else "give pool (candidates for replay), or model.path, so that the base writes some"
        )


def run(settings: Mix, work: Workdir) -> Ended:
    """Weighs the candidates, draws rows, and writes the files; needs a model only to score."""
    strategy, chosen = mix_candidates.strategy(settings), settings.mix
    task = reading.load((settings.task,), settings.data)
    curve = _curve(settings)
    advised = mix.recommended(curve, chosen.keep) if curve and not chosen.ratio else None
    ratio = chosen.ratio or (mix.DEFAULT_RATIO if advised is None else advised.ratio)
    count = round(len(task) * ratio)
    if count < 1:
        raise UserError(
            f"mix.ratio={ratio:g} gives no row beside the {len(task)} of the task: raise it"
        )
    pool = mix_candidates.pool_of(settings)
    needs_model = strategy in ("predicted", "coverage", "measured") or not pool
    base, reader = _load(settings, work) if needs_model else (None, None)
    if not pool:
        assert base is not None and reader is not None
        place, wanted = work / "generated.json", Written(chosen.generated, chosen.generated_tokens)
        if chosen.generated_from == "prompts":
            pool = answered(base, place, reader, task, wanted, chosen.seed)
        else:
            pool = written(base, place, wanted, chosen.seed)
    pool = mix_candidates.without(pool, task)
    weighed = mix_candidates.weigh(settings, strategy, pool, base, reader)
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
    measured = matrices.base_of(settings.matrix.path) if settings.matrix.path else ""
    model = settings.model.path or measured or "YOUR_BASE"
    pasted = snippets(model, str(work.path), conversations)
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
    reader = values.reader(settings.model, settings.data, score=settings.score, work=work)
    return values.base(settings.model, reader), reader


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
    """A row with the columns that all have: a text is what is said to an empty prompt."""
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
        # Some trainers and templates drop or refuse a conversation that the user does not begin.
        asked = {"role": "user", "content": prompt or ""}
        turns = [asked, {"role": "assistant", "content": said}]
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
