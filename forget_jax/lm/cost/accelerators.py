"""Accelerators by name: dense bfloat16 peak and memory, as their makers state them.

From NVIDIA's data sheets of A100 80 GB, H100 SXM and H200, and Google's pages of TPU versions. For
plans of runs elsewhere; what is here measures itself (`peak.matmul`, `memory.available`).
"""

from typing import NamedTuple

from forget_jax.errors import UserError, nearest
from forget_jax.settings import shown

UTILISATION = 0.4  # of the peak, assumed; a measured rate is better


class Accelerator(NamedTuple):
    """One device.

    Attributes:
      peak: bfloat16 FLOP/s.
      memory: bytes.
    """

    peak: float
    memory: int


ACCELERATORS = {
    "a100": Accelerator(312e12, 80 * 10**9),
    "h100": Accelerator(989e12, 80 * 10**9),
    "h200": Accelerator(989e12, 141 * 10**9),
    "v4": Accelerator(275e12, 32 * 2**30),
    "v5e": Accelerator(197e12, 16 * 2**30),
    "v5p": Accelerator(459e12, 95 * 2**30),
    "v6e": Accelerator(918e12, 32 * 2**30),
}


class Machine(NamedTuple):
    """What a run is planned for.

    Attributes:
      name: for people.
      rate: FLOP/s of all devices together; None where it is not known.
      memory: bytes of each device; None where it is not known.
      devices: how many; 0 for as many as the mesh asks for.
    """

    name: str = ""
    rate: float | None = None
    memory: int | None = None
    devices: int = 0

    @classmethod
    def named(cls, text: str) -> "Machine":
        """`h100`, `h100:8`, or a measured rate in FLOP/s such as `9e10`.

        Raises:
          UserError: none of these.
        """
        name, colon, count = text.partition(":")
        if name in ACCELERATORS and (not colon or (count.isdigit() and 0 < int(count) < 10**6)):
            one, devices = ACCELERATORS[name], int(count or 1)
            rate = UTILISATION * one.peak * devices
            said = f"{devices} x {name} at {UTILISATION:.0%} of their bfloat16 peak (assumed)"
            return cls(said, rate, one.memory, devices)
        try:
            rate = float(text)
        except ValueError:
            rate = 0.0
        if not 0 < rate < 1e25:
            raise UserError(
                f"--dry-run={shown(text)}{nearest(name, ACCELERATORS)}: it takes a device, such as "
                f"h100 or h100:8, of {', '.join(ACCELERATORS)}; or a measured rate in FLOP/s "
                "(flops_per_second of a run's summary.json)"
            )
        return cls(f"{rate:.3g} FLOP/s", rate)
