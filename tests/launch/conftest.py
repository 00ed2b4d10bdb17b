"""Stand-ins for the tools that the scripts of launch/ call."""

import os
import shlex
import subprocess

import pytest

# Notes its own name and words, then does what NAME.does says. Parts run at once, and a long note is
# written in pieces: one at a time.
STAND_IN = """#!/usr/bin/env bash
name=$(basename "$0")
(flock 9; printf '%s\\x1f' "$name" "$@" >&9; printf '\\x1e' >&9) 9>> {log}
if [[ -f {folder}/$name.does ]]; then source {folder}/$name.does; fi
"""

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


TOOLS = ("gcloud", "xpk", "kubectl", "sbatch", "squeue", "srun", "scontrol", "tar", "forget-jax")


class Tools:
    """A folder of stand-ins, the first of PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir()
        for name in TOOLS:
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

    def pod(self, states, statuses=(0,)):
        """gcloud: a pod in these states, then those, whose commands end with these statuses."""
        (self.folder / "states").write_text("".join(f"{s}\n" for s in states))
        (self.folder / "statuses").write_text("".join(f"{s}\n" for s in statuses))
        self.does("gcloud", SCRIPTED.format(folder=shlex.quote(str(self.folder))))


@pytest.fixture
def tools(tmp_path):
    return Tools(tmp_path / "tools")
