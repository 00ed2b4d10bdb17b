"""Conversations through a tokenizer's own chat template, with a limit of time, memory and size.

transformers renders, in a process of its own (`rendering_child`), which is started once and ended
where a template does not come to an end.
"""

import atexit
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from forget_jax import stopping
from forget_jax.errors import UserError

SECONDS = 10.0  # of a processor that one rendering may take
WAITED = 90.0  # seconds in which these have passed on a busy machine, or never will
STARTING = 120.0  # that the process may take to start, on a busy machine
LARGE, LONGER = 2**26, 16  # bytes of a request's answers, and how many more for a character given
CHILD = Path(__file__).with_name("rendering_child.py")

Messages = Sequence[tuple[str, str]]


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
      text: what the template makes of it.
      spans: where in it the template says that the model speaks (`{% generation %}`).
      error: what went wrong, for people; empty where nothing did.
    """

    text: str
    spans: list[tuple[int, int]]
    error: str = ""

    def check(self) -> None:
        """Raises UserError where the template has failed."""
        if self.error:
            raise UserError(self.error)

    def checked(self) -> str:
        """The text; raises UserError where the template has failed."""
        self.check()
        return self.text


class Job(NamedTuple):
    """What is rendered: some turns, with the beginning of an answer after them or without.

    Attributes:
      where: names the conversation for people.
    """

    where: str
    messages: Messages
    prompt: bool = False


def render(tokenizer: Any, jobs: Sequence[Job]) -> list[Rendered]:
    """Renders conversations; what a template says against one is in its `error`.

    Args:
      tokenizer: of transformers, with a chat template.

    Raises:
      UserError: the template cannot be used, or takes more time or memory than it may.
    """
    if not jobs:
        return []
    request = {
        "template": _template(tokenizer),
        "seconds": SECONDS,
        "special": {name: _plain(x) for name, x in tokenizer.special_tokens_map.items()},
        "jobs": [
            {"messages": [{"role": r, "content": c} for r, c in job.messages], "prompt": job.prompt}
            for job in jobs
        ],
    }
    given = sum(len(content) for job in jobs for _, content in job.messages)
    answers = _child().ask(json.dumps(request), len(jobs), LARGE + LONGER * given)
    return [_rendered(job, answer) for job, answer in zip(jobs, answers, strict=False)]


def _rendered(job: Job, answer: dict[str, Any] | None) -> Rendered:
    if answer is None:
        raise UserError(
            f"{job.where}: the tokenizer's chat template takes over {SECONDS:.0f} seconds or all "
            "memory it may have"
        )
    error = answer.get("error", "")
    if error:
        error = f"{job.where}: the tokenizer's chat template fails: {error}"
    return Rendered(answer.get("text", ""), [(a, b) for a, b in answer.get("spans", ())], error)


def _template(tokenizer: Any) -> str:
    try:
        template = tokenizer.get_chat_template()
    except (ValueError, TypeError, AttributeError, KeyError) as e:
        raise UserError(
            f"the tokenizer's chat template cannot be used: {' '.join(str(e).split())[:200]}"
        ) from e
    if not isinstance(template, str):
        raise UserError("the tokenizer's chat template cannot be used: it is no text")
    return template


def _plain(token: Any) -> Any:
    """A special token, or a list of them, as text."""
    return [str(x) for x in token] if isinstance(token, list | tuple) else str(token)


class _Child:
    """The process that renders.

    It is told where to find packages, and looks for none in the working folder, where a file may
    have a package's name.
    """

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.pid = os.getpid()  # a process that forks makes one of its own
        self.read = b""
        self.selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        if self._line(STARTING) is None:
            self.end()
            raise UserError("the process that renders chat templates does not start")

    def ask(self, request: str, count: int, most: int) -> list[dict[str, Any] | None]:
        """The answers to the jobs of a request; the last is None where the process was ended.

        Args:
          count: of the jobs.
          most: characters of all answers.
        """
        assert self.process.stdin is not None
        found: list[dict[str, Any] | None] = []
        try:
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()
            while len(found) < count:
                stopping.check()
                line = self._line(WAITED)
                most -= len(line or b"")
                if line is None or most < 0:
                    break
                found.append(json.loads(line))
        except BrokenPipeError:
            pass
        except BaseException:
            self.end()  # answers that were not read are none to the next request
            raise
        if len(found) < count:
            self.end()
            found.append(None)
        return found

    def _line(self, seconds: float) -> bytes | None:
        """The next line, or None where none comes in time or the process has ended."""
        assert self.process.stdout is not None
        while b"\n" not in self.read:
            if not self.selector.select(seconds):
                return None
            more = os.read(self.process.stdout.fileno(), 1 << 20)
            if not more:
                return None
            self.read += more
        line, _, self.read = self.read.partition(b"\n")
        return line

    def end(self) -> None:
        """Ends the process."""
        global _running
        _running = None
        self.selector.close()
        self.process.kill()
        self.process.communicate()


_running: _Child | None = None


def _child() -> _Child:
    global _running
    if _running is None or _running.pid != os.getpid() or _running.process.poll() is not None:
        _running = _Child()
    return _running


@atexit.register
def _end() -> None:
    if _running is not None and _running.pid == os.getpid():
        _running.end()
