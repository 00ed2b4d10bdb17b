"""NLL of rows of tokens under a causal model in torch, which the caller has imported."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from forget_jax.data import windows
from forget_jax.data.encoded import Encoded


def nll(model: Any, encoded: Sequence[Encoded], batch_size: int) -> np.ndarray:
    """Summed NLL of every example in nats, float64 (N,); rows of one name are one example.

    The model is put into evaluation mode for it, and back into its own. Logits of `batch_size` rows
    exist at a time.

    Args:
      model: called with `input_ids` and `attention_mask`, gives `logits`, as those of transformers
        and PEFT do.
      encoded: rows in order.
      batch_size: rows of a batch; they are sorted by length.
    """
    import torch

    device = next(model.parameters()).device
    order = np.argsort([-len(e.ids) for e in encoded], kind="stable")
    sums_R = np.zeros(len(encoded))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(order), batch_size):
                some = order[start : start + batch_size]
                rows = [encoded[i] for i in some]
                sums_R[some] = _batch(torch, model, rows, device)
    finally:
        model.train(was_training)
    return windows.summed(sums_R[None], windows.owners([e.name for e in encoded]))[0]


def _batch(torch: Any, model: Any, rows: Sequence[Encoded], device: Any) -> np.ndarray:
    """Summed NLL of each row of a batch, padded on the right."""
    length = max(len(e.ids) for e in rows)
    ids_BxL = np.zeros((len(rows), length), np.int64)
    real_BxL, target_BxL = np.zeros((2, len(rows), length), bool)
    for b, e in enumerate(rows):
        ids_BxL[b, : len(e.ids)] = e.ids
        real_BxL[b, : len(e.ids)] = True
        target_BxL[b, : len(e.ids)] = e.is_target
    ids, real, target = (torch.from_numpy(x).to(device) for x in (ids_BxL, real_BxL, target_BxL))
    logits = model(input_ids=ids, attention_mask=real.long(), use_cache=False).logits
    at = target[:, 1:]  # a token is predicted at the position before it
    nll_T = torch.nn.functional.cross_entropy(
        logits[:, :-1][at].float(), ids[:, 1:][at], reduction="none"
    )
    rows_T = np.nonzero(target_BxL[:, 1:])[0]
    found: np.ndarray = np.bincount(rows_T, nll_T.double().cpu().numpy(), minlength=len(rows))
    return found
