"""launch/tpu_pod.sh: a pod is asked for, awaited, used, asked for again and deleted."""

import time
from pathlib import Path

import pytest

TPU = [Path(__file__).parents[2] / "launch/tpu_pod.sh", "--type", "v5litepod-16", "--zone", "z"]


def did(tools):
    """What was done to the pod, in order."""
    kinds = {"create": "create", "delete": "delete", "scp": "copy", "ssh": "run"}
    found = [kinds[c[4]] for c in tools.calls("gcloud") if c[4] in kinds]
    return " ".join(found).replace("copy run run", "train")


GONE = "ERR:NOT_FOUND: Resource was not found"
COMMAND = ["--", "finetune", "--workdir=gs://b/f"]


def test_a_pod_is_made_awaited_used_and_deleted(tools):
    tools.pod([GONE, "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    status, _, err = tools.run(*TPU, *COMMAND)
    assert status == 0, err
    assert did(tools) == "create train delete"


def test_a_preempted_pod_is_asked_for_anew_and_runs_the_same_command(tools):
    states = [GONE, "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDING", "SUSPENDED", GONE]
    tools.pod([*states, "PROVISIONING", "ACTIVE"], [255, 0])
    status, _, err = tools.run(*TPU, "--spot", *COMMAND)
    assert status == 0, err
    assert did(tools) == "create train delete create train delete"
    first, second = [c for c in tools.calls("gcloud") if "bin/forget-jax" in c[-1]]
    assert first == second
    assert all("--spot" in c for c in tools.calls("gcloud") if "create" in c)


def test_a_passing_failure_to_look_is_not_a_preemption(tools):
    tools.pod([GONE, "ACTIVE", "ERR:network is unreachable", "ACTIVE"], [255, 0])
    status, _, err = tools.run(*TPU, *COMMAND)
    assert status == 0 and "network is unreachable" in err
    assert did(tools) == "create train train delete"


@pytest.mark.parametrize(
    ("keep", "done"), [([], "create train delete"), (["--keep"], "create train")]
)
def test_a_command_that_fails_on_a_sound_pod_is_not_repeated(tools, keep, done):
    tools.pod([GONE, "ACTIVE"], [2])
    status, _, err = tools.run(*TPU, *keep, *COMMAND)
    assert status == 2 and "failed on a pod that is still there" in err
    assert did(tools) == done


def test_a_pod_that_cannot_be_had_ends_the_script(tools):
    tools.pod([GONE, "ACCEPTED", "FAILED"])
    status, _, err = tools.run(*TPU, *COMMAND)
    assert status == 2 and "there is no forget-jax to be had" in err
    assert did(tools) == "create delete"


def test_a_stopped_script_deletes_its_pod(tools):
    tools.pod([GONE, "ACTIVE"])
    scripted = (tools.folder / "gcloud.does").read_text()
    tools.does("gcloud", f'[[ "$*" != *bin/forget-jax* ]] || exec sleep 60\n{scripted}')
    process = tools.start(*TPU, *COMMAND)
    while "train" not in did(tools):
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert did(tools) == "create train delete"
