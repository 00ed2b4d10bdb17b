"""GGUF files: weights as the file's own blocks give them, the tokenizer, and what is refused."""

import dataclasses

import gguf
import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from tokenizers import pre_tokenizers

from forget_jax.errors import UserError
from forget_jax.lm import decoder
from forget_jax.lm.hf import about, checkpoint
from forget_jax.lm.hf import gguf as ours
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.logprob import logits
from forget_jax.lm.model import Batch

WIDTH, LAYERS, HEADS, GROUPS, INNER = 64, 2, 4, 2, 96
HEAD = WIDTH // HEADS
TOKENS = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "Ġb"]


def shapes(width, inner):
    head = width // HEADS
    return {
        "attn_norm": (width,),
        "ffn_norm": (width,),
        "attn_q": (width, width),
        "attn_k": (GROUPS * head, width),
        "attn_v": (GROUPS * head, width),
        "attn_output": (width, width),
        "ffn_gate": (inner, width),
        "ffn_up": (inner, width),
        "ffn_down": (width, inner),
    }


KINDS = (Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1)
# What the `gguf` package reads and cannot write: blocks of 256 values, of random bytes here.
READ_ONLY = [
    kind
    for kind in Kind
    if kind.name[:2] in ("Q2", "Q3", "Q4", "Q5", "Q6", "IQ", "TQ", "MX", "NV") and kind not in KINDS
]


WIDE = 256  # of a head, which transformers takes for granted where it reads Gemma's files
EXTRA = {  # beside those of Llama, or instead
    "gemma3": {
        "attn_q": (HEADS * WIDE, WIDTH),
        "attn_k": (GROUPS * WIDE, WIDTH),
        "attn_v": (GROUPS * WIDE, WIDTH),
        "attn_output": (WIDTH, HEADS * WIDE),
        "attn_q_norm": (WIDE,),
        "attn_k_norm": (WIDE,),
        "post_attention_norm": (WIDTH,),
        "post_ffw_norm": (WIDTH,),
    }
}
PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{i:02X}>" for i in range(256))]
PIECES += ["\n\n", "  ", "▁a", "▁ab", "▁", "a", "b", "c", "ab", "\n", "x"]


def sentencepiece(writer):
    """The vocabulary as Gemma's files have it: no merges, scores, spaces and lines as they are."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(PIECES)
    writer.add_token_scores([-1000.0] * 260 + [-float(i) for i in range(len(PIECES) - 260)])
    writer.add_token_types([3] * 4 + [6] * 256 + [4, 4] + [1] * (len(PIECES) - 262))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_sliding_window(8)
    writer.add_key_length(WIDE)
    writer.add_value_length(WIDE)


def byte_level(writer):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3] + [1] * (len(TOKENS) - 2))
    writer.add_token_merges(["Ġ a", "Ġ b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")


def permuted(x, heads):
    """As llama.cpp turns query and key rows: the halves of each head are interleaved."""
    return x.reshape(heads, 2, -1, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def blocks(rng, shape, kind):
    """Random bytes that hold finite values of a size that weights have."""
    size, width = gguf.GGML_QUANT_SIZES[kind]
    held_BxW = rng.integers(0, 256, (np.prod(shape) // size, width), np.uint8)
    for _ in range(100):
        with np.errstate(invalid="ignore", over="ignore"):
            bad_B = ~(np.abs(dequantize(held_BxW, kind)) < 1e3).all(1)
        if not bad_B.any():
            return held_BxW.reshape(shape[0], -1)
        held_BxW[bad_B] = rng.integers(0, 256, (bad_B.sum(), width), np.uint8)
    raise AssertionError(f"no finite blocks of {kind.name}")


def write(path, kind=Kind.F32, architecture="llama", change=lambda writer: None):
    """A small model in a GGUF file; gives its tensors as the file's blocks hold them."""
    rng = np.random.default_rng(0)
    width, inner = (256, 256) if kind in READ_ONLY else (WIDTH, INNER)
    writer = gguf.GGUFWriter(path, architecture)
    layers, tokens = (7, len(PIECES)) if architecture == "gemma3" else (LAYERS, len(TOKENS))
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    (sentencepiece if architecture == "gemma3" else byte_level)(writer)
    names = {"token_embd.weight": (tokens, width), "output_norm.weight": (width,)}
    in_a_layer = shapes(width, inner) | EXTRA.get(architecture, {})
    for layer in range(layers):
        names |= {f"blk.{layer}.{name}.weight": shape for name, shape in in_a_layer.items()}
    held = {}
    for name, shape in names.items():
        x = rng.normal(size=shape).astype(np.float32)
        own = kind if len(shape) == 2 else Kind.F32
        if own in READ_ONLY:
            data = blocks(rng, shape, own)
        else:
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


@pytest.mark.parametrize("kind", [*KINDS, *READ_ONLY], ids=lambda kind: kind.name)
def test_weights_are_the_blocks_own_bit_by_bit(tmp_path, kind):
    held = write(tmp_path / "m.gguf", kind)
    model = checkpoint.load(tmp_path / "m.gguf")
    c = model.config
    width = 256 if kind in READ_ONLY else WIDTH
    assert (c.layers, c.width, c.heads, c.kv_heads, c.head_dim) == (LAYERS, width, 4, 2, width // 4)
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


def test_a_gemma_has_windows_and_norms_that_are_counted_from_one(tmp_path):
    held = write(tmp_path / "m.gguf", Kind.Q8_0, "gemma3")
    model = checkpoint.load(tmp_path / "m.gguf")
    c = model.config
    assert (c.family, c.local, c.window) == ("gemma3_text", (True,) * 5 + (False, True), 8)
    assert (c.rope_theta, c.local_theta, c.attention_scale) == (5000.0, 1e4, WIDE**-0.5)
    layers = jax.device_get(model.params["layers"])
    norms = {
        "attn_norm": layers["attn_norm"],
        "post_attention_norm": layers["attn_post_norm"],
        "ffn_norm": layers["mlp_norm"],
        "post_ffw_norm": layers["mlp_post_norm"],
        "attn_q_norm": layers["attn"]["q_norm"],
        "attn_k_norm": layers["attn"]["k_norm"],
    }
    for name, of in norms.items():
        stored = np.stack([held[f"blk.{layer}.{name}.weight"] for layer in range(7)])
        np.testing.assert_array_equal(of["scale"], stored - 1)
    q = np.stack([held[f"blk.{layer}.attn_q.weight"].T for layer in range(7)])
    np.testing.assert_array_equal(layers["attn"]["q"]["kernel"], q)
    scaled = {"change": lambda w: w.add_string("gemma3.rope.scaling.type", "linear")}
    write(tmp_path / "s.gguf", architecture="gemma3", **scaled)
    assert dict(checkpoint.load(tmp_path / "s.gguf").config.rope_scaling)["rope_type"] == "linear"


def test_a_sentencepiece_vocabulary_without_merges(tmp_path):
    write(tmp_path / "m.gguf", architecture="gemma3")
    tokenizer = tokenizers.load(tmp_path / "m.gguf")
    ids = tokenizer("ab ab  c\n\n\né<eos>", add_special_tokens=False)["input_ids"]
    shown = ["ab", "▁ab", "  ", "c", "\n\n", "\n", "<0xC3>", "<0xA9>", "<eos>"]
    assert [PIECES[i] for i in ids] == shown
    assert tokenizers.special_tokens(tokenizer).adds_bos
    assert tokenizer.decode(ids[:5]) == "ab ab  c\n\n"


def test_the_stretching_of_llama_3_is_known_by_its_factors(tmp_path):
    from forget_jax.lm.positions import frequencies

    rope = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    write(tmp_path / "plain.gguf")
    plain = checkpoint.load(tmp_path / "plain.gguf").config
    stretched = dataclasses.replace(plain, rope_scaling=tuple(sorted(rope.items())))
    factors = frequencies(plain)[0] / frequencies(stretched)[0]
    write(tmp_path / "m.gguf", change=lambda w: w.add_tensor("rope_freqs.weight", factors))
    assert checkpoint.load(tmp_path / "m.gguf").config == stretched


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


def without_layers(writer):
    writer.kv_data[0]["llama.block_count"].value = 0


def none_of_layers(writer):
    del writer.kv_data[0]["llama.block_count"]


REFUSED = {
    "no layers": ({"change": without_layers}, r"llama\.block_count is a number .*1 or more"),
    "no number of layers": ({"change": none_of_layers}, r"llama\.block_count is missing"),
    "an architecture": ({"architecture": "mamba"}, "architecture is the text 'mamba', not"),
    "a setting": (
        {"change": lambda w: w.add_float32("llama.attention.foo", 1.0)},
        r"setting llama\.attention\.foo=1\.0 is not covered",
    ),
    "experts": ({"change": lambda w: w.add_expert_count(8)}, "a mixture of experts"),
    "a stretched rope": (
        {"change": lambda w: w.add_string("llama.rope.scaling.type", "longrope")},
        "rope.scaling.type is the text 'longrope', which is not covered",
    ),
    "how a rope is stretched": (
        {"change": lambda w: w.add_float32("llama.rope.scaling.attn_factor", 0.5)},
        r"setting llama\.rope\.scaling\.attn_factor=0\.5 is not covered",
    ),
    "soft caps": (
        {
            "architecture": "gemma3",
            "change": lambda w: w.add_float32("gemma3.final_logit_softcapping", 30.0),
        },
        r"setting gemma3\.final_logit_softcapping=30\.0 is not covered",
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


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", READ_ONLY, ids=lambda kind: kind.name)
def test_transformers_reads_the_same_bits_of_small_blocks(tmp_path, kind):
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    library = tokenizers.transformers()
    from safetensors.numpy import load_file

    write(tmp_path / "m.gguf", kind)
    theirs = library.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    )
    held = load_file(ours.folder(str(tmp_path / "m.gguf")) / "model.safetensors")
    wanted = theirs.state_dict()
    assert set(wanted) - set(held) <= {"lm_head.weight"}
    for name, x in held.items():
        assert x.astype(np.float32).tobytes() == wanted[name].numpy().tobytes(), name


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_transformers_reads_the_same_bits_tokens_and_scores(tmp_path, architecture, kind):
    """Of rows longer than the window; against transformers' own reading of the same file."""
    torch = pytest.importorskip("torch", reason="the parity extra is not installed")
    library = tokenizers.transformers()
    from safetensors.numpy import load_file

    write(tmp_path / "m.gguf", kind, architecture)
    options = {"gguf_file": "m.gguf", "dtype": torch.float32, "attn_implementation": "eager"}
    theirs = library.AutoModelForCausalLM.from_pretrained(tmp_path, **options).eval()
    held = load_file(ours.folder(str(tmp_path / "m.gguf")) / "model.safetensors")
    wanted = theirs.state_dict()
    assert set(wanted) - set(held) <= {"lm_head.weight"}
    for name, x in held.items():
        assert x.astype(np.float32).tobytes() == wanted[name].numpy().tobytes(), name

    model = checkpoint.load(tmp_path / "m.gguf")
    ids = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 24)).astype(np.int32)
    h = decoder.hidden(model, None, Batch(ids))
    here = jax.nn.log_softmax(logits(h, decoder.head(model.params)))
    with torch.no_grad():
        there = theirs(torch.tensor(ids.astype(np.int64))).logits.log_softmax(-1).numpy()
    np.testing.assert_allclose(here, there, atol=2e-3)

    reads = library.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    tokenizer = tokenizers.load(tmp_path / "m.gguf")
    for text in ("ab ab  c\n\n\né", "x a  12", " a", "<eos>a</s>", "b\ta\x00"):
        assert tokenizer(text)["input_ids"] == reads(text)["input_ids"], text
