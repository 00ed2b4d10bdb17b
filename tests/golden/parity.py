"""Live parity with transformers and PEFT (torch, fp32, CPU): every family, both directions.

    python tests/golden/parity.py

writes the golden files beside this script, which the default tests compare with, and the table in
docs/families.md. It needs the `parity` extra. tests/lm/test_parity.py runs the same checks.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import optax
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open

from forget_jax.lm import decoder, generate, lora
from forget_jax.lm.hf import checkpoint, peft
from forget_jax.lm.logprob import target_logprobs
from forget_jax.lm.model import Adapters, Batch, Model

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("tiny", HERE.parent / "lm" / "conftest.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

transformers.utils.logging.disable_progress_bar()

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
GQA = SMALL | {"num_key_value_heads": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 5e3,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 1e4,
}
WINDOWS = GQA | {
    "num_hidden_layers": 3,
    "sliding_window": 7,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
CASES = {
    "llama": ("llama", GQA | {"rms_norm_eps": 1e-3}),
    "llama_biases": ("llama", GQA | {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    "llama_tied_llama3_rope": (
        "llama",
        GQA | {"tie_word_embeddings": True, "rope_parameters": LLAMA3},
    ),
    "llama_linear_rope": (
        "llama",
        GQA | {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama_dynamic_rope": (
        "llama",
        GQA | {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama_yarn_rope": ("llama", GQA | {"rope_parameters": YARN}),
    "mistral": ("mistral", GQA | {"sliding_window": None}),
    "mistral_sliding_window": ("mistral", GQA | {"sliding_window": 7, "head_dim": 16}),
    "qwen2": ("qwen2", GQA | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", GQA | {"head_dim": 16}),
    "olmo": ("olmo", GQA | {"clip_qkv": 0.9}),
    "olmo2": ("olmo2", GQA | {"rms_norm_eps": 1e-6}),
    "gemma3_text": (
        "gemma3_text",
        WINDOWS
        | {
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e4},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e3},
            },
        },
    ),
    "olmo3": (
        "olmo3",
        WINDOWS
        | {
            "rope_parameters": {
                "full_attention": YARN,
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
    ),
    "gpt_neox": (
        "gpt_neox",
        SMALL
        | {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "partial_rotary_factor": 0.25,
            },
            "hidden_size": 64,
        },
    ),
    "gpt_neox_sequential": ("gpt_neox", SMALL | {"use_parallel_residual": False}),
    "mpt": (
        "mpt",
        {
            "vocab_size": 61,
            "d_model": 48,
            "n_heads": 6,
            "n_layers": 2,
            "max_seq_len": 128,
            "attn_config": {"clip_qkv": 1.5, "softmax_scale": 0.4},
        },
    ),
    "gpt2": (
        "gpt2",
        {"vocab_size": 61, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 128},
    ),
}
RANKS = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": "all-linear",
    "use_rslora": True,
    "lora_dropout": 0.1,
    "rank_pattern": {r".*\.1\..*": 2},
    "alpha_pattern": {r".*\.0\..*": 5},
    "task_type": "CAUSAL_LM",
}
ADAPTERS = ("llama", "gpt_neox", "gpt2")  # split, interleaved and Conv1D projections
LENGTHS = (1, 3, 7, 12, 17, 24, 33, 48)
NEW = 64


def ids_of(case):
    rng = np.random.default_rng(len(case))
    return [rng.integers(0, 61, n).tolist() for n in LENGTHS]


def make_case(name):
    """The golden case without its figures: config.json and the tensors' names and shapes."""
    kind, options = CASES[name]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    config = transformers.CONFIG_MAPPING[kind](**options, **ids)
    with tempfile.TemporaryDirectory() as folder:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        raw = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "numpy") as f:
            shapes = {n: list(f.get_slice(n).get_shape()) for n in sorted(f.keys())}
    return {"config": raw, "tensors": shapes, "prompts": ids_of(name)}


def torch_model(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval()


def torch_logp(model, prompts):
    """log p of each token after the first, one list per prompt of two tokens or more."""
    out = []
    with torch.no_grad():
        for ids in prompts:
            x = torch.tensor([ids])
            logp = model(x).logits.float().log_softmax(-1)[0, :-1]
            out.append(logp.gather(-1, x[0, 1:, None])[:, 0].numpy())
    return out


def our_logp(model, adapter, prompts):
    L = max(map(len, prompts))
    ids = np.zeros((len(prompts), L), np.int32)
    for row, p in zip(ids, prompts, strict=True):
        row[: len(p)] = p
    at = np.broadcast_to(np.arange(L - 1), (len(prompts), L - 1))

    @jax.jit
    def run(model, adapter):
        h = decoder.hidden(model, adapter, Batch(ids))
        return target_logprobs(h, decoder.head(model.params), at, ids[:, 1:])

    logp = np.asarray(run(model, adapter))
    return [row[: len(p) - 1] for row, p in zip(logp, prompts, strict=True)]


def gap(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True) if len(x))


def torch_greedy(model, prompts):
    out = []
    for ids in prompts:
        new = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        out.append(new[0, len(ids) :].tolist())
    return out


def same_files(a, b):
    """Whether two checkpoints hold bit-identical tensors under the same names."""
    from safetensors.numpy import load_file

    x, y = (
        {k: v for f in sorted(Path(p).glob("*.safetensors")) for k, v in load_file(f).items()}
        for p in (a, b)
    )
    return x.keys() == y.keys() and all(x[k].tobytes() == y[k].tobytes() for k in x)


def check_model(case, folder):
    """Log-probabilities, greedy continuation and the way back, for one tiny checkpoint."""
    source = tiny.write_checkpoint(case, folder / "hf")
    model, loaded = torch_model(source), checkpoint.load(source)
    checkpoint.save(folder / "back", loaded, shard_bytes=20_000)
    theirs = torch_logp(model, case["prompts"])
    continuation = torch_greedy(model, case["prompts"])
    ours = generate.greedy(loaded, None, case["prompts"], generate.Until(NEW))
    return (
        {
            "logp": gap(theirs, our_logp(loaded, None, case["prompts"])),
            "identical": same_files(source, folder / "back"),
            "export": gap(theirs, torch_logp(torch_model(folder / "back"), case["prompts"])),
            "greedy": ours == continuation,
        },
        theirs,
        continuation,
    )


def check_adapter(case, folder):
    """An adapter trained by PEFT here, one trained here in PEFT, and the merged export."""
    source = tiny.write_checkpoint(case, folder / "hf")
    loaded = checkpoint.load(source)
    prompts = case["prompts"]
    row = {}

    torch.manual_seed(0)
    base = torch_model(source)
    before = torch_logp(base, prompts)
    model = get_peft_model(base, LoraConfig(**RANKS))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 2e-2)
    for ids in prompts[3:] * 2:
        x = torch.tensor([ids])
        loss = model(x, labels=x).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    model.save_pretrained(folder / "peft")
    theirs = torch_logp(model, prompts)
    adapter = peft.load(folder / "peft", loaded)
    row["moved"] = gap(before, theirs)
    row["peft_in"] = gap(theirs, our_logp(loaded, adapter, prompts))

    lora_config = lora.LoRAConfig(
        rank=4, alpha=8, rank_pattern=((".*/down", 2),), alpha_pattern=((".*/o", 3.0),)
    )
    adapter = Adapters(lora_config, lora.init(lora_config, loaded.params, jax.random.key(0)))
    L = max(map(len, prompts))
    ids = np.stack([np.resize(p, L) for p in prompts])
    at = np.broadcast_to(np.arange(L - 1), (len(prompts), L - 1))

    def loss(adapter):
        h = decoder.hidden(loaded, adapter, Batch(ids))
        return -target_logprobs(h, decoder.head(loaded.params), at, ids[:, 1:]).mean()

    tx = optax.adamw(2e-2)

    @jax.jit
    def step(adapter, state):
        updates, state = tx.update(jax.grad(loss)(adapter), state, adapter)
        return optax.apply_updates(adapter, updates), state

    state = tx.init(adapter)
    for _ in range(6):
        adapter, state = step(adapter, state)
    ours = our_logp(loaded, adapter, prompts)
    peft.save(folder / "ours", adapter, loaded.config, str(source))
    model = PeftModel.from_pretrained(torch_model(source), folder / "ours").eval()
    row["peft_out"] = gap(ours, torch_logp(model, prompts))
    row["moved_here"] = gap(before, ours)
    merged = lora.merge(lora_config, loaded.params, adapter.tree)
    checkpoint.save(folder / "merged", Model(loaded.config, merged))
    row["merged"] = gap(ours, torch_logp(torch_model(folder / "merged"), prompts))
    return row


def golden_adapter(case, folder):
    """A PEFT adapter of seeded tensors (ranks and alphas by layer) and its log-probabilities."""
    source = tiny.write_checkpoint(case, folder / "hf")
    model = get_peft_model(torch_model(source), LoraConfig(**RANKS))
    model.save_pretrained(folder / "adapter")
    raw = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    raw["base_model_name_or_path"] = None
    with safe_open(folder / "adapter" / "adapter_model.safetensors", "numpy") as f:
        shapes = {n: list(f.get_slice(n).get_shape()) for n in sorted(f.keys())}
    found = {"config": raw, "tensors": shapes}
    tiny.write_adapter(found, folder / "seeded")
    model = PeftModel.from_pretrained(torch_model(source), folder / "seeded").eval()
    found["logp"] = rounded(torch_logp(model, case["prompts"]))
    return found


def rounded(rows):
    return [[round(float(x), 6) for x in row] for row in rows]


def main():
    table = [
        "| case | log p here, transformers | HF → here → HF | greedy, 8 × 64 tokens | "
        "exported, in transformers | PEFT adapter here | our adapter in PEFT | merged export |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sys.argv[1:] or CASES:
        case = make_case(name)
        with tempfile.TemporaryDirectory() as folder:
            row, logp, new = check_model(case, Path(folder))
            row |= check_adapter(case, Path(folder))
            if name in ADAPTERS:
                case["adapter"] = golden_adapter(case, Path(folder))
        print(name, row, flush=True)
        case["logp"] = rounded(logp)
        case["continuation"] = new
        (HERE / f"{name}.json").write_text(json.dumps(case, separators=(",", ":")) + "\n")
        table.append(
            f"| `{name}` | {row['logp']:.1e} | "
            f"{'bit-identical' if row['identical'] else 'DIFFERENT'} | "
            f"{'identical' if row['greedy'] else 'DIFFERENT'} | {row['export']:.1e} | "
            f"{row['peft_in']:.1e} | {row['peft_out']:.1e} | {row['merged']:.1e} |"
        )
    if len(sys.argv) == 1:
        doc = HERE.parents[1] / "docs" / "families.md"
        text = doc.read_text() if doc.exists() else "<!-- table -->\n<!-- end -->\n"
        start, end = text.index("<!-- table -->"), text.index("<!-- end -->")
        versions = (
            "Written by `tests/golden/parity.py` with transformers "
            f"{transformers.__version__}, torch {torch.__version__}, jax {jax.__version__}.\n\n"
        )
        doc.write_text(
            text[:start] + "<!-- table -->\n" + versions + "\n".join(table) + "\n" + text[end:]
        )


if __name__ == "__main__":
    main()
