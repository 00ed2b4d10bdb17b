"""The process that renders chat templates: `python -m forget_jax.data.rendering_child`.

A template is a program out of somebody's checkpoint: it may loop for ever or fill the memory. Here
it can do neither to the run: memory is limited, and the parent ends a process that takes long.
"""

import json
import resource
import sys
from typing import Any

ROOM = 2**30  # bytes that templates may take beyond what the process has
LONGEST = 2**23  # characters of a rendered conversation


def main() -> None:
    """Answers a line of JSON with a line for each of its jobs, until the input ends."""
    from transformers.utils import chat_template_utils

    with open("/proc/self/statm") as f:  # noqa: PTH123
        taken = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    out = sys.stdout
    sys.stdout = sys.stderr  # what a library prints is no answer
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        for job in request["jobs"]:
            print(json.dumps(_rendered(chat_template_utils, request, job)), file=out, flush=True)


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
