"""Decoding in batches with a key-value cache, greedy or sampled; ragged prompts, EOS, stop strings.

Prompts are right-padded to a bucket's length. Every key lies in the cache at its own position, so a
row's first generated tokens overwrite its padding and no mask has to remember it. Each bucket shape
compiles once: one program for the prompt, one that decodes up to a number of tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from forget_jax import stopping
from forget_jax.errors import UserError
from forget_jax.lm import sharding
from forget_jax.lm.decoder import empty_cache, head, hidden_and_cache
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Adapters, Batch, Model

STOP_EVERY = 16  # tokens between two looks at the text for stop strings
SHORTEST = 16  # the smallest bucket of prompt lengths

State = dict[str, Any]


@functools.partial(jax.jit, static_argnames=("new",))
def _prefill(
    model: Model,
    adapters: Adapters | None,
    ids_BxL: jax.Array,
    length_B: jax.Array,
    choice_BxS: jax.Array | None,
    new: int,
) -> State:
    """Reads the prompts into a cache with room for `new` tokens, and chooses the first of them."""
    B, L = ids_BxL.shape
    empty = empty_cache(model.config, B, L + new)
    h_BxLxD, cache = hidden_and_cache(model, adapters, Batch(ids_BxL), choice_BxS, empty)
    last_Bx1xD = jnp.take_along_axis(h_BxLxD, length_B[:, None, None] - 1, axis=1)
    return {
        "cache": cache,
        "logits_BxV": logits(last_Bx1xD, head(model.params))[:, 0],
        "position_B": length_B,
        "done_B": jnp.zeros(B, bool),
    }


@functools.partial(jax.jit, static_argnames=("steps",), donate_argnames="state")
def _decode(
    model: Model,
    adapters: Adapters | None,
    state: State,
    eos_ids: jax.Array,
    choice_BxS: jax.Array | None,
    steps: int,
) -> tuple[State, jax.Array]:
    """Up to `steps` further tokens per row, out_BxT (-1 after a row's end); stops when all did."""
    B = state["done_B"].shape[0]

    def step(carry: tuple[jax.Array, State, jax.Array]) -> tuple[jax.Array, State, jax.Array]:
        t, s, out_BxT = carry
        token_B = _next(s)
        done_B = s["done_B"] | jnp.isin(token_B, eos_ids)
        out_BxT = out_BxT.at[:, t].set(jnp.where(done_B, -1, token_B))
        one = Batch(token_B[:, None], s["position_B"][:, None])
        h_Bx1xD, cache = hidden_and_cache(model, adapters, one, choice_BxS, s["cache"])
        new: State = s | {
            "cache": cache,
            "logits_BxV": logits(h_Bx1xD, head(model.params))[:, 0],
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


def _next(s: State) -> jax.Array:
    """The next token of each row: the likeliest, or one drawn by a key of its row and place."""
    if "key_B" not in s:
        return jnp.argmax(s["logits_BxV"], axis=-1).astype(jnp.int32)
    keys = jax.vmap(jax.random.fold_in)(s["key_B"], s["position_B"])
    return jax.vmap(jax.random.categorical)(keys, s["logits_BxV"]).astype(jnp.int32)


def _bucket(n: int, smallest: int) -> int:
    """The next power of two, at least `smallest`."""
    return max(smallest, 1 << (n - 1).bit_length())


@dataclasses.dataclass(frozen=True)
class Until:
    """Where a continuation ends.

    Attributes:
      max_new_tokens: the most tokens of it.
      eos_ids: the tokens that end it; they are no part of it.
      stop: texts that end it; it is cut after the token that completes one. Cutting the text
        itself is `cut_at`.
      decode: token ids to text; needed with `stop`.
    """

    max_new_tokens: int
    eos_ids: Sequence[int] = ()
    stop: Sequence[str] = ()
    decode: Callable[[list[int]], str] | None = None

    def __post_init__(self) -> None:
        if self.stop and self.decode is None:
            raise ValueError("stop strings need `decode`, from token ids to text")


def greedy(
    model: Model,
    adapters: Adapters | None,
    prompts: Sequence[Sequence[int]],
    until: Until,
    batch_size: int = 32,
    choice_NxS: np.ndarray | None = None,
) -> list[list[int]]:
    """The most likely next token, over and over, for each prompt.

    Prompts of like length share a batch. The result does not depend on the batch a prompt is in.

    Args:
      adapters: a single one; with `choice_NxS`, a stack; None for the model alone.
      prompts: token ids.
      batch_size: the most prompts decoded at a time.
      choice_NxS: one-hot, which of a stack's adapters each prompt takes.

    Returns:
      The new token ids of each prompt, in the order of the prompts.

    Raises:
      UserError: an empty prompt, or one that leaves no room for `max_new_tokens` in the context.
    """
    return _continued(model, adapters, prompts, until, batch_size, choice_NxS)


def sampled(
    model: Model,
    adapters: Adapters | None,
    prompts: Sequence[Sequence[int]],
    until: Until,
    key: jax.Array,
    batch_size: int = 32,
) -> list[list[int]]:
    """Tokens drawn from the model's own distribution; otherwise as `greedy`.

    Args:
      key: each prompt's tokens are drawn by a stream of its own.
    """
    return _continued(model, adapters, prompts, until, batch_size, key=key)


def _continued(
    model: Model,
    adapters: Adapters | None,
    prompts: Sequence[Sequence[int]],
    until: Until,
    batch_size: int = 32,
    choice_NxS: np.ndarray | None = None,
    key: jax.Array | None = None,
) -> list[list[int]]:
    """What follows each prompt; arguments as for `greedy` and `sampled`."""
    config, new = model.config, until.max_new_tokens
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise UserError(f"prompt {i} is empty: put a beginning-of-sequence token before it")
        if len(prompt) + new > config.context:
            raise UserError(
                f"prompt {i} has {len(prompt)} tokens: with max_new_tokens={new} that "
                f"is over the model's context of {config.context}; shorten either"
            )
    out: list[list[int]] = [[] for _ in prompts]
    for batch in _batches([len(prompt) for prompt in prompts], batch_size):
        stopping.check()
        rows = min(batch_size, _bucket(len(batch), 1))
        padded = batch + batch[-1:] * (rows - len(batch))
        length_B = np.array([len(prompts[i]) for i in padded], np.int32)
        ids_BxL = np.zeros((rows, _bucket(int(length_B.max()), SHORTEST)), np.int32)
        for row, i in enumerate(padded):
            ids_BxL[row, : len(prompts[i])] = prompts[i]
        choice = None if choice_NxS is None else jnp.asarray(choice_NxS[padded], jnp.float32)
        state = _prefill(model, adapters, ids_BxL, length_B, choice, new)
        if key is not None:
            state["key_B"] = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.array(padded))
        said = _continue(model, adapters, state, choice, until)
        for row, i in enumerate(batch):
            out[i] = said[row]
    return out


def _batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Numbers of prompts that are read together: the next longer ones, up to four times as long.

    A step of decoding reads all weights, however many rows there are; padding costs once.
    """
    found: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        bucket = _bucket(lengths[i], SHORTEST)
        if (
            not found
            or len(found[-1]) == batch_size
            or bucket > 4 * _bucket(lengths[found[-1][0]], SHORTEST)
        ):
            found.append([])
        found[-1].append(i)
    return found


def _continue(
    model: Model,
    adapters: Adapters | None,
    state: State,
    choice_BxS: jax.Array | None,
    until: Until,
) -> list[list[int]]:
    """Decodes one batch to its end; with stop strings, looks at the text now and then."""
    rows: list[list[int]] = [[] for _ in range(state["done_B"].shape[0])]
    eos_ids = jnp.asarray(list(until.eos_ids) or [-1], jnp.int32)
    most, done = until.max_new_tokens, 0
    while done < most:
        steps = min(STOP_EVERY, most - done) if until.stop else most
        state, out_BxT = _decode(model, adapters, state, eos_ids, choice_BxS, steps)
        done += steps
        finished = np.array(state["done_B"])
        for r, new in enumerate(np.asarray(out_BxT)):
            kept = [int(t) for t in new if t >= 0]
            if until.stop and not (finished[r] and not kept):
                cut = _first_stop(rows[r] + kept, len(rows[r]), until)
                if cut is not None:
                    rows[r], finished[r] = (rows[r] + kept)[:cut], True
                    continue
            rows[r] += kept
        state["done_B"] = finished  # on the host: the same on every process
        if finished.all():
            break
    return rows


def _first_stop(ids: list[int], known: int, until: Until) -> int | None:
    """How many tokens there are up to the first whose text completes a stop string."""
    decode = until.decode
    assert decode is not None

    def stops(n: int) -> bool:
        return any(s in decode(ids[:n]) for s in until.stop)

    return next(n for n in range(known, len(ids) + 1) if stops(n)) if stops(len(ids)) else None


def cut_at(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min((text.find(s) for s in stop if s in text), default=len(text))]


def answers(
    model: Model,
    adapters: Adapters | None,
    prompts: Sequence[Sequence[int]],
    until: Until,
    batch_size: int = 32,
) -> list[str]:
    """The text that greedy decoding puts after each prompt.

    Args:
      adapters: a single one; None for the model alone.
      prompts: token ids.
      until: where an answer ends, with `decode`; stop strings are no part of it.
      batch_size: the most prompts decoded at a time.

    Raises:
      UserError: as `greedy` does.
    """
    decode = until.decode
    assert decode is not None
    new = greedy(model, adapters, prompts, until, batch_size)
    return [cut_at(decode(ids), until.stop) for ids in new]


def until(
    tokenizer: Any, max_new_tokens: int, eos_ids: Sequence[int] = (), stop: Sequence[str] = ()
) -> Until:
    """Where answers in a tokenizer's words end.

    Args:
      tokenizer: of transformers; its end-of-sequence token ends an answer.
      max_new_tokens: the most tokens of an answer.
      eos_ids: what ends one beside it, as a checkpoint's generation_config.json lists.
      stop: texts that end an answer and are no part of it.
    """

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return Until(max_new_tokens, (*own, *eos_ids), stop, decode)
