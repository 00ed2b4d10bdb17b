"""The command line: one line per command, typed overrides, and the exit statuses.

    forget-jax COMMAND [--config=NAME_OR_PATH[:arg]] [--workdir=DIR] [--config.key=value ...]
                       [--sweep.key=value,value ...]
                       [--distributed=auto|HOST:PORT,COUNT,INDEX] [--quiet]
                       [--print-config] [--dry-run[=DEVICE]] [--help]

Exit status 0 on success, 2 on a user's mistake (one line, no traceback), 3 where `check` finds a
limit passed, 130 when interrupted (the same command resumes), 1 on an internal error or the loss of
another process of the run.
"""

import contextlib
import ctypes
import dataclasses
import importlib.metadata
import io
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, cast

from forget_jax import distributed, files, stopping
from forget_jax.errors import UserError, nearest, one_line
from forget_jax.settings import check

COMMANDS = {
    "quickstart": "the main stages in miniature: offline, about five minutes, one page",
    "pretrain": "train a tokenizer and a small base model from scratch",
    "finetune": "fine-tune a model on one task, with LoRA or in full",
    "score": "per-example log-likelihoods of a data set under a model and its adapters",
    "check": "what fine-tunes lost of named sets of examples, against limits, for pipelines",
    "associate": "fine-tune on M tasks, score N upstream examples: the forgetting matrix",
    "probes": "which upstream examples to measure for the next task, and how many",
    "predict": "what a new task will make the model forget, from the scores of its probes",
    "evaluate": "how well every method predicts held-out rows of a matrix from a few entries",
    "replay": "fine-tune with upstream examples mixed in, and compare what is forgotten",
    "mix": "a training file of a task's rows and of what to replay, for this and other trainers",
    "scaling": "forgetting over ranks and steps, and the laws that describe it",
    "plan": "steps, rank and learning rate for a budget of forgetting, from points of scaling",
    "factoids": "memorise facts, train on others, and recite: what mixing in keeps",
    "export": "a merged Hugging Face checkpoint, or a PEFT adapter, from a fine-tune",
    "report": "rebuild report.html from the files of a workdir",
    "bench": "throughput, MFU and peak memory, beside its peers",
    "doctor": "devices, versions, kernels, caches and a minute of parity: what is broken here",
}

USAGE = """usage: forget-jax COMMAND [--config=NAME[:arg]] [--workdir=DIR] [--config.key=value ...]
                  [--sweep.key=value,value ...]
                  [--distributed=auto|HOST:PORT,COUNT,INDEX] [--quiet]
                  [--print-config] [--dry-run[=DEVICE]] [--help]
       forget-jax --version

NAME is a config of configs/ or the path of a .py, .yaml or .json file. --distributed joins the
processes of one run: auto detects TPU pods, GKE, SLURM and Open MPI; otherwise the address of
process 0, the number of processes, and the number of this one from 0. launch/ holds scripts that
start them. --sweep.key=value,value is a run for each value in a folder of --workdir, with a table
of all of them; several such are every combination. --quiet says nothing but what went wrong.
--print-config shows the resolved config and runs nothing. --dry-run says what the run would take of
memory and FLOPs and what it would write; with a device such as h100:8, or a measured rate in FLOP/s
such as 9e10, also how many hours. It needs no weights.

Commands (each with --help for its fields and their defaults):
"""


def usage() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    return USAGE + "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())


@dataclasses.dataclass
class Arguments:
    """What follows the command: overrides in order, and whether only something is to be shown."""

    config: str = ""
    workdir: str | None = None
    distributed: str | None = None
    overrides: list[tuple[str, str | None]] = dataclasses.field(default_factory=list)
    sweeps: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    wants_help: bool = False
    wants_config: bool = False
    quiet: bool = False
    dry_run: str | None = None


def parse(argv: Sequence[str]) -> Arguments:
    """Splits the arguments.

    Raises:
      UserError: an unknown argument, or one without a value.
    """
    found = Arguments()
    rest = list(argv)
    while rest:
        flag = rest.pop(0)
        if flag in ("-h", "--help"):
            found.wants_help = True
            continue
        if flag == "--quiet":
            found.quiet = True
            continue
        if flag == "--print-config":
            found.wants_config = True
            continue
        if flag == "--dry-run" or flag.startswith("--dry-run="):
            found.dry_run = flag.partition("=")[2]
            continue
        name, equals, value = flag.partition("=")
        known = ("--config", "--workdir", "--distributed")
        if not (name in known or name.startswith(("--config.", "--sweep."))):
            raise UserError(
                f"unknown argument {flag!r}; it must be --config=NAME, --workdir=DIR, "
                "--config.key=value, --sweep.key=value,value, --distributed=auto, --quiet, "
                "--print-config, --dry-run or --help"
            )
        if not equals:
            if name.startswith("--config.") and (not rest or rest[0].startswith("--")):
                found.overrides.append((name.removeprefix("--config."), None))  # such as `quick`
                continue
            if not rest:
                raise UserError(f"{name} needs a value: {name}=...")
            value = rest.pop(0)
        if name in known:
            setattr(found, name.removeprefix("--"), value)
        elif name.startswith("--sweep."):
            found.sweeps.append((name.removeprefix("--sweep."), value))
        else:
            found.overrides.append((name.removeprefix("--config."), value))
    return found


def _setup_jax(spec: str | None) -> None:
    """Joins the other processes, and keeps compilations on disk: a second start compiles nothing.

    Args:
      spec: of `distributed.initialise`; None runs in one process.
    """
    import jax

    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(files.cache() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if spec is not None:
        distributed.initialise(spec)
    if not distributed.is_writer():  # process 0 speaks for all, `main` for one that fails
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if jax.default_backend() == "cpu":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Lets the C library keep the memory that XLA frees and takes again at every step.

    By default glibc hands large blocks back to the kernel, which zeroes them anew each time: up to
    two fifths of a small model's step on CPU. Elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in (
        (-4, 0),  # M_MMAP_MAX: no block of its own mapping
        (-1, 2**31 - 1),  # M_TRIM_THRESHOLD: free memory to keep at the top
        (-2, 2**28),  # M_TOP_PAD: grow in large steps
        (-8, 1),  # M_ARENA_MAX: all threads reuse one pool
    ):
        mallopt(option, value)


class _Silence(io.TextIOBase):
    """Takes what is written and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


@dataclasses.dataclass(frozen=True)
class Request:
    """A command to run: its settings as they were resolved, and where.

    Attributes:
      sets: by field, what a run of a sweep has of its own; its folder lies within the sweep's.
    """

    command: str
    settings: Any
    workdir: str
    sets: Mapping[str, str] = dataclasses.field(default_factory=dict)


def resolve(argv: Sequence[str]) -> list[Request]:
    """What is to be run; prints the help that is asked for instead, and gives nothing.

    Raises:
      UserError: the user's mistake, in one line.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return []
    if argv[0] == "--version":
        found = {name: importlib.metadata.version(name) for name in ("forget-jax", "jax", "flax")}
        print(", ".join(f"{name} {version}" for name, version in found.items()))
        return []
    command = argv[0]
    if command not in COMMANDS:
        raise UserError(
            f"unknown command {command!r}{nearest(command, COMMANDS)}; see forget-jax --help"
        )
    given = parse(argv[1:])
    from forget_jax.commands import config as configs
    from forget_jax.commands import settings as tables
    from forget_jax.commands import variants

    table: Any = tables.TABLES[command]
    named = configs.load(given.config or command, command)
    config = tables.as_config(tables.read(table, named)).lock()
    for key, value in given.overrides:
        configs.override(config, key, value)
    if given.wants_help:
        fields = configs.describe(table, config)
        print(f"forget-jax {command}: {COMMANDS[command]}\n\n{fields}", flush=True)
        return []
    asked = variants.expand(config, given.sweeps)
    runs = [(sets, tables.read(table, own)) for sets, own in asked]
    for _, settings in runs:
        check(settings)
    if given.wants_config:
        for _, own in asked:
            print(files.dump_json(configs.plain(own), indent=1), flush=True)
        return []
    if given.dry_run is not None:
        from forget_jax.commands import dry_run

        for sets, settings in runs:
            said = "".join(f"{key}={value}\n" for key, value in sets.items())
            print(said + dry_run.plan(command, settings, given.dry_run), flush=True)
        return []
    if given.sweeps and command in ("doctor", "report"):
        raise UserError(f"{command} makes no run: it takes no --sweep")
    if command == "doctor":  # makes no run, and says itself what is broken
        with contextlib.suppress(Exception):
            _setup_jax(given.distributed)
        return [Request(command, settings, given.workdir or "") for _, settings in runs]
    _setup_jax(given.distributed)
    if given.quiet:  # `main` says what went wrong
        sys.stderr = cast(TextIO, _Silence())
    workdir = given.workdir
    if workdir is None:
        now = time.strftime("%Y%m%d-%H%M%S")
        workdir = distributed.agreed(os.path.join("runs", f"{command}-{now}"))  # noqa: PTH118
        print(f"workdir: {workdir}", file=sys.stderr)
    if given.sweeps:
        variants.check_place(workdir)
    return [
        Request(command, settings, variants.folder(workdir, sets), sets) for sets, settings in runs
    ]


def _quiet_background() -> None:
    """Leaves errors of background threads to the one line that ends the run.

    Orbax logs each with stack traces and raises it again in the main thread; tensorstore calls back
    into event loops that the first error has closed.
    """
    import logging

    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    shown = sys.unraisablehook
    sys.unraisablehook = lambda x: None if str(x.exc_value) == "Event loop is closed" else shown(x)


class _Ending:
    """Turns what ends a command into an exit status and one line; use as a context manager."""

    def __init__(self) -> None:
        self.stderr = sys.stderr
        self.status = 0

    def __enter__(self) -> "_Ending":
        return self

    def __exit__(self, kind: Any, e: BaseException | None, trace: Any) -> bool:
        said = ""
        if distributed.count() == 1:
            sys.stderr = self.stderr  # which --quiet has turned away
        if e is None:
            return False
        if isinstance(e, UserError):
            self.status, said = 2, one_line(str(e))
        elif isinstance(e, KeyboardInterrupt):
            self.status = 130
            said = f"{f'{e}' or 'interrupted'}; start the same command again to resume"
        elif isinstance(e, BrokenPipeError):  # the reader has gone, as in `... --help | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.status = int(distributed.count() > 1)  # the others must not wait for this one
        elif not isinstance(e, Exception):
            return False
        elif distributed.lost_peer(e):
            why = one_line(str(e), 200)
            self.status = 1
            said = f"lost another process ({why}); start the same command again to resume"
        else:
            traceback.print_exception(e, file=self.stderr)
            self.status, said = 1, "internal error; please report the lines above"
        if said:
            print(f"forget-jax: {distributed.who()}{said}", file=self.stderr, flush=True)
        return True


def _run(requests: Sequence[Request], ending: _Ending) -> None:
    """Runs a command, or all runs of a sweep one after the other, whose table grows with each."""
    from forget_jax.commands import driver, variants

    for request in requests if len(requests) > 1 else ():
        driver.check(request.command, request.settings)  # all of them before the first begins
    for number, request in enumerate(requests, 1):
        stopping.check()  # one that came while libraries were read
        if request.sets:
            named = ", ".join(f"{key}={value}" for key, value in request.sets.items())
            print(f"run {number} of {len(requests)}: {named}", file=sys.stderr)
        with driver.opened(request.command, request.settings, request.workdir) as run:
            if run is not None:
                run.end(run.module.run(run.settings, run.work))
        status = driver.status(request.command, request.workdir)
        ending.status = max(ending.status, status)
        if request.sets:
            root = files.Path(request.workdir).parent
            table = variants.write_table(str(root), [one.sets for one in requests])
    if requests[0].sets:
        print(f"table of all runs in {table}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """The console script; returns the exit status. In a run of many processes a failure ends it."""
    if argv is None:
        _quiet_background()
    with stopping.watched(distributed.who), _Ending() as ending:
        requests = resolve(sys.argv[1:] if argv is None else argv)
        if requests and requests[0].command == "doctor":
            from forget_jax.commands import doctor

            ending.status = doctor.run(requests[0].settings, requests[0].workdir)
        elif requests:
            _run(requests, ending)
    if ending.status and distributed.count() > 1:
        distributed.leave(ending.status)
    if argv is None and distributed.count() == 1:  # several wait for each other
        stopping.over(ending.status)
    return ending.status
