"""How a model is trained: the `train` fields."""

import dataclasses

from forget_jax.lm.config import SWITCHES
from forget_jax.settings import free, setting

STEPS = 10**9  # the most: what counts them has 32 bits

SCHEDULES = ("constant", "linear", "cosine")


@dataclasses.dataclass(frozen=True)
class Train:
    """Steps, batches, optimizer, and what is kept on the way; defaults of a LoRA fine-tune."""

    steps: int = setting(100, "optimizer steps", least=1, most=STEPS)
    batch_size: int = setting(8, "examples of a task in a step", least=1, most=2**20)
    microbatch: int = setting(
        0,
        "rows of the longest bucket on the device at a time (shorter ones: as many tokens); "
        "0: what suits the device",
        least=0,
    )
    buckets: int = setting(6, "the most row lengths to compile for", least=1)
    lr: float = setting(2e-4, "peak learning rate", least=0)
    schedule: str = setting(
        "linear",
        "learning rate after warm-up: constant, linear or cosine",
        choices=SCHEDULES,
    )
    warmup: int = setting(10, "steps of linear warm-up", least=0)
    floor: float = setting(
        0.0, "share of lr at which linear and cosine end, in place of zero", least=0, most=1
    )
    clip: float = setting(1.0, "largest gradient norm of a task; 0: no clipping", least=0)
    decay: float = setting(0.0, "decoupled weight decay", least=0)
    seed: int = setting(0, "seed of initialisation and example order", least=0)
    save_every: int = setting(50, "steps between checkpoints; 0: only at the end", least=0)
    heldout: int = setting(
        0, "examples of each task kept out for held-out losses; 0: none", least=0
    )
    eval_every: int = setting(50, "steps between held-out losses", least=1)
    patience: int = setting(
        0, "stop a task after so many held-out losses without a new best; 0: never", least=0
    )
    by_task: tuple[str, ...] = setting(
        (),
        "a task's own values, such as NAME.steps=50 (steps, lr, schedule, warmup, seed, patience)",
    )
    remat: str = setting(
        "none",
        "what the backward pass computes again: none, dots (all but products with weights) or full",
        choices=SWITCHES["remat"],
    )
    trace: int = free(
        setting(0, "first step of a profiler trace, in trace/ of the workdir; 0: none", least=0)
    )
    trace_steps: int = free(setting(3, "steps of the profiler trace", least=1))
    tensorboard: bool = free(
        setting(False, "also write TensorBoard events (the extra `tensorboard`)")
    )
    wandb: str = free(
        setting("", "W&B project to send losses to as well (the package wandb); empty: none")
    )
