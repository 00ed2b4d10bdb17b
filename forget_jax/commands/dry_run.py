"""`--dry-run`: what a command would take and write; runs nothing and makes no folder."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from forget_jax.commands import driver, reckoning, workload
from forget_jax.commands.reckoning import Workload
from forget_jax.fleet import fitting
from forget_jax.lm import sharding
from forget_jax.lm.cost.accelerators import Machine

ALWAYS = "config.json, metrics.jsonl, summary.json, report.html"


def plan(command: str, settings: Any, device: str) -> str:
    """The plan of a command in lines for people.

    Args:
      device: as `Machine.named` takes it; empty for none.

    Raises:
      UserError: what the command itself would refuse, a command without a plan, a model whose
        shape is not known here, or a run that does not fit into the device's memory.
    """
    machine = Machine.named(device) if device else Machine()
    driver.check(command, settings)
    with sharding.planned(_mesh(settings), machine.devices):
        return "\n".join(_lines(command, workload.of(command, settings), machine))


def _mesh(settings: Any) -> sharding.MeshShape:
    mesh = getattr(settings, "mesh", None)
    return sharding.MeshShape(**dataclasses.asdict(mesh)) if mesh else sharding.MeshShape()


def _lines(command: str, found: Workload, machine: Machine) -> Iterator[str]:
    config, dtype = found.shape.config, found.shape.dtype
    yield f"{command}, planned only: nothing is run or written"
    yield (
        f"model: {reckoning.parameters(config):,} parameters in {dtype}, {config.layers} layers of "
        f"width {config.width}, context {config.context} ({found.shape.source})"
    )
    if found.guessed:
        more = f" and {len(found.guessed) - 3} more" if len(found.guessed) > 3 else ""
        yield (
            f"rows taken as long as a row can be (not here, or no tokenizer): "
            f"{', '.join(found.guessed[:3])}{more}"
        )
    if found.wants is not None:
        yield _memory(found, found.wants, machine)
    yield from _work(found, machine)
    yield f"writes {ALWAYS}"
    for name, size in found.files.items():
        yield f"       {name}" + (f"  {_bytes(size)}" if size else "")


def _memory(found: Workload, wants: fitting.Wants, machine: Machine) -> str:
    """The memory of a device; refuses what does not fit into it."""
    config, dtype, has = found.shape.config, found.shape.dtype, machine.memory
    if has is not None and wants.recipe is not None and not wants.recipe.train.microbatch:
        # what suits an accelerator, whatever machine plans this
        train = dataclasses.replace(wants.recipe.train, microbatch=8 * sharding.row_shards())
        wants = dataclasses.replace(wants, recipe=dataclasses.replace(wants.recipe, train=train))
    together = min(found.together, found.fine_tunes) or 1
    if wants.recipe is not None and wants.recipe.lora is None:
        together = 1
    elif not found.together and has is not None:
        together = fitting.most_together(config, dtype, wants, found.fine_tunes, has)
    if has is not None:
        fitting.refuse(config, dtype, wants, together, has)
    said = fitting.plan(config, dtype, wants, together).line()
    some = f"; {together} of {found.fine_tunes} fine-tunes together"
    return said + (some if found.fine_tunes > 1 else "")


def _work(found: Workload, machine: Machine) -> Iterator[str]:
    """A line a part, and their sum."""
    parts = [*found.parts]
    if len(parts) > 1:
        parts.append(reckoning.together("in all", parts))
    width = max((len(part.what) for part in parts), default=0)
    for part in parts:
        took = "" if machine.rate is None else f"  {_time(part.flops / machine.rate):>9}"
        yield f"  {part.what:{width}}  {part.tokens:>15,.0f} tokens  {part.flops:8.2e} FLOPs{took}"
    if machine.rate is None:
        yield "time: name a device or a measured rate, such as --dry-run=h100:8 or --dry-run=9e10"
    else:
        yield f"time: on {machine.name}, without compiling, reading and writing"


def _time(seconds: float) -> str:
    for most, unit, name in ((100, 1, "s"), (6000, 60, "min"), (1e6, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 86400:,.0f} days"


def _bytes(size: float) -> str:
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size / 2**10:.1f} KiB"
