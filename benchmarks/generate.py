"""Greedy generation against transformers, in one run: new tokens a second, and the same words.

    python benchmarks/generate.py [--quick] [--json PATH] [--shape small|tiny|smollm2]

Both sides continue the beginnings of the same documents by so many tokens, 32 prompts at a time,
sorted by length; nothing ends a continuation before. The peer is `generate` of transformers with
its default cache. On CPU the model has 5.3 M parameters, or is SmolLM2-135M with its own weights
and words (`--shape=smollm2`: fewer prompts); on an accelerator it is Llama's 1 B, random weights in
bfloat16.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from forget_jax.benchmarks import table, world
from forget_jax.benchmarks.finetune import no_peer
from forget_jax.benchmarks.shapes import CPU_SHAPES, FEWER, SHAPES
from forget_jax.benchmarks.side import Side
from forget_jax.benchmarks.table import Found, Keep
from forget_jax.data.tokenise import Encoded

BATCH = 32  # prompts at a time
LONGEST = 64  # tokens of a prompt; the shortest have a quarter of it
# With --quick and without:
ROUNDS = (3, 5)
PROMPTS = (64, 128)
NEW = (32, 64)  # tokens


def prompts(documents: Sequence[Encoded], count: int, longest: int) -> list[Encoded]:
    """Beginnings of documents, of a quarter of the longest up to it, in turns."""
    lengths = [longest * (1 + i % 4) // 4 for i in range(count)]
    some = [documents[i % len(documents)] for i in range(count)]
    return [
        Encoded(e.name, e.source, e.ids[:n], e.is_target[:n])
        for e, n in zip(some, lengths, strict=True)
    ]


def agreement(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> float:
    """The share of prompts that both sides continue alike to the last token."""
    return sum(list(x) == list(y) for x, y in zip(a, b, strict=True)) / len(a)


def run(quick: bool = False, shape: str = "small", keep: Keep = table.at_once) -> Found:
    """Measures both sides and returns `rows`, `ratio` and `notes`.

    Args:
      shape: the model on CPU.
      keep: of `table.measure`.
    """
    why = no_peer()
    with tempfile.TemporaryDirectory() as folder:
        loading = {"folder": folder, "shape": shape, "rank": 8, "random": False}
        with Side("ours", loading) as probe:
            about = probe.ask("about")
        if about["backend"] != "cpu":
            loading |= {"shape": "1b", "random": True}
        shape = str(loading["shape"])
        where, _, documents = world.encode(SHAPES[shape])
        new = min(NEW[not quick], SHAPES[shape].context // 2)
        longest = min(LONGEST, SHAPES[shape].context - new)
        count = PROMPTS[not quick] // FEWER.get(shape, 1)
        world.save(Path(folder) / "prompts.npz", prompts(documents, count, longest))
        given: dict[str, Any] = {"rows": "prompts", "new_tokens": new, "batch_size": BATCH}
        setting = f"{count} prompts of up to {longest} tokens, {new} new"
        with Side("ours", loading) as ours, Side("peer", loading) as peer:
            sides = {"forget_jax": ours} if why else {"forget_jax": ours, "transformers": peer}

            def measure(_: Found) -> Found:
                turns = {
                    name: lambda _, side=side: side.measured("generate", **given)
                    for name, side in sides.items()
                }
                done = table.alternate(turns, ROUNDS[not quick])
                found: Found = {"rows": [], "ratio": {}, "notes": []}
                for name, taken in done.items():
                    found["rows"].append(table.summarise(name, setting, taken))
                if why is None:
                    found["ratio"]["transformers"] = table.ratio(*done.values())
                    same = agreement(*(taken[0]["said"] for taken in done.values()))
                    found["notes"].append(f"{same:.0%} of the prompts are continued alike")
                    found["notes"].append(peer.ask("about")["system"])
                return found

            found = table.measure({"greedy": measure}, keep)
    about_all = [f"{about['device']}, {about['system']}", f"documents of {where}"]
    found["notes"] = [*([why] if why else []), *about_all, *found["notes"]]
    return found


if __name__ == "__main__":
    table.main(__doc__, run, shape=CPU_SHAPES)
