"""launch/slurm.sh and the job it queues."""

import time
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
SLURM = [LAUNCH / "slurm.sh"]


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


@pytest.mark.fault("values of the environment in launch scripts", "as it should be")
@pytest.mark.parametrize("name", ["SLURM_JOB_END_TIME", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"])
@pytest.mark.parametrize("value", ["a[$(touch {0})]", "$(touch {0})", "0;touch {0}", "x", "09"])
def test_a_job_takes_no_value_of_the_environment_as_a_program(tools, tmp_path, name, value):
    tools.does("srun", "exit 130")
    ran = tmp_path / "ran"
    env = {"SLURM_JOB_END_TIME": "0", "SLURM_JOB_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}
    status, _, err = tools.run(
        LAUNCH / "slurm_job.sh", "forget-jax", **env | {name: value.format(ran)}
    )
    assert (status, err) == (130, "") and not ran.exists()
    if name == "SLURM_ARRAY_TASK_ID":
        assert tools.calls("srun")[0][-1] == f"--config.part={value.format(ran)}/8"
