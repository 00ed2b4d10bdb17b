"""How arrays lie on a mesh of devices: four axes, and one rule for every parameter path.

`task` cuts the tasks trained together, `data` and `fsdp` the rows of a batch, `fsdp` and `tensor`
the matrices. A mesh is entered with `jax.set_mesh`; outside of one, everything here leaves its
argument as it is, so the same functions run on one device.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from forget_jax.errors import UserError
from forget_jax.types import Tree

AXES = ("task", "data", "fsdp", "tensor")
ROWS = ("task", "data", "fsdp")  # the axes over which the rows of a batch are spread

# Matrices into a layer's inner width are cut by columns over `tensor`, those out of it by rows, so
# that one sum over `tensor` closes each block (arXiv 1909.08053 §3); `fsdp` cuts the other side
# (arXiv 1910.02054). An adapter lies as the kernel it adapts. First match counts.
INTO = r"layers/(attn/(q|k|v|qkv)|mlp/(up|gate))"
OUT_OF = r"layers/(attn/o|mlp/down)"
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (f"{INTO}/kernel", (None, "fsdp", "tensor")),
    (f"{INTO}/bias", (None, "tensor")),
    (f"{INTO}/a", (None, "fsdp", None)),
    (f"{INTO}/b", (None, None, "tensor")),
    (f"{OUT_OF}/kernel", (None, "tensor", "fsdp")),
    (f"{OUT_OF}/bias", (None, None)),
    (f"{OUT_OF}/a", (None, "tensor", None)),
    (f"{OUT_OF}/b", (None, None, "fsdp")),
    (r"layers/(\w+/)?\w+_norm/(scale|bias)", (None, None)),
    (r"final_norm/(scale|bias)", (None,)),
    (r"embed", ("tensor", "fsdp")),
    (r"embed_position", (None, "fsdp")),
    (r"head", ("fsdp", "tensor")),
    (r"(count|\w+_[MS])", ()),  # one number a task, or a seat
)


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """Devices along each axis; `data` 0 takes all that are left."""

    task: int = 1
    data: int = 0
    fsdp: int = 1
    tensor: int = 1


def make(shape: MeshShape, devices: Sequence[Any] | None = None) -> Mesh | None:
    """The mesh over all devices of all processes, or those given; None where that is one device.

    Raises:
      UserError: the axes do not make up the devices there are.
    """
    devices = jax.devices() if devices is None else devices
    sizes = _along(shape, len(devices))
    if len(devices) == 1:
        return None
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def planned(shape: MeshShape, devices: int = 0) -> contextlib.AbstractContextManager[Any]:
    """Enters a mesh of devices that need not be here, for plans; errors as for `make`.

    Args:
      devices: how many; 0 for as many as the shape asks for.
    """
    wanted = shape.task * max(1, shape.data) * shape.fsdp * shape.tensor
    sizes = _along(shape, devices or wanted)
    abstract = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    return jax.sharding.use_abstract_mesh(abstract)


def _along(shape: MeshShape, devices: int) -> tuple[int, ...]:
    """Devices along each of AXES; errors as for `make`."""
    others = shape.task * shape.fsdp * shape.tensor
    data = shape.data or max(1, devices // others)
    if data * others != devices:
        raise UserError(
            f"mesh.task={shape.task}, mesh.data={shape.data}, mesh.fsdp={shape.fsdp} and "
            f"mesh.tensor={shape.tensor} make {data * others} devices, but there are {devices}; "
            "their product must be that number (mesh.data=0 takes what the others leave)"
        )
    return shape.task, data, shape.fsdp, shape.tensor


def current() -> Mesh | None:
    """The mesh that was entered, or None; outside of compiled functions only."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else mesh


def sizes() -> dict[str, int]:
    """Devices along each axis of the entered mesh; empty without one."""
    return dict(jax.sharding.get_abstract_mesh().shape)


def entered(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Enters a mesh, if there is one: what was entered holds in the thread that entered it only."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def shards() -> tuple[int, int]:
    """Devices along `fsdp` and along `tensor`, which share each matrix."""
    return sizes().get("fsdp", 1), sizes().get("tensor", 1)


def blocks() -> int:
    """How many blocks of tasks lie on different devices: the size of the `task` axis."""
    return sizes().get("task", 1)


def row_shards() -> int:
    """Number of row shards; a batch's rows must be a multiple."""
    size_of = sizes()
    return int(np.prod([size_of.get(axis, 1) for axis in ROWS]))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


@functools.lru_cache(maxsize=4096)
def _rule(path: str) -> tuple[str | None, ...]:
    for pattern, axes in RULES:
        if re.fullmatch(rf"(?:.*/)?{pattern}", path):
            return axes
    raise UserError(f"no sharding rule covers the parameter {path}; add one to lm/sharding.py")


def spec(path: str, shape: Sequence[int]) -> P:
    """The PartitionSpec of the array at a path such as `layers/attn/q/kernel`.

    An axis in front of those of the rule is the task axis. A side that its mesh axis does not
    divide stays whole.

    Raises:
      UserError: no rule covers the path.
    """
    axes: tuple[str | None, ...] = _rule(path)
    if len(shape) == len(axes) + 1:
        axes = ("task", *axes)
    if len(shape) != len(axes):
        raise UserError(f"the sharding rule of {path} is for {len(axes)} axes, not {tuple(shape)}")
    size_of = sizes()
    return P(
        *(
            axis if axis and size % size_of.get(axis, 1) == 0 else None
            for axis, size in zip(axes, shape, strict=True)
        )
    )


def shardings(tree: Tree) -> Tree:
    """The sharding of every leaf of a tree of arrays or shapes; None without a mesh."""
    mesh = current()
    if mesh is None:
        return jax.tree.map(lambda x: None, tree)
    return jax.tree.map_with_path(
        lambda path, x: NamedSharding(mesh, spec(_name(path), x.shape)), tree
    )


def over_mesh(shapes: dict[str, tuple[int, ...]]) -> dict[str, NamedSharding]:
    """The sharding on the entered mesh of every parameter path and shape."""
    mesh = current()
    assert mesh is not None
    return {path: NamedSharding(mesh, spec(path, shape)) for path, shape in shapes.items()}


def whole(shapes: dict[str, tuple[int, ...]]) -> list[str]:
    """Paths of matrices that stay whole along a mesh axis because it does not divide them."""
    size_of = sizes()
    found = []
    for path, shape in shapes.items():
        wanted = [axis for axis in _rule(path) if axis and size_of.get(axis, 1) > 1]
        given = [axis for axis in spec(path, shape) if axis in wanted]
        if len(given) < len(wanted):
            found.append(path)
    return found


def constrain(tree: Tree) -> Tree:
    """Inside a compiled function: every leaf as its rule says."""
    if not sizes():
        return tree
    return jax.tree.map_with_path(
        lambda path, x: jax.lax.with_sharding_constraint(x, spec(_name(path), x.shape)), tree
    )


def constrain_rows(x_B: jax.Array) -> jax.Array:
    """Inside a compiled function: the leading axis is that of a batch's rows."""
    return jax.lax.with_sharding_constraint(x_B, P(ROWS)) if sizes() else x_B


def constrain_looked_up(x_BxLxD: jax.Array) -> jax.Array:
    """Inside a compiled function: what was just looked up in an embedding, on its way to the rows.

    Each device looks its share of the features up, for all rows that share the embedding, and an
    exchange over `fsdp` follows; without this step between, XLA may have all rows everywhere.
    """
    if not sizes():
        return x_BxLxD
    features = "fsdp" if x_BxLxD.shape[-1] % sizes()["fsdp"] == 0 else None
    cut = P(tuple(axis for axis in ROWS if axis != "fsdp"), None, features)
    return constrain_rows(jax.lax.with_sharding_constraint(x_BxLxD, cut))


def replicate(tree: Tree) -> Tree:
    """Inside a compiled function: every device, and so every process, has the whole of it."""
    if not sizes():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, P()), tree)


def fetch(tree: Tree) -> Tree:
    """A tree of device arrays on the host of every process."""
    if current() is not None:
        tree = jax.jit(replicate)(tree)
    return jax.tree.map(np.asarray, tree)


def put(tree: Tree) -> Tree:
    """A tree of host arrays (the same on every process) on the devices, as the rules say."""
    if current() is None:
        return jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(_put, tree, shardings(tree))


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def spread(values: np.ndarray) -> jax.Array | np.ndarray:
    """One number of every process, as an array over all devices (for a maximum, for example)."""
    mesh = current()
    if mesh is None:
        return values
    mine = np.repeat(values, jax.local_device_count())
    return jax.make_array_from_process_local_data(
        NamedSharding(mesh, P(AXES)), mine, (jax.device_count(),)
    )


def cut_rows(local: np.ndarray, count: int) -> jax.Array:
    """The whole array on the mesh, from this process's rows of an array of `count` rows."""
    mesh = current()
    assert mesh is not None
    return jax.make_array_from_process_local_data(
        NamedSharding(mesh, P(ROWS)), local, (count, *local.shape[1:])
    )


def own_rows(count: int) -> list[int]:
    """Which rows of a batch lie on this process's devices, in order."""
    mesh = current()
    assert mesh is not None
    if count % row_shards():
        raise UserError(
            f"a batch of {count} rows cannot be cut over {row_shards()} groups of devices; make "
            "train.microbatch and score.rows multiples of mesh.task x mesh.data x mesh.fsdp"
        )
    where = NamedSharding(mesh, P(ROWS)).addressable_devices_indices_map((count,))
    own: set[int] = set()
    for index in where.values():
        assert index is not None
        own.update(range(*index[0].indices(count)))
    return sorted(own)
