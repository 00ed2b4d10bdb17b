"""What a machine has, asked without what may be broken on it: versions, devices, caches."""

import importlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from typing import NamedTuple

from forget_jax import files

NAME = "forget-jax"
# What the program imports by other names than they are installed under.
MODULES = {
    "orbax-checkpoint": "orbax.checkpoint",
    "pyyaml": "yaml",
    "etils": "etils.epath",
}
ACCELERATORS = {"gpu": ("/dev/nvidia0",), "tpu": ("/dev/accel0", "/dev/vfio/0")}


class Package(NamedTuple):
    """A package that is needed, or that an extra brings.

    Attributes:
      version: empty where it is not installed.
      extra: which extra it belongs to; empty for what is always needed.
      wrong: what is wrong with it, for people; empty where nothing is.
    """

    name: str
    version: str
    extra: str
    wrong: str


class Cache(NamedTuple):
    """A folder of files that are kept between runs.

    Attributes:
      files, size: how many, and their bytes.
      free: bytes left on its disk.
      wrong: empty where it can be written to.
    """

    what: str
    path: str
    files: int
    size: int
    free: int
    wrong: str


def system() -> str:
    """Python, the operating system, cores and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {cores} "
        f"cores, {pages / 2**30:.0f} GiB of memory"
    )


def packages() -> Iterator[Package]:
    """What the package asks for, and what of it is there, imports and is recent enough."""
    from packaging.requirements import Requirement

    seen: set[str] = set()
    for line in importlib.metadata.requires(NAME) or ():
        asked = Requirement(line)
        found = re.search(r"extra == [\"']([\w-]+)", line)
        extra = found[1] if found else ""
        if extra in ("test", "docs", "parity", "bench"):
            continue  # of work on the program itself
        if asked.name in seen:
            continue  # with an accelerator's support; `doctor` asks for its devices
        seen.add(asked.name)
        try:
            version = importlib.metadata.version(asked.name)
        except importlib.metadata.PackageNotFoundError:
            yield Package(asked.name, "", extra, "" if extra else "is not installed")
            continue
        wrong = ""
        if not asked.specifier.contains(version, prereleases=True):
            wrong = f"is {version}; {asked.specifier} is needed"
        elif not extra:
            wrong = _imports(MODULES.get(asked.name, asked.name.replace("-", "_")))
        yield Package(asked.name, version, extra, wrong)


def _imports(module: str) -> str:
    """What is wrong with a module; empty where it can be imported."""
    try:
        importlib.import_module(module)
    except Exception as e:  # whatever a broken installation raises
        return f"cannot be imported: {type(e).__name__}: {' '.join(str(e).split())[:300]}"
    return ""


def caches() -> Iterator[Cache]:
    """The folders that programs, models and data sets are kept in."""
    hub = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")  # noqa: PTH111
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(files.cache() / "xla")
    places = {
        "compiled programs": compiled,
        "converted GGUF files": str(files.cache() / "gguf"),
        "models out of packages": str(files.cache() / "shipped"),
        "models of the hub": os.environ.get("HF_HUB_CACHE") or f"{hub}/hub",
        "data sets of the hub": os.environ.get("HF_DATASETS_CACHE") or f"{hub}/datasets",
    }
    for what, path in places.items():
        if "://" in path:
            yield Cache(what, path, 0, 0, 0, "")
            continue
        count = size = 0
        for folder, _, names in os.walk(path):
            for name in names:
                try:
                    size += os.lstat(f"{folder}/{name}").st_size
                    count += 1
                except OSError:  # gone since
                    pass
        there = next(p for p in (pathlib.Path(path), *pathlib.Path(path).parents) if p.exists())
        may = os.access(there, os.W_OK)
        wrong = "" if may else f"cannot be written to ({there})"
        yield Cache(what, path, count, size, shutil.disk_usage(there).free, wrong)


def accelerators() -> list[str]:
    """Kinds of accelerator whose device files are here, whether or not jax can use them."""
    return [k for k, paths in ACCELERATORS.items() if any(map(os.path.exists, paths))]


def executable() -> str:
    """How this Python installs packages."""
    return f"{sys.executable} -m pip"
