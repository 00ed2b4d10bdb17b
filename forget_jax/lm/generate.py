"""Greedy decoding in batches with a key-value cache; ragged prompts, EOS and stop strings.

Prompts are right-padded to a bucket's length. Every key lies in the cache at its own position, so a
row's first generated tokens overwrite its padding and no mask has to remember it. Each bucket shape
compiles once: one program for the prompt, one that decodes up to a number of tokens.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax.errors import UserError
from forget_jax.lm import sharding
from forget_jax.lm.decoder import DecoderConfig, Params, empty_cache, head, hidden_and_cache
from forget_jax.lm.logprob import logits

STOP_EVERY = 16  # tokens between two looks at the text for stop strings
SHORTEST = 16  # the smallest bucket of prompt lengths

State = dict[str, Any]


@functools.partial(jax.jit, static_argnames=("config", "new"))
def _prefill(
    config: DecoderConfig,
    params: Params,
    adapters: Params | None,
    ids_BxL: jax.Array,
    length_B: jax.Array,
    task_BxM: jax.Array | None,
    new: int,
) -> State:
    """Reads the prompts into a cache with room for `new` tokens, and chooses the first of them."""
    B, L = ids_BxL.shape
    empty = empty_cache(config, B, L + new)
    h_BxLxD, cache = hidden_and_cache(
        config, params, adapters, ids_BxL, task_BxM=task_BxM, cache=empty
    )
    last_Bx1xD = jnp.take_along_axis(h_BxLxD, length_B[:, None, None] - 1, axis=1)
    return {
        "cache": cache,
        "logits_BxV": logits(last_Bx1xD, head(params))[:, 0],
        "position_B": length_B,
        "done_B": jnp.zeros(B, bool),
    }


@functools.partial(jax.jit, static_argnames=("config", "steps"), donate_argnames="state")
def _decode(
    config: DecoderConfig,
    params: Params,
    adapters: Params | None,
    state: State,
    eos_E: jax.Array,
    task_BxM: jax.Array | None,
    steps: int,
) -> tuple[State, jax.Array]:
    """Up to `steps` further tokens per row, out_BxT (-1 after a row's end); stops when all did."""
    B = state["done_B"].shape[0]

    def step(carry: tuple[jax.Array, State, jax.Array]) -> tuple[jax.Array, State, jax.Array]:
        t, s, out_BxT = carry
        token_B = jnp.argmax(s["logits_BxV"], axis=-1).astype(jnp.int32)
        done_B = s["done_B"] | jnp.isin(token_B, eos_E)
        out_BxT = out_BxT.at[:, t].set(jnp.where(done_B, -1, token_B))
        h_Bx1xD, cache = hidden_and_cache(
            config,
            params,
            adapters,
            token_B[:, None],
            s["position_B"][:, None],
            task_BxM=task_BxM,
            cache=s["cache"],
        )
        new: State = {
            "cache": cache,
            "logits_BxV": logits(h_Bx1xD, head(params))[:, 0],
            "position_B": s["position_B"] + 1,
            "done_B": done_B,
        }
        return t + 1, new, out_BxT

    def going(carry: tuple[jax.Array, State, jax.Array]) -> jax.Array:
        return (carry[0] < steps) & ~carry[1]["done_B"].all()

    start = (jnp.zeros((), jnp.int32), state, jnp.full((B, steps), -1, jnp.int32))
    _, state, out_BxT = jax.lax.while_loop(going, step, start)
    # every process looks at what was said
    return {**state, "done_B": sharding.replicate(state["done_B"])}, sharding.replicate(out_BxT)


def _bucket(n: int, smallest: int) -> int:
    """The next power of two, at least `smallest`."""
    return max(smallest, 1 << (n - 1).bit_length())


def greedy(
    config: DecoderConfig,
    params: Params,
    adapters: Params | None,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    eos_id: int | Sequence[int] | None = None,
    batch_size: int = 32,
    tasks_NxM: np.ndarray | None = None,
    stop: Sequence[str] = (),
    decode: Callable[[list[int]], str] | None = None,
) -> list[list[int]]:
    """The most likely next token, over and over, for each prompt.

    Prompts of like length share a batch. The result does not depend on the batch a prompt is in.

    Args:
      adapters: scaled ones (`lora.scaled`), or None.
      eos_id: the token or tokens that end a text; they are not part of the result.
      tasks_NxM: one-hot choice of adapter per prompt where `adapters` have a task axis.
      stop: texts that end a continuation; it is cut after the token that completes one. Cutting the
        text itself is `cut_at`.
      decode: token ids to text; needed with `stop`.

    Returns:
      The new token ids of each prompt, in the order of the prompts.

    Raises:
      UserError: an empty prompt, or one that leaves no room for `max_new_tokens` in the context.
    """
    if stop and decode is None:
        raise ValueError("stop strings need `decode`, from token ids to text")
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} is empty: put a beginning-of-sequence token before it")
        if len(prompt) + max_new_tokens > config.context:
            raise UserError(
                f"prompt {i} has {len(prompt)} tokens: with max_new_tokens={max_new_tokens} that "
                f"is over the model's context of {config.context}; shorten either"
            )
    eos = [] if eos_id is None else np.atleast_1d(eos_id).tolist()
    eos_E = jnp.asarray(eos or [-1], jnp.int32)
    out: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    buckets: dict[int, list[int]] = {}
    for i in order:
        buckets.setdefault(_bucket(len(prompts[i]), SHORTEST), []).append(i)
    for length, members in buckets.items():
        rows = min(batch_size, _bucket(len(members), 1))
        for start in range(0, len(members), rows):
            batch = members[start : start + rows]
            padded = batch + batch[-1:] * (rows - len(batch))
            ids_BxL = np.zeros((rows, length), np.int32)
            for row, i in enumerate(padded):
                ids_BxL[row, : len(prompts[i])] = prompts[i]
            length_B = np.array([len(prompts[i]) for i in padded], np.int32)
            task_BxM = None if tasks_NxM is None else jnp.asarray(tasks_NxM[padded], jnp.float32)
            state = _prefill(config, params, adapters, ids_BxL, length_B, task_BxM, max_new_tokens)
            new = _continue(
                config, params, adapters, state, eos_E, task_BxM, max_new_tokens, stop, decode
            )
            for row, i in enumerate(batch):
                out[i] = new[row]
    return out


def _continue(
    config: DecoderConfig,
    params: Params,
    adapters: Params | None,
    state: State,
    eos_E: jax.Array,
    task_BxM: jax.Array | None,
    max_new_tokens: int,
    stop: Sequence[str],
    decode: Callable[[list[int]], str] | None,
) -> list[list[int]]:
    """Decodes one batch to its end; with stop strings, looks at the text now and then."""
    rows: list[list[int]] = [[] for _ in range(state["done_B"].shape[0])]
    done = 0
    while done < max_new_tokens:
        steps = min(STOP_EVERY, max_new_tokens - done) if stop else max_new_tokens
        state, out_BxT = _decode(config, params, adapters, state, eos_E, task_BxM, steps)
        done += steps
        finished = np.array(state["done_B"])
        for r, new in enumerate(np.asarray(out_BxT)):
            kept = [int(t) for t in new if t >= 0]
            if stop and decode is not None and not (finished[r] and not kept):
                cut = _first_stop(rows[r] + kept, len(rows[r]), stop, decode)
                if cut is not None:
                    rows[r], finished[r] = (rows[r] + kept)[:cut], True
                    continue
            rows[r] += kept
        state["done_B"] = finished  # on the host: the same on every process
        if finished.all():
            break
    return rows


def _first_stop(
    ids: list[int], known: int, stop: Sequence[str], decode: Callable[[list[int]], str]
) -> int | None:
    """How many tokens there are up to the first whose text completes a stop string."""
    if not any(s in decode(ids) for s in stop):
        return None
    return next(n for n in range(known, len(ids) + 1) if any(s in decode(ids[:n]) for s in stop))


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((text.find(s) for s in stop if s in text), default=len(text))]


def answers(
    config: DecoderConfig,
    params: Params,
    adapters: Params | None,
    prompts: Sequence[Sequence[int]],
    tokenizer: Any,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    batch_size: int = 32,
) -> list[str]:
    """The text that greedy decoding puts after each prompt, up to EOS, a stop string or the length.

    Args and errors are those of `greedy`; special tokens are no part of the text.
    """

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    new = greedy(
        config,
        params,
        adapters,
        prompts,
        max_new_tokens,
        tokenizer.eos_token_id,
        batch_size,
        stop=stop,
        decode=decode,
    )
    return [cut_at(decode(ids), stop) for ids in new]
