"""vLLM's prompt log-probabilities: JSONL of its request outputs or of its server's answers.

A line is what `LLM.generate` returns (`prompt`, `prompt_token_ids`, `prompt_logprobs`), an answer
of `/v1/completions` or `/v1/chat/completions`, or a line of a batch's output (`custom_id`,
`response.body`), asked with `prompt_logprobs` of 0 or more. `prompt_logprobs` holds null for the
first token, and for each other one an object from token ids to `logprob`, `rank`, `decoded_token`.
Beside these a line may hold `name`, `source` (its set) and `context_tokens`: how many tokens at the
beginning are no targets.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from forget_jax import files, foreign
from forget_jax.errors import UserError


def read(path: files.Path) -> pd.DataFrame:
    """A row for every line: columns as `integrations.score_files.COLUMNS`.

    Raises:
      UserError: a line without prompt log-probabilities, or with several tokens at a position and
        nothing that says which was the prompt's; names file and line.
    """
    text = foreign.decode(path.read_bytes(), str(path))
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            at = f"{path}, line {number}"
            held = foreign.record(foreign.parse(line, str(path), number), at)
            rows.append(_row(held, at, path.stem, number))
    return pd.DataFrame(rows)


def _row(held: Mapping[str, Any], at: str, stem: str, number: int) -> dict[str, object]:
    asked = _where(held, at)
    ids = asked.get("prompt_token_ids") or held.get("prompt_token_ids")
    logprobs = foreign.field(asked, "prompt_logprobs", list, at)
    if ids is not None and (not isinstance(ids, list) or len(ids) != len(logprobs)):
        raise UserError(f"{at}: prompt_token_ids are not as many as prompt_logprobs")
    context = max(1, foreign.field(held, "context_tokens", int, at, 1, least=0))
    found = [
        _token(position, None if ids is None else ids[i], f"{at}, token {i}")
        for i, position in enumerate(logprobs)
        if i >= context
    ]
    if not found:
        raise UserError(f"{at}: no token after the first {context} has a log-probability")
    name = held.get("name") or held.get("custom_id") or f"{stem}#{number - 1}"
    chosen = " ".join(token for token, _, _ in found)
    source = held.get("source")
    return {
        "set": str(source) if source else stem,
        "example": str(name),
        "nll": -math.fsum(logprob for _, logprob, _ in found),
        "tokens": len(found),
        "correct": np.nan,
        "options": np.nan,
        "text": str(held.get("prompt") or "".join(word for _, _, word in found)),
        "key": chosen,
    }


def _where(held: Mapping[str, Any], at: str) -> Mapping[str, Any]:
    """The object that has the log-probabilities."""
    body: Any = held
    if isinstance(held.get("response"), Mapping):
        body = held["response"].get("body", held["response"])
    choices = body.get("choices") if isinstance(body, Mapping) else None
    places = [held, body, *(choices if isinstance(choices, list) else [])]
    for place in places:
        if isinstance(place, Mapping) and place.get("prompt_logprobs") is not None:
            return place
    raise UserError(f"{at}: no prompt_logprobs; ask vLLM for them (prompt_logprobs=0)")


def _token(position: Any, token: Any, at: str) -> tuple[str, float, str]:
    """The prompt's token at a position: its id, log-probability and text."""
    if not isinstance(position, Mapping) or not position:
        raise UserError(f"{at}: no log-probability")
    if token is not None:
        key = str(token)
        if key not in position:
            raise UserError(f"{at}: prompt_logprobs lack the prompt's own token {key}")
    elif len(position) == 1:
        key = next(iter(position))
    else:
        raise UserError(
            f"{at}: prompt_logprobs hold several tokens, and nothing says which was the prompt's; "
            "ask vLLM for prompt_logprobs=0, or keep prompt_token_ids (return_token_ids)"
        )
    held = position[key]
    if isinstance(held, Mapping):
        value = foreign.field(held, "logprob", float, at)
        return key, value, str(held.get("decoded_token") or "")
    return key, foreign.field({"logprob": held}, "logprob", float, at), ""
