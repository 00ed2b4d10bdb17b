"""Score files of lm-evaluation-harness: the folder that `--output_path --log_samples` writes.

It holds `samples_TASK_DATE.jsonl`, a record a document and filter: `arguments` (context and
continuation of every request), `filtered_resps` (text: log-likelihood and whether greedy decoding
gives it), `target`, hashes of document and prompt, and the metrics (read from version 0.4.13's
files). Tokens are not counted there.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import files, foreign
from forget_jax.errors import UserError

NAME = re.compile(r"samples_(.+)_(\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
RIGHT = ("acc", "exact_match", "em", "acc_norm")  # the first that is 0 or 1 says what is right
Count = Callable[[str, str], int]  # target tokens of a context and its continuation


def samples(folder: files.Path) -> dict[str, files.Path]:
    """The newest file of each task, in the folder or in the only one within that has any."""
    here = _newest(folder)
    if here:
        return here
    inner = [found for one in sorted(folder.iterdir()) if one.is_dir() and (found := _newest(one))]
    if len(inner) > 1:
        names = ", ".join(next(iter(found.values())).parent.name for found in inner)
        raise UserError(f"{folder} holds samples of several models ({names}): give one's folder")
    return inner[0] if inner else {}


def _newest(folder: files.Path) -> dict[str, files.Path]:
    found: dict[str, tuple[str, files.Path]] = {}
    for file in folder.iterdir():
        if match := NAME.fullmatch(file.name):
            found[match[1]] = max(found.get(match[1], ("", file)), (match[2], file), key=_date)
    return {task: file for task, (_, file) in sorted(found.items())}


def _date(dated: tuple[str, files.Path]) -> str:
    return dated[0]


def read(folder: files.Path, count: Count | None = None) -> pd.DataFrame:
    """A row for every document: columns as `integrations.score_files.COLUMNS`.

    Args:
      folder: of one model.
      count: counts target tokens; None leaves them unknown.

    Raises:
      UserError: no samples, or a record that is none of the harness's; names file and line.
    """
    rows = [
        row for task, file in samples(folder).items() for row in _rows(task, str(file), file, count)
    ]
    return pd.DataFrame(rows)


def _rows(
    task: str, where: str, file: files.Path, count: Count | None
) -> Iterator[dict[str, object]]:
    lines = enumerate(foreign.decode(file.read_bytes(), where).split("\n"), 1)
    records = [
        (f"{where}, line {i}", foreign.record(foreign.parse(line, where, i), f"{where}, line {i}"))
        for i, line in lines
        if line.strip()
    ]
    filters = {str(record.get("filter", "none")) for _, record in records}
    for at, record in records:
        doc = foreign.field(record, "doc_id", int, at)
        name = task if len(filters) == 1 else f"{task}/{record.get('filter')}"
        asked = _asked(record, at)
        nll, gold = _nll(record, asked, at)
        context, target = asked[gold if gold is not None else 0]
        tokens = count(context, target) if count is not None and nll is not None else None
        options = _options(record, asked, at)
        yield {
            "set": name,
            "example": f"{name}#{doc}",
            "nll": np.nan if nll is None else nll,
            "tokens": np.nan if tokens is None else tokens,
            "correct": _right(record),
            "options": np.nan if options is None else options,
            "text": f"{context}{target}",
            "key": _key(record),
        }


def _key(record: Mapping[str, Any]) -> str:
    """What was asked: equal where two models were given the same."""
    hashes = [str(record.get(f"{what}_hash", "")) for what in ("doc", "prompt", "target")]
    return " ".join(hashes)


def _asked(record: Mapping[str, Any], at: str) -> list[tuple[str, str]]:
    """Context and continuation of every request; the context is empty in rolling ones."""
    given = record.get("arguments")
    if isinstance(given, Mapping):  # as written by version 0.4.2 and later
        requests = [list(args.values()) for args in given.values() if isinstance(args, Mapping)]
    else:
        requests = [list(args) for args in given or () if isinstance(args, list | tuple)]
    if not requests or not all(args and isinstance(args[0], str) for args in requests):
        raise UserError(f"{at}: no `arguments` of requests: not a sample of --log_samples")
    return [
        (args[0], args[1]) if len(args) > 1 and isinstance(args[1], str) else ("", args[0])
        for args in requests
    ]


def _likelihoods(record: Mapping[str, Any], at: str) -> list[float] | None:
    """Log-likelihood of every request; None where text was generated."""
    answers = record.get("filtered_resps")
    if not isinstance(answers, list) or not answers:
        raise UserError(f"{at}: no `filtered_resps`: not a sample of --log_samples")
    if _generated(record):
        return None
    found = []
    for answer in answers:
        value = answer[0] if isinstance(answer, list | tuple) and answer else answer
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            return None
    return found


def _generated(record: Mapping[str, Any]) -> bool:
    """Whether the request was to generate: its second argument is then a group of settings."""
    given = record.get("arguments")
    first = next(iter(given.values()), None) if isinstance(given, Mapping) else None
    return isinstance(first, Mapping) and isinstance(first.get("arg_1"), Mapping)


def _choices(asked: Sequence[tuple[str, str]]) -> int:
    """Options of a document: requests but those of a second pass with an empty context."""
    half = len(asked) // 2
    if half and all(not context for context, _ in asked[half:]) and asked[0][0]:
        return half
    return len(asked)


def _options(record: Mapping[str, Any], asked: Sequence[tuple[str, str]], at: str) -> int | None:
    count = _choices(asked)
    return count if count > 1 and _likelihoods(record, at) is not None else None


def _nll(
    record: Mapping[str, Any], asked: Sequence[tuple[str, str]], at: str
) -> tuple[float | None, int | None]:
    """NLL of the right continuation in nats, and its number; None where that is not known."""
    found = _likelihoods(record, at)
    if found is None:
        return None, None
    if len(asked) == 1:
        return -found[0], 0
    target = str(record.get("target", ""))
    if target.isdecimal() and int(target) < _choices(asked):
        return -found[int(target)], int(target)
    said = [i for i, (_, text) in enumerate(asked) if text.strip() == target.strip()]
    return (-found[said[0]], said[0]) if len(said) == 1 else (None, None)


def _right(record: Mapping[str, Any]) -> float:
    for name in RIGHT:
        value = record.get(name)
        if isinstance(value, int | float) and value in (0, 1):
            return float(value)
    return np.nan
