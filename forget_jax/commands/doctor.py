"""`forget-jax doctor`: what this machine has, what is broken, and a minute of parity.

It makes no run of its own, and imports only what it can do without until it asks for the rest, so
that it works where an installation is broken.
"""

import importlib.metadata
import time
from collections.abc import Iterator, Sequence
from typing import Any

from forget_jax import files
from forget_jax.commands import machine
from forget_jax.commands.settings import Doctor
from forget_jax.errors import UserError

WIDTH = 26


def run(settings: Doctor, workdir: str = "") -> int:
    """Prints what is found, as it is found.

    Args:
      workdir: a folder for the same in summary.json; empty writes nothing.

    Returns:
      The exit status: 0, or 1 where something is broken.

    Raises:
      UserError: the folder holds another command's run.
    """
    if workdir:
        _check_folder(workdir)
    began = time.monotonic()
    version = importlib.metadata.version("forget-jax")
    found: dict[str, Any] = {"command": "doctor", "version": version}
    problems: list[str] = []
    _title(f"forget-jax {version}")
    _line("system", machine.system())
    found |= {"system": machine.system(), "versions": _versions(problems)}
    found["caches"] = _caches(problems)
    found["devices"], found["kernels"] = _devices(problems)
    found["checks"] = []
    if settings.selftest and found["devices"]:
        found["checks"] = _checks(problems)
    found |= {"problems": problems, "seconds": time.monotonic() - began}
    _title("broken" if problems else "nothing is broken")
    for problem in problems:
        print(f"- {problem}")
    if workdir:
        files.write_json(files.Path(workdir) / "summary.json", found)
    return int(bool(problems))


def _check_folder(workdir: str) -> None:
    there = files.Path(workdir) / "summary.json"
    if there.exists() and files.read_json(there).get("command") != "doctor":
        raise UserError(f"{workdir} holds another command's run; give another --workdir")
    if (files.Path(workdir) / "config.json").exists():
        raise UserError(f"{workdir} holds another command's run; give another --workdir")


def _title(text: str) -> None:
    print(f"\n{text}", flush=True)


def _line(name: str, value: str) -> None:
    print(f"  {name:{WIDTH}}  {value}", flush=True)


def _versions(problems: list[str]) -> dict[str, str]:
    """What is needed and what extras bring; those that are absent are named by their extra."""
    _title("packages")
    here: dict[str, str] = {}
    absent: dict[str, list[str]] = {}
    for package in machine.packages():
        if package.wrong:
            how = f"{machine.executable()} install --upgrade {package.name}"
            problems.append(f"{package.name} {package.wrong}: {how}")
        if package.version:
            here[package.name] = package.version
            _line(package.name, f"{package.version}{'  BROKEN' if package.wrong else ''}")
        elif package.extra:
            absent.setdefault(package.extra, []).append(package.name)
    for extra, names in absent.items():
        _line(f"extra {extra}", f"not installed ({', '.join(names)})")
    return here


def _caches(problems: list[str]) -> dict[str, dict[str, Any]]:
    _title("caches")
    found = {}
    for cache in machine.caches():
        size = f"{cache.files:,} files, {cache.size / 2**20:,.0f} MiB"
        _line(cache.what, f"{cache.path}: {size}; {cache.free / 2**30:,.0f} GiB free")
        if cache.wrong:
            problems.append(f"the cache of {cache.what} {cache.wrong}")
        found[cache.what] = {"path": cache.path, "files": cache.files, "bytes": cache.size}
    return found


def _devices(problems: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Devices with their memory, and which kernels run on them and why."""
    _title("devices")
    try:
        import jax

        devices = jax.devices()
    except Exception as e:  # a plugin that does not fit, no driver, a device that others hold
        why = " ".join(str(e).split())[:300]
        problems.append(f"jax finds no device: {type(e).__name__}: {why}")
        return [], {}
    found = []
    for device in devices:
        stats = (device.memory_stats() or {}) if device.platform != "cpu" else {}
        limit = stats.get("bytes_limit")
        held = {"platform": device.platform, "kind": device.device_kind, "memory": limit}
        found.append(held)
    for kind in dict.fromkeys(f["kind"] for f in found):
        same = [f for f in found if f["kind"] == kind]
        memory = f", {same[0]['memory'] / 2**30:.0f} GiB for jax" if same[0]["memory"] else ""
        _line(f"{len(same)} × {same[0]['platform']}", f"{kind}{memory}")
    for kind in machine.accelerators():
        if all(f["platform"] != kind for f in found):
            install = f"{machine.executable()} install 'forget-jax[{kind}]'"
            problems.append(f"a {kind.upper()} is here and jax does not use it: {install}")
    try:
        kernels = dict(_kernels())
    except Exception as e:  # whatever is broken is what is asked
        problems.append(f"kernels cannot be chosen: {type(e).__name__}: {' '.join(str(e).split())}")
        return found, {}
    _title("kernels")
    for name, chosen in kernels.items():
        _line(name, chosen)
    return found, kernels


def _kernels() -> Iterator[tuple[str, str]]:
    """What is chosen here, and why; each by the function that chooses."""
    import jax

    from forget_jax.lm import attention
    from forget_jax.lm.cost import peak
    from forget_jax.scoring import likelihood

    backend = jax.default_backend()
    for dtype in ("float32", "bfloat16"):
        if attention.has_cudnn(dtype, 64):
            why = "cuDNN, fused: half precision on NVIDIA's Ampere or later"
        else:
            why = "XLA, in blocks of the causal triangle: cuDNN's needs " + (
                "half precision" if backend == "gpu" else "an NVIDIA GPU"
            )
        yield f"attention, {dtype}", why
    packs = not attention.has_cudnn("bfloat16", 64)
    yield (
        "packed rows, bfloat16",
        "where that is less arithmetic: XLA's attention keeps examples apart"
        if packs
        else "never: cuDNN's attention cannot keep the examples of a row apart",
    )
    if likelihood.at_a_time():
        adapters = "merged into the base in fp32, else one after the other: fastest on CPU"
    else:
        adapters = "side by side (vmap): the base's products are shared"
    yield "adapters scored together", adapters
    yield "matrix products", f"{peak.matmul() / 1e9:,.0f} GFLOP/s measured on one device"


def _checks(problems: list[str]) -> Sequence[dict[str, Any]]:
    _title("self-test (what is measured, and what it may be at most)")
    try:
        from forget_jax.commands import selftest
    except Exception as e:  # whatever is broken is what is asked
        problems.append(f"the self-test does not start: {type(e).__name__}: {e}")
        return []
    found = []
    for check in selftest.checks():
        figure = check.error or f"{check.value:.1e}  (at most {check.most:.0e})"
        print(f"  {'ok  ' if check.passed else 'FAIL'}  {check.what}: {figure}", flush=True)
        if not check.passed:
            problems.append(f"self-test: {check.what}: {figure}")
        found.append({"what": check.what, "value": check.value, "most": check.most})
    return found
