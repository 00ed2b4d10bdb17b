"""Memory of training and scoring on accelerators that are not here, by their own compilers.

    python benchmarks/compiled.py [--quick] [--json PATH] [--targets h100,v5e:4x4]

The programs that `finetune` and `score` run are compiled for the target, for models in bfloat16,
and what the compiler sets aside is held against the plan that the commands print. Nothing runs, so
a TPU pod or a GPU can be asked from a laptop; but kernels are not tuned, and what the runtime keeps
for itself is not counted. The compilers come as wheels, best in a folder of their own on
PYTHONPATH (an installed one would be looked for by every start of JAX):

    pip install --no-deps --target=compilers jax-cuda13-pjrt libtpu   # of versions that fit jax's
    PYTHONPATH=compilers python benchmarks/compiled.py
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"
# Else libtpu asks around for the machine that it is on, and says at length that there is none.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from forget_jax.benchmarks import table
from forget_jax.benchmarks.shapes import SHAPES
from forget_jax.data import batches
from forget_jax.data.tokenise import Encoded
from forget_jax.errors import UserError
from forget_jax.lm import lora, sharding
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.cost import memory
from forget_jax.lm.hf import layout
from forget_jax.lm.model import Adapters, Batch, Model
from forget_jax.scoring import likelihood
from forget_jax.training import objective
from forget_jax.training import state as states
from forget_jax.training import step as steps
from forget_jax.training.optimizer import OptimizerConfig
from forget_jax.types import Tree

# An H100 SXM as XLA's GPU compiler wants to know it: NVIDIA's figures for compute capability 9.0.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  device_address_bits: 64 name: "NVIDIA H100 80GB HBM3"
  driver_version: "13.0.0" runtime_version: "13.0.0" compile_time_toolkit_version: "13.0.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """One program on every device of a target.

    Attributes:
      rows: per device (or per group of devices that share rows).
      rank: of the adapters; 0 trains or scores the whole model.
      tasks: adapters trained or scored together.
      mesh: devices along the axes of the mesh that are not 1; what is left is `data`.
    """

    shape: str
    rows: int
    length: int
    rank: int = 8
    tasks: int = 1
    train: bool = True
    remat: str = "none"
    mesh: tuple[tuple[str, int], ...] = ()

    def name(self) -> str:
        parts = [f"{self.rows} × {self.length}"]
        parts += [f"rank {self.rank}"] if self.rank else []
        parts += [f"{self.tasks} adapters"] if self.tasks > 1 else []
        parts += [f"remat={self.remat}"] if self.remat != "none" else []
        return ", ".join(parts + [f"{axis}={size}" for axis, size in self.mesh])

    def adapter(self) -> lora.LoRAConfig | None:
        """The setting of the adapters; None without."""
        return lora.LoRAConfig(rank=self.rank) if self.rank else None


def devices(target: str) -> Sequence[Any]:
    """The devices of a target, which need not be here: one (`h100`, `v5e`) or a slice (`v5e:4x4`).

    Raises:
      UserError: its compiler is not installed, or knows no such target.
    """
    kind, _, size = target.partition(":")
    try:
        if kind == "h100":
            gpus = {"target_config": H100, "topology": f"1x1x{size or 1}"}
            return topologies.get_topology_desc("h100", "cuda", **gpus).devices
        host = "2x2x1" if kind in ("v4", "v5p") else "2x2"
        found = topologies.get_topology_desc(f"{kind}:{size or host}", "tpu").devices
        return found if size else found[:1]
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"there is no compiler for {target!r} here ({str(error).splitlines()[0]}); targets are "
            "h100 or h100:8 with jax-cuda13-pjrt, and v5e, v5p:4x4x4 and the like with libtpu"
        ) from None


@contextlib.contextmanager
def as_on(device: Any) -> Iterator[None]:
    """Our code chooses its ways as it would on that device."""
    cudnn = "jax._src.cudnn.fused_attention_stablehlo"
    described = SimpleNamespace(
        client=SimpleNamespace(platform_version=f"cuda {device.device_kind}"),
        compute_capability=getattr(device, "compute_capability", None),
        platform=device.platform,
    )
    with (
        mock.patch.object(jax, "default_backend", lambda: device.platform),
        mock.patch.object(jax, "local_devices", lambda: [described]),
        mock.patch(f"{cudnn}.check_cudnn_version", lambda: 91000),
        mock.patch(f"{cudnn}.check_compute_capability", lambda capability: True),
        mock.patch(f"{cudnn}.is_cuda_compute_capability_equal", lambda capability: False),
    ):
        yield


def _place(tree: Tree, device: Any) -> Tree:
    """Shapes where the arrays will lie: on the mesh as the rules say, or on the one device."""
    if sharding.current() is None:
        where = jax.tree.map(lambda x: jax.sharding.SingleDeviceSharding(device), tree)
    else:
        where = sharding.shardings(tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, where
    )


def _arguments(case: Case, config: DecoderConfig, device: Any) -> tuple[Tree, Tree, Batch]:
    """Shapes of parameters, of a stack of what is trained, and of a batch."""
    params: Tree = {}
    for path, shape in layout.shapes(config).items():
        layout.put(params, path, jax.ShapeDtypeStruct(shape, jnp.bfloat16))
    one, adapter = params, case.adapter()
    if adapter is not None:
        one = jax.eval_shape(lambda p: lora.init(adapter, p, jax.random.key(0)), params)
    stack = jax.tree.map(lambda x: jax.ShapeDtypeStruct((case.tasks, *x.shape), jnp.float32), one)
    full = Encoded("", "", np.zeros(case.length, np.int32), np.arange(case.length) > 0)
    rows = case.rows * sharding.row_shards()
    batch = batches.assemble(
        [full], batches.Shape(rows, case.length, case.length - 1), [(0,)] * rows
    )
    if (mesh := sharding.current()) is not None:
        where = jax.NamedSharding(mesh, jax.P(sharding.ROWS))
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), batch
        )
    return _place(params, device), _place(stack, device), batch


def _train(case: Case, config: DecoderConfig, device: Any) -> Iterator[tuple[Any, int]]:
    """The two programs of a training step, and the bytes that lie beside the arguments of each."""
    params, stack, batch = _arguments(case, config, device)
    adapter, optimizer = case.adapter(), OptimizerConfig()
    state = jax.eval_shape(functools.partial(states.init_state, optimizer), stack)
    total = _place(jax.eval_shape(states.zero_like, state), device)
    state = _place(state, device)
    rows, S = batch.ids_BxL.shape[0], case.tasks
    seat_R = np.arange(rows, dtype=np.int32) % (S // sharding.blocks())
    seats = steps.Seats(seat_R, np.ones(S, np.float32))
    model = Model(config, stack if adapter is None else params)
    adapters_S = None if adapter is None else Adapters(adapter, stack)
    args = (objective.nll, model, adapters_S, total, batch, seats)
    yield steps.accumulate.trace(*args), _bytes(state.optimizer)
    rates = steps.Rates(np.ones(S, np.float32), np.ones(S, bool))
    beside = 0 if adapter is None else _bytes(params)
    yield steps.update.trace(optimizer, state, total, rates, np.zeros(1, np.float32)), beside


def _score(case: Case, config: DecoderConfig, device: Any) -> Iterator[tuple[Any, int]]:
    params, stack, batch = _arguments(case, config, device)
    adapter = case.adapter()
    adapters_K = None if adapter is None else Adapters(adapter, stack)
    yield likelihood.score_batch.trace(Model(config, params), adapters_K, batch), 0


def _bytes(tree: Tree) -> int:
    """Of one device's share."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )


def measure(case: Case, target: str) -> table.Row:
    """One case: the most that any of its programs takes, and what the plan says."""
    there = devices(target)
    jax.clear_caches()  # what was traced for another target may call its kernels
    config = dataclasses.replace(SHAPES[case.shape], remat=case.remat)
    with (
        as_on(there[0]),
        sharding.entered(sharding.make(sharding.MeshShape(**dict(case.mesh)), there)),
    ):
        began, most = time.monotonic(), 0
        for traced, beside in (_train if case.train else _score)(case, config, there[0]):
            platform = "cuda" if there[0].platform == "gpu" else there[0].platform
            compiled = traced.lower(lowering_platforms=(platform,)).compile()
            m = compiled.memory_analysis()
            taken = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
            most = max(most, taken + m.temp_size_in_bytes + beside)
        work = memory.Work(
            case.rows * (1 if case.train else case.tasks),
            case.length,
            "bfloat16",
            case.adapter(),
            case.tasks // sharding.blocks(),
            case.train,
            sharding.shards(),
        )
        plan = memory.plan(config, work)
    return {
        "system": f"{target} {case.shape} {'train' if case.train else 'score'}",
        "setting": case.name(),
        "peak_bytes": most,
        "planned_bytes": plan.total,
        "planned_share": plan.total / most,
        "compile_seconds": time.monotonic() - began,
    }


# What is compiled where; a TPU chip of 16 GiB has no room for 7 B.
ONE = (
    Case("1b", 4, 512),
    Case("1b", 4, 512, remat="full"),
    Case("1b", 4, 512, rank=0, train=False),
    Case("1b", 4, 512, tasks=8, train=False),
)
LARGE = (
    Case("1b", 8, 1024),
    Case("1b", 32, 512, tasks=8),
    Case("1b", 1, 1024, rank=0),
    Case("7b", 1, 2048, rank=16),
    Case("7b", 1, 2048, rank=16, remat="dots"),
    Case("7b", 1, 2048, rank=16, remat="full"),
    Case("7b", 4, 1024),
    Case("7b", 4, 1024, rank=0, train=False),
    Case("7b", 4, 1024, tasks=8, train=False),
)
MANY = (
    Case("7b", 1, 1024, rank=16, mesh=(("fsdp", 8),)),
    Case("7b", 1, 1024, rank=16, mesh=(("fsdp", 2), ("tensor", 4))),
    Case("1b", 1, 1024, tasks=8, mesh=(("task", 2), ("fsdp", 2), ("tensor", 2))),
    Case("7b", 2, 1024, tasks=4, train=False, mesh=(("fsdp", 8),)),
    Case("7b", 2, 1024, tasks=4, train=False, mesh=(("tensor", 8),)),
)
TARGETS = "h100,h100:8,v5e,v5e:2x4,v5p"
QUICK = "h100,h100:8,v5e"


def cases(target: str, quick: bool) -> Sequence[Case]:
    """What is compiled for a target; `quick` leaves out what a TPU's compiler takes long for."""
    count = len(devices(target))
    if count > 1:
        return MANY
    if target == "h100":
        return ONE + LARGE
    return ONE[2:] if quick else ONE


def run(quick: bool = False, targets: str | None = None) -> dict[str, Any]:
    """Compiles the cases of all targets, or of those named, and returns `rows` and `notes`."""
    chosen = (targets or (QUICK if quick else TARGETS)).split(",")
    rows = [measure(case, target) for target in chosen for case in cases(target, quick)]
    return {"rows": rows, "ratio": {}, "notes": ["compiled, not run: " + f"jax {jax.__version__}"]}


if __name__ == "__main__":
    table.main(__doc__, run, targets="only these, by commas: h100, h100:8, v5e, v5p:2x2x4, …")
