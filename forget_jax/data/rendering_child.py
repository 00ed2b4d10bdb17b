"""The process that renders chat templates, run by `forget_jax.data.rendering` as a script.

A template is a program out of somebody's checkpoint: it may loop for ever or fill the memory. Here
it can do neither to the run: memory is limited, and a timer ends a process that takes long. The end
of the input ends it too; signals that end a run are for the parent alone.
"""

import contextlib
import json
import resource
import signal
import sys
from typing import Any

ROOM = 2**30  # bytes that templates may take beyond what the process has
LONGEST = 2**23  # characters of a rendered conversation


def main() -> None:
    """Answers a line of JSON with a line for each of its jobs, until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from transformers.utils import chat_template_utils

    _limit()
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        for job in request["jobs"]:
            signal.setitimer(signal.ITIMER_PROF, request["seconds"])
            print(json.dumps(_rendered(chat_template_utils, request, job)), file=out, flush=True)
            signal.setitimer(signal.ITIMER_PROF, 0)


def _limit() -> None:
    """Limits the memory, where the system says how much is taken."""
    with contextlib.suppress(FileNotFoundError), open("/proc/self/statm") as f:  # noqa: PTH123
        taken = int(f.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))


def _rendered(utils: Any, request: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """The text and the spans that the template marks as generated, or what went wrong."""
    template = request["template"]
    try:
        texts, spans = utils.render_jinja_template(
            [job["messages"]],
            chat_template=template,
            return_assistant_tokens_mask="generation" in template,
            add_generation_prompt=job["prompt"],
            **request["special"],
        )
    except MemoryError:
        return {"error": "it takes over 1 GiB"}
    except RecursionError:
        return {"error": "it calls itself without an end"}
    except Exception as e:  # jinja2 raises what the template makes it raise
        return {"error": f"{' '.join(str(e).split())[:300] or type(e).__name__}"}
    if len(texts[0]) > LONGEST:
        return {"error": f"it makes {len(texts[0])} characters of one conversation"}
    return {"text": texts[0], "spans": spans[0] if spans else []}


if __name__ == "__main__":
    main()
