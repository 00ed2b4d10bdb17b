"""Command lines of runs that take seconds."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import free_port
from tests.forked import Server

FEW = [
    "--config.train.steps=4",
    "--config.train.save_every=2",
    "--config.train.batch_size=4",
    "--config.train.buckets=1",
    "--config.train.lr=0.05",
    "--config.train.warmup=1",
    "--config.lora.rank=2",
]
PATIENCE = float(os.environ.get("PATIENCE", "300"))  # seconds until two processes are taken to hang
SCORE = ["--config.score.buckets=1", "--config.score.chunk=8"]


@pytest.fixture(scope="session")
def finetune_arguments(tiny_base: Path, data_files: Any) -> list[str]:
    return [
        "finetune",
        f"--config.model.path={tiny_base}",
        f"--config.data.path={data_files.tasks[0]}",
        *FEW,
        "--config.train.batch_size=24",  # the whole task, so the loss falls at every step
    ]


@pytest.fixture(scope="session")
def score_arguments(tiny_base: Path, data_files: Any) -> list[str]:
    return [
        "score",
        f"--config.model.path={tiny_base}",
        f"--config.data.path={data_files.upstream}",
        *SCORE,
    ]


@pytest.fixture(scope="session")
def associate_arguments(tiny_base: Path, data_files: Any) -> list[str]:
    """Three tasks and one repeat, two at a time."""
    return [
        "associate",
        f"--config.model.path={tiny_base}",
        f"--config.tasks={','.join(map(str, data_files.tasks))}",
        f"--config.upstream={data_files.upstream}",
        "--config.data.context=64",
        "--config.tasks_together=2",
        "--config.repeat_tasks=1",
        *FEW,
        *SCORE,
    ]


# What `python -m forget_jax` does, in a process that is forked.
MAIN = "import sys; from forget_jax.cli import main; sys.exit(main())"


@pytest.fixture(scope="session")
def on_two_processes(forked: Server) -> Callable[[list[str]], None]:
    """A function that runs a command in two processes of two devices each, to its good end."""

    def run(arguments: list[str]) -> None:
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
        where = f"127.0.0.1:{free_port()}"
        processes = [
            forked.start(
                *("-c", MAIN, *arguments, f"--distributed={where},2,{i}"),
                env=os.environ | {"XLA_FLAGS": flags},
            )
            for i in range(2)
        ]
        try:
            said = [p.communicate(timeout=PATIENCE) for p in processes]
        finally:
            for process in processes:
                process.kill()
        failed = "\n".join(err for _, err in said)
        assert [p.returncode for p in processes] == [0, 0], failed

    return run


SKILLS = ["addition", "reversal", "sorting", "uppercase", "counting"]
NEW_TASK = "builtin:skill/copying[:40]"  # none of the matrix's


@pytest.fixture(scope="session")
def skills_world(finished: Callable[[list[str]], Path], tiny_base: Path) -> tuple[Path, Path]:
    """The matrix of five tasks of a tiny model, and a sixth task's adapter."""
    model, context = f"--config.model.path={tiny_base}", "--config.data.context=48"
    skills = ",".join(f"builtin:skill/{name}[:12]" for name in SKILLS)
    upstream = "builtin:language_reference[:24],builtin:skill/lookup[:24]"
    matrix = finished(
        [
            *("associate", model, f"--config.tasks={skills}", f"--config.upstream={upstream}"),
            *("--config.repeat_tasks=0", context, *FEW, *SCORE),
        ]
    )
    tuned = finished(["finetune", model, f"--config.data.path={NEW_TASK}", context, *FEW])
    return matrix, tuned / "adapter"


@pytest.fixture(scope="session")
def forked() -> Iterator[Server]:
    """Starts Python processes without the time that their imports take."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def zarr_bytes() -> Callable[[Path], dict[str, bytes]]:
    """A function that reads every file of a workdir's table of scores."""

    def read(work: Path) -> dict[str, bytes]:
        root = work / "scores.zarr"
        return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}

    return read


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[str]], Path]:
    """A function that runs a command undisturbed, once a session, and returns its workdir."""
    from forget_jax import cli

    kept: dict[tuple[str, ...], Path] = {}

    def run(arguments: list[str]) -> Path:
        key = tuple(arguments)
        if key not in kept:
            kept[key] = tmp_path_factory.mktemp(arguments[0]) / "run"
            assert cli.main([*arguments, f"--workdir={kept[key]}"]) == 0
        return kept[key]

    return run


@pytest.fixture(scope="session")
def figures() -> Callable[[Path], dict[str, Any]]:
    """A function that gives a workdir's summary without what clock and machine decide."""
    return _figures


MEASURED = {"seconds", "tokens_per_second", "flops_per_second", "mfu", "peak_memory"}


def _figures(work: Path) -> dict[str, Any]:
    def untimed(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: untimed(v) for k, v in value.items() if k not in MEASURED}
        return value

    found: dict[str, Any] = untimed(json.loads((work / "summary.json").read_text()))
    return found
