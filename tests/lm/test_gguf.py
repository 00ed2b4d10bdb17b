"""GGUF files: weights as the file's own blocks give them, the tokenizer, and what is refused."""

import gguf
import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from tokenizers import pre_tokenizers

from forget_jax.errors import UserError
from forget_jax.lm.hf import about, checkpoint
from forget_jax.lm.hf import gguf as ours
from forget_jax.lm.hf import tokenizer as tokenizers

WIDTH, LAYERS, HEADS, GROUPS, INNER = 64, 2, 4, 2, 96
HEAD = WIDTH // HEADS
TOKENS = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "Ġb"]
SHAPES = {
    "attn_norm": (WIDTH,),
    "ffn_norm": (WIDTH,),
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (GROUPS * HEAD, WIDTH),
    "attn_v": (GROUPS * HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (INNER, WIDTH),
    "ffn_up": (INNER, WIDTH),
    "ffn_down": (WIDTH, INNER),
}
KINDS = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1)


def permuted(x, heads):
    """As llama.cpp turns query and key rows: the halves of each head are interleaved."""
    return x.reshape(heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def write(path, kind=Kind.F32, architecture="llama", change=lambda writer: None, turn=None):
    """A small model in a GGUF file; gives its tensors as the file's blocks hold them."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(["Ġ a", "Ġ b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    names = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        names |= {f"blk.{layer}.{name}.weight": shape for name, shape in SHAPES.items()}
    held = {}
    for name, shape in names.items():
        x = rng.normal(size=shape).astype(np.float32)
        own = kind if len(shape) == 2 else Kind.F32
        data = x.astype(np.float16) if own is Kind.F16 else quantize(x, own)
        held[name] = data.astype(np.float32) if own is Kind.F16 else dequantize(data, own)
        writer.add_tensor(name, data, raw_dtype=own)
    change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_weights_are_the_blocks_own_bit_by_bit(tmp_path, kind):
    held = write(tmp_path / "m.gguf", kind)
    model = checkpoint.load(tmp_path / "m.gguf")
    c = model.config
    assert (c.layers, c.width, c.heads, c.kv_heads, c.head_dim) == (LAYERS, WIDTH, 4, 2, HEAD)
    assert (c.rope_theta, c.norm_eps, c.tied_head) == (5000.0, np.float32(1e-5), True)
    layers = jax.device_get(model.params["layers"])
    for layer in range(LAYERS):
        q, k, v = (layers["attn"][x]["kernel"][layer].T for x in "qkv")
        np.testing.assert_array_equal(permuted(q, HEADS), held[f"blk.{layer}.attn_q.weight"])
        np.testing.assert_array_equal(permuted(k, GROUPS), held[f"blk.{layer}.attn_k.weight"])
        np.testing.assert_array_equal(v, held[f"blk.{layer}.attn_v.weight"])
        down = layers["mlp"]["down"]["kernel"][layer].T
        np.testing.assert_array_equal(down, held[f"blk.{layer}.ffn_down.weight"])
    np.testing.assert_array_equal(model.params["embed"], held["token_embd.weight"])


def test_the_tokenizer_cuts_digits_and_knows_its_ends(tmp_path):
    write(tmp_path / "m.gguf")
    tokenizer = tokenizers.load(tmp_path / "m.gguf")
    ids = tokenizer("x a  12<s>", add_special_tokens=False)["input_ids"]
    assert [TOKENS[i] for i in ids] == ["x", "Ġa", "Ġ", "Ġ", "1", "2", "<s>"]
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert about.eos_ids(tmp_path / "m.gguf") == (1,)
    talk = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "hi"


def test_it_is_made_once_for_each_content(tmp_path):
    write(tmp_path / "m.gguf")
    made = ours.folder(str(tmp_path / "m.gguf"))
    before = (made / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "m.gguf").rename(tmp_path / "moved.gguf")
    assert ours.folder(str(tmp_path / "moved.gguf")) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before
    write(tmp_path / "other.gguf", Kind.Q8_0)
    assert ours.folder(str(tmp_path / "other.gguf")) != made


REFUSED = {
    "an architecture": ({"architecture": "mamba"}, "architecture 'mamba' is not covered"),
    "a setting": (
        {"change": lambda w: w.add_float32("llama.attention.foo", 1.0)},
        r"setting llama\.attention\.foo=1\.0 is not covered",
    ),
    "experts": ({"change": lambda w: w.add_expert_count(8)}, "a mixture of experts"),
    "a stretched rope": (
        {"change": lambda w: w.add_string("llama.rope.scaling.type", "longrope")},
        "rope.scaling.type='longrope' is not covered",
    ),
    "a tensor": (
        {"change": lambda w: w.add_tensor("blk.0.extra", np.ones(4, np.float32))},
        r"tensor blk\.0\.extra has no place",
    ),
}


@pytest.mark.fault("GGUF files", "one line")
@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_covered_is_named(tmp_path, options, said):
    write(tmp_path / "m.gguf", **options)
    with pytest.raises(UserError, match=said) as e:
        checkpoint.load(tmp_path / "m.gguf")
    assert str(tmp_path / "m.gguf") in str(e.value)
    assert not any(f.name == "config.json" for f in (tmp_path / "cache").rglob("*"))


@pytest.mark.fault("GGUF files", "one line")
def test_damaged_files(tmp_path):
    """Cut anywhere, or with any early byte changed: a model, or a line."""
    write(tmp_path / "m.gguf")
    whole = (tmp_path / "m.gguf").read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:n] for n in (0, 3, 20, 24, 500, 5000, len(whole) - 9)]
    for place in rng.integers(0, 3000, 12):
        data = bytearray(whole)
        data[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(data))
    for data in damaged:
        (tmp_path / "d.gguf").write_bytes(data)
        try:
            checkpoint.load(tmp_path / "d.gguf")
        except UserError as e:
            assert "\n" not in str(e)
    with pytest.raises(UserError, match="cannot read"):
        checkpoint.load(tmp_path / "none.gguf")
