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
from typing import Any, NamedTuple

from forget_jax.errors import UserError

SECONDS = 10.0  # that one rendering may take
STARTING = 120.0  # that the process may take to start, on a busy machine

Messages = Sequence[tuple[str, str]]


class Rendered(NamedTuple):
    """A conversation as text.

    Attributes:
      text: what the template makes of it.
      spans: where in it the template says that the model speaks (`{% generation %}`).
    """

    text: str
    spans: list[tuple[int, int]]


class Job(NamedTuple):
    """What is rendered: some turns, with the beginning of an answer after them or without."""

    messages: Messages
    prompt: bool = False


def render(tokenizer: Any, jobs: Sequence[Job], where: str) -> list[Rendered]:
    """Renders conversations.

    Args:
      tokenizer: of transformers, with a chat template.
      where: names the conversation for people.

    Raises:
      UserError: the template cannot be used, raises an error (told in its own words), or takes more
        time or memory than it may.
    """
    try:
        template = tokenizer.get_chat_template()
    except (ValueError, TypeError, AttributeError, KeyError) as e:
        raise UserError(
            f"the tokenizer's chat template cannot be used: {' '.join(str(e).split())[:200]}"
        ) from e
    if not isinstance(template, str):
        raise UserError("the tokenizer's chat template cannot be used: it is no text")
    request = {
        "template": template,
        "special": {name: str(x) for name, x in tokenizer.special_tokens_map.items()},
        "jobs": [
            {"messages": [{"role": r, "content": c} for r, c in job.messages], "prompt": job.prompt}
            for job in jobs
        ],
    }
    found = []
    for answer in _child().ask(json.dumps(request), len(jobs), where):
        if "error" in answer:
            raise UserError(f"{where}: the tokenizer's chat template fails: {answer['error']}")
        found.append(Rendered(answer["text"], [(a, b) for a, b in answer["spans"]]))
    return found


class _Child:
    """The process that renders."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forget_jax.data.rendering_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TRANSFORMERS_VERBOSITY": "error"},
        )
        self.pid = os.getpid()  # a process that forks makes one of its own
        self.read = b""
        self.selector = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.selector.register(self.process.stdout, selectors.EVENT_READ)
        if self._line(STARTING) is None:
            self.end()
            raise UserError("the process that renders chat templates does not start")

    def ask(self, request: str, count: int, where: str) -> list[dict[str, Any]]:
        """The answers to the jobs of a request."""
        assert self.process.stdin is not None
        self.process.stdin.write(request.encode() + b"\n")
        self.process.stdin.flush()
        found = []
        for _ in range(count):
            line = self._line(SECONDS)
            if line is None:
                self.end()
                raise UserError(
                    f"{where}: the tokenizer's chat template takes over {SECONDS:.0f} seconds or "
                    "all memory it may have"
                )
            found.append(json.loads(line))
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
