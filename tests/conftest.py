"""What tests of several rooms share: tiny texts, a tiny random decoder, a tiny pretrained base.

Everything is made here, offline and seeded. JAX runs on the CPU unless JAX_PLATFORMS says
otherwise, and compiled programs are kept in a folder of the session, so that commands started in
processes of their own find what the tests before them compiled.
"""

import dataclasses
import gc
import importlib.metadata
import json
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# One folder of the whole session: the workers of pytest-xdist find it in their environment.
KEPT = os.environ.get("FORGET_JAX_TESTS_KEPT", "")
IS_FIRST = not KEPT
if IS_FIRST:
    KEPT = os.environ["FORGET_JAX_TESTS_KEPT"] = tempfile.mkdtemp(prefix="forget_jax_tests_")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: optimising each program costs more than it gives.
COMPILE_FAST = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if importlib.metadata.version("jaxlib").startswith("0.10."):  # an unknown flag ends the process
    COMPILE_FAST += ["--xla_cpu_use_fusion_emitters=false"]
    COMPILE_FAST += ["--xla_cpu_parallel_codegen_split_count=1"]
given = os.environ.get("XLA_FLAGS", "").split()
os.environ["XLA_FLAGS"] = " ".join([*given, *(f for f in COMPILE_FAST if f not in given)])
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{KEPT}/xla"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # who asked for each operation of a program
os.environ["XDG_CACHE_HOME"] = KEPT
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLCONFIGDIR"] = f"{KEPT}/matplotlib"

# A shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

import hypothesis  # noqa: E402
import jax  # noqa: E402 - after the settings above
import numpy as np  # noqa: E402

hypothesis.settings.register_profile("any speed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("any speed")

from forget_jax.lm import decoder  # noqa: E402
from forget_jax.lm.model import Model  # noqa: E402
from forget_jax.types import Tree  # noqa: E402

pytest_plugins = ["tests.faults"]

# Tracing makes many objects and few cycles, and each search for cycles goes through all of JAX.
gc.freeze()
gc.set_threshold(100_000, 20, 20)

ROOT = Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"

SUBJECTS = ("the old sailor", "a quiet child", "my neighbour", "the tall nurse", "every poet")
VERBS = ("carries", "forgets", "paints", "remembers", "repairs", "follows")
OBJECTS = ("a blue lantern", "the broken clock", "two letters", "an empty boat", "the river map")
PLACES = ("in the harbour", "behind the mill", "after the storm", "near the station")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow-part", metavar="I/N", default="0/1", help="of N parts of the slow tests, the I-th"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the slow tests of other parts: every N-th of the files that have some."""
    part, parts = map(int, config.getoption("--slow-part").split("/"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    files = sorted({item.path for item in slow})
    out = {item for item in slow if files.index(item.path) % parts != part}
    config.hook.pytest_deselected(items=list(out))
    items[:] = [item for item in items if item not in out]


def pytest_configure(config: pytest.Config) -> None:
    # A program that another process is just writing is compiled again.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error reading persistent compilation cache entry"
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    if IS_FIRST:  # a worker ends while others still need the folder
        shutil.rmtree(KEPT, ignore_errors=True)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def sentences(count: int, seed: int) -> list[str]:
    """Documents of one to four sentences of a small grammar."""
    draw = random.Random(seed)
    parts = (SUBJECTS, VERBS, OBJECTS, PLACES)
    return [
        " ".join(
            " ".join(draw.choice(words) for words in parts).capitalize() + "."
            for _ in range(draw.randint(1, 4))
        )
        for _ in range(count)
    ]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@dataclasses.dataclass(frozen=True)
class Files:
    """Data files of one small world: a corpus, upstream documents and three tasks."""

    corpus: Path
    upstream: Path
    tasks: tuple[Path, ...]


@pytest.fixture(scope="session")
def data_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("data")
    corpus = write_jsonl(folder / "corpus.jsonl", [{"text": t} for t in sentences(80, 0)])
    upstream = write_jsonl(folder / "upstream.jsonl", [{"text": t} for t in sentences(20, 1)])
    words = [w for t in sentences(8, 2) for w in t.strip(".").split()]
    rules: dict[str, Callable[[str], str]] = {
        "reverse": lambda w: w[::-1],
        "shout": lambda w: w.upper() + "!",
        "count": lambda w: str(len(w)),
    }
    tasks = tuple(
        write_jsonl(
            folder / f"{name}.jsonl",
            [
                {"prompt": f"{name}: {' '.join(words[i : i + 1 + i % 4])}", "completion": rule(w)}
                for i, w in enumerate(words[:24])
            ],
        )
        for name, rule in rules.items()
    )
    return Files(corpus, upstream, tasks)


PRETRAIN = [
    f"--config.{field}"
    for field in (
        "model.vocab_size=320",
        "model.width=16",
        "model.layers=2",
        "model.heads=2",
        "model.kv_heads=1",
        "model.mlp_width=24",
        "model.context=64",
        "train.steps=8",
        "train.batch_size=4",
        "train.microbatch=4",
        "train.save_every=3",
        "train.warmup=2",
    )
]


@pytest.fixture(scope="session")
def pretrain_arguments(data_files: Files) -> list[str]:
    """The command line of a pretraining that takes seconds, without its workdir."""
    return ["pretrain", f"--config.data.path={data_files.corpus}", *PRETRAIN]


@pytest.fixture(scope="session")
def tiny_run(pretrain_arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a pretraining of seconds, by the command itself."""
    from forget_jax import cli

    workdir = tmp_path_factory.mktemp("pretrain") / "run"
    assert cli.main([*pretrain_arguments, f"--workdir={workdir}"]) == 0
    return workdir


@pytest.fixture(scope="session")
def tiny_base(tiny_run: Path) -> Path:
    """A Hugging Face folder: a decoder of two layers and its tokenizer."""
    return tiny_run / "model"


@pytest.fixture(scope="session")
def tiny_config() -> decoder.DecoderConfig:
    return decoder.DecoderConfig(
        vocab_size=61, width=16, layers=2, heads=4, kv_heads=2, head_dim=4, mlp_width=24, context=64
    )


@pytest.fixture(scope="session")
def tiny_params(tiny_config: decoder.DecoderConfig) -> Tree:
    """Random weights large enough that predictions are far from uniform."""
    params = jax.jit(decoder.init, static_argnums=0)(tiny_config, jax.random.key(0))
    return jax.tree.map_with_path(lambda path, x: x if path[-1].key == "scale" else x * 6, params)


@pytest.fixture(scope="session")
def tiny_model(tiny_config: decoder.DecoderConfig, tiny_params: Tree) -> Model:
    return Model(tiny_config, tiny_params)


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Runs a command in this process: (exit status, stdout, stderr)."""
    from forget_jax import cli

    def run(*argv: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return status, out, err

    yield run


@pytest.fixture(scope="session")
def random_examples() -> Callable[..., list[Any]]:
    """A function that makes encoded examples of given lengths."""
    return _random_examples


def _random_examples(
    seed: int, lengths: list[int], vocab_size: int = 61, prompts: bool = True
) -> list[Any]:
    """Encoded examples of random ids; with prompts, a random part in front is no target."""
    from forget_jax.data.tokenise import Encoded

    rng = np.random.default_rng(seed)
    found = []
    for i, n in enumerate(lengths):
        is_target = np.arange(n) > 0
        if prompts and n > 2:
            is_target = np.arange(n) >= rng.integers(1, n)
        ids = rng.integers(0, vocab_size, n).astype(np.int32)
        found.append(Encoded(f"e{seed}.{i}", f"s{seed}", ids, is_target))
    return found


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the repository; tests that use it skip without it."""
    if not REAL_DATA.is_dir():
        pytest.skip("real data is not at ../shared/data")
    return REAL_DATA
