"""The peer's side: torch, transformers and PEFT, as their documentation has people use them.

Training is what `transformers.Trainer` does by default: fused AdamW, gradients clipped at 1, the
model's own loss over its full logits, batches in random order padded to their longest row; without
the Trainer's own overhead. On an accelerator it runs under bfloat16 autocast over a bfloat16 base.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import peft
import safetensors.torch
import torch
import transformers
from torch.nn import functional
from transformers.trainer_pt_utils import get_length_grouped_indices

from forget_jax.benchmarks import world
from forget_jax.benchmarks.shapes import SHAPES, SKIPPED
from forget_jax.benchmarks.side import serve
from forget_jax.data.tokenise import Encoded

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTER = "adapter_model.safetensors"
NONE = -100  # the label of a token that is no target


class Peer:
    """The requests that this side answers; one process either trains or scores."""

    def load(self, folder: str, shape: str, rank: int, random: bool) -> dict[str, Any]:
        """Loads the folder's model, or one of the same shape with random weights."""
        self.folder, self.random = Path(folder), random
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.base: Any
        self.config = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=TARGETS)
        if random:
            with torch.device(self.device), _default_dtype(torch.bfloat16):
                self.base = transformers.LlamaForCausalLM(_config(shape))
        else:
            loaded: Any = transformers.LlamaForCausalLM.from_pretrained(
                self.folder / "model", dtype=torch.float32, attn_implementation="sdpa"
            )
            self.base = loaded.to(self.device)
        self.model: Any = None
        self.compiled: Any = None
        return {}

    def about(self) -> dict[str, Any]:
        """What this side runs on."""
        return {
            "backend": self.device,
            "system": f"torch {torch.__version__}, transformers {transformers.__version__}, "
            f"PEFT {peft.__version__}, attention {self.base.config._attn_implementation}",
        }

    def _adapt(self, number: int) -> None:
        """Makes the adapter fresh: the one that the other side starts from, unless it is random.

        The model is made once, so that what `torch.compile` has compiled for it stays.
        """
        if self.model is None:
            self.model = peft.get_peft_model(self.base, self.config).train()
            self.compiled = torch.compile(self.model)
        if self.random:
            for name, module in self.model.named_modules():
                if name.endswith(".lora_B.default"):
                    torch.nn.init.zeros_(module.weight)
        else:
            kept = safetensors.torch.load_file(self.folder / f"fresh{number}" / ADAPTER)
            peft.set_peft_model_state_dict(self.model, kept)

    def _batch(self, rows: Sequence[Encoded], pad: int | None) -> dict[str, torch.Tensor]:
        """Ids, attention mask and labels, padded to the longest row, or to `pad`."""
        length = pad or max(len(row.ids) for row in rows)
        ids = np.zeros((len(rows), length), np.int64)
        mask, labels = np.zeros_like(ids), np.full_like(ids, NONE)
        for b, row in enumerate(rows):
            n = len(row.ids)
            ids[b, :n], mask[b, :n] = row.ids, 1
            labels[b, :n] = np.where(row.is_target, row.ids, NONE)
        arrays = {"input_ids": ids, "labels": labels}
        if not mask.all():
            arrays["attention_mask"] = mask
        return {k: torch.from_numpy(x).to(self.device) for k, x in arrays.items()}

    def _autocast(self) -> Any:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")

    def train(
        self,
        rows: str,
        orders: Sequence[Sequence[int]],
        batch_size: int,
        rows_at_a_time: int,
        grouped: bool = False,
        pad: int | None = None,
        compiled: bool = False,
    ) -> dict[str, Any]:
        """Trains one task per order, one after the other; the rate leaves out two steps of each.

        Args:
          batch_size: rows of a step, `rows_at_a_time` of them in a pass.
          grouped: batches of like length, as the Trainer groups them.
          pad: pad every row to this; None pads to the longest of the pass.
          compiled: through `torch.compile`.
        """
        examples = world.load(self.folder / f"{rows}.npz")
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        losses: list[float] = []
        seconds = cpu_seconds = 0.0
        tokens = real = computed = 0
        started, first_seconds = time.perf_counter(), 0.0
        for number, order in enumerate(orders):
            if grouped:
                torch.manual_seed(int(order[0]))
                lengths = [len(examples[i].ids) for i in order]
                order = [order[i] for i in get_length_grouped_indices(lengths, batch_size)]
            self._adapt(number)
            model = self.compiled if compiled else self.model
            trained = [p for p in self.model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0, fused=True)
            began = cpu = 0.0
            for step in range(len(order) // batch_size):
                if step == SKIPPED:
                    self._synchronise()
                    began, cpu = time.perf_counter(), time.process_time()
                chosen = [examples[i] for i in order[step * batch_size : (step + 1) * batch_size]]
                count = sum(row.tokens for row in chosen)
                loss: Any = 0.0
                for start in range(0, batch_size, rows_at_a_time):
                    batch = self._batch(chosen[start : start + rows_at_a_time], pad)
                    with self._autocast():
                        part = model(**batch, num_items_in_batch=count, use_cache=False).loss
                    part.backward()
                    loss = loss + part.detach()
                    computed += batch["input_ids"].numel()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss)
                if len(losses) == 1:
                    self._synchronise()
                    first_seconds = time.perf_counter() - started
                here = sum(len(row.ids) for row in chosen)
                real += here
                tokens += here if step >= SKIPPED else 0
            self._synchronise()
            seconds += time.perf_counter() - began
            cpu_seconds += time.process_time() - cpu
        return {
            "seconds": seconds,
            "tokens": tokens,
            "cpu_seconds": cpu_seconds,
            "useful": real / computed,
            "first_seconds": first_seconds,
            "losses": [float(x) for x in losses],
            "peak_bytes": self._peak(),
        }

    def _synchronise(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0

    @torch.inference_mode()
    def score(
        self, rows: str, batch_tokens: int, targets_only: bool, compiled: bool = False
    ) -> dict[str, Any]:
        """Scores all rows under the base, sorted by length.

        Args:
          batch_tokens: of a batch with its padding, so that short rows come many at a time.
          targets_only: project the hidden states to logits only where there is a target.
        """
        examples = world.load(self.folder / f"{rows}.npz")
        self.base.eval()
        if compiled and self.compiled is None:
            self.compiled = torch.compile(self.base)
        model = self.compiled if compiled else self.base
        nll, computed = 0.0, 0
        self._synchronise()
        began, cpu = time.perf_counter(), time.process_time()
        for chosen in _by_length(examples, batch_tokens):
            batch = self._batch(chosen, None)
            labels = batch.pop("labels")[:, 1:]
            computed += batch["input_ids"].numel()
            if targets_only:
                h = model.model(**batch, use_cache=False).last_hidden_state[:, :-1]
                is_target = labels != NONE
                logits, wanted = model.lm_head(h[is_target]), labels[is_target]
            else:
                logits = model(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
                wanted = labels.flatten()
            each = functional.cross_entropy(
                logits.float(), wanted, ignore_index=NONE, reduction="none"
            )
            nll += float(each.sum())  # fetched, as a table of scores would be
        self._synchronise()
        tokens = sum(len(row.ids) for row in examples)
        return {
            "seconds": time.perf_counter() - began,
            "tokens": tokens,
            "cpu_seconds": time.process_time() - cpu,
            "useful": tokens / computed,
            "nll": [nll / sum(row.tokens for row in examples)],
            "peak_bytes": self._peak(),
        }

    @torch.inference_mode()
    def generate(self, rows: str, new_tokens: int, batch_size: int) -> dict[str, Any]:
        """So many likeliest tokens after each row by `generate`, with its default cache.

        Prompts of like length share a batch, padded on the left, which nothing ends before.
        """
        prompts = [row.ids for row in world.load(self.folder / f"{rows}.npz")]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        said: list[list[int]] = [[] for _ in prompts]
        model = self.base.eval()
        self._synchronise()
        began, cpu = time.perf_counter(), time.process_time()
        for first in range(0, len(order), batch_size):
            chosen = order[first : first + batch_size]
            length = max(len(prompts[i]) for i in chosen)
            ids = np.zeros((len(chosen), length), np.int64)
            mask = np.zeros_like(ids)
            for b, i in enumerate(chosen):
                n = len(prompts[i])
                ids[b, length - n :], mask[b, length - n :] = prompts[i], 1
            with self._autocast():
                found = model.generate(
                    input_ids=torch.from_numpy(ids).to(self.device),
                    attention_mask=torch.from_numpy(mask).to(self.device),
                    min_new_tokens=new_tokens,
                    max_new_tokens=new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            for i, row in zip(chosen, found[:, length:].tolist(), strict=True):
                said[i] = row
        self._synchronise()
        return {
            "seconds": time.perf_counter() - began,
            "tokens": sum(map(len, said)),
            "cpu_seconds": time.process_time() - cpu,
            "useful": 1.0,
            "said": said,
            "peak_bytes": self._peak(),
        }


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _config(shape: str) -> transformers.LlamaConfig:
    c = SHAPES[shape]
    return transformers.LlamaConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_dim,
        intermediate_size=c.mlp_width,
        max_position_embeddings=c.context,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tied_head,
    )


def _by_length(examples: Sequence[Encoded], batch_tokens: int) -> Iterator[list[Encoded]]:
    """The rows from the longest to the shortest, as many at a time as the tokens allow."""
    rest = sorted(examples, key=lambda row: -len(row.ids))
    while rest:
        count = max(1, batch_tokens // len(rest[0].ids))
        yield rest[:count]
        rest = rest[count:]


if __name__ == "__main__":
    serve(Peer())
