"""A second start of the same config finds every program compiled."""

import json
import os
import subprocess
import sys

COUNT = """
import collections, json, sys
from jax import monitoring
events = collections.Counter()
monitoring.register_event_listener(lambda event, **_: events.update([event.split("/")[-1]]))
from forget_jax import cli
status = cli.main(sys.argv[1:])
print(json.dumps({"status": status, **events}))
"""


def test_a_second_start_compiles_nothing(associate_arguments, data_files, tmp_path):
    """Neither to train nor to score."""
    fields = (f"tasks={data_files.tasks[0]}", "tasks_together=1", "repeat_tasks=0")
    argv = [*associate_arguments, *(f"--config.{field}" for field in fields)]
    env = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    env = {k: v for k, v in env.items() if "PERSISTENT_CACHE" not in k}

    def start(name):
        work = f"--workdir={tmp_path / name}"
        return subprocess.run(
            [sys.executable, "-c", COUNT, *argv, work],
            env=env | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
        )

    found = []
    for name in ("first", "second"):
        done = start(name)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        assert found[-1]["status"] == 0, done.stderr
    first, second = found
    requests = "compile_requests_use_cache"
    assert first["cache_misses"] == first[requests] > 5  # it counts
    assert second["cache_hits"] == second[requests] == first[requests]
    assert "cache_misses" not in second
