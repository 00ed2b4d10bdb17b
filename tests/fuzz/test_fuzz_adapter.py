"""Any adapter_config.json and any safetensors bytes are an adapter or one line."""

import json
import os
import time

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from forget_jax.errors import UserError
from forget_jax.lm import lora
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.decoder import init
from forget_jax.lm.hf import checkpoint, fingerprint, peft, peft_merge, tensor_files
from forget_jax.lm.model import Adapters, Model

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
RUN = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SHAPE = DecoderConfig(11, 4, 1, 2, 1, 2, 6, 16)

NUMBER = st.integers(-3, 9) | st.integers() | st.floats() | st.sampled_from([2**64, 1e300, 8.0])
TEXT = st.sampled_from(["", "q_proj", "lm_head", "none", "all", "a\nb", "\ud800", "pissa", "LORA"])
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PIECE = st.sampled_from([*"qk_.*+?(|)[]{}^$\\,1d", "proj", "(?:", "(?i)", "(.*)", "{2}", "\\."])
PATTERN = st.lists(PIECE, max_size=12).map("".join) | st.text(max_size=6)
FIELDS = (
    *("r", "lora_alpha", "use_rslora", "use_dora", "lora_dropout", "bias", "modules_to_save"),
    *("rank_pattern", "alpha_pattern", "target_modules", "peft_type", "init_lora_weights"),
    *("base_model_name_or_path", "layer_replication", "ensure_weight_tying"),
)
CHANGES = st.dictionaries(
    st.sampled_from(FIELDS),
    VALUE | st.dictionaries(PATTERN, NUMBER | VALUE, max_size=3),
    max_size=3,
)


@pytest.fixture(scope="module")
def model():
    return Model(SHAPE, init(SHAPE, jax.random.key(0)))


@pytest.fixture
def adapter(model, tmp_path):
    config = lora.LoRAConfig(rank=2, targets="layers/attn/(q|v)")
    one = Adapters(config, lora.init(config, model.params, jax.random.key(0)))
    peft.save(tmp_path / "adapter", one, SHAPE)
    return tmp_path / "adapter"


def read(folder, model):
    """Either way of taking an adapter: a value, or one line that names it."""
    began = time.process_time()
    try:
        load = peft.load if peft.is_plain(folder) else peft_merge.load
        found = load(folder, model)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    except UserError as e:
        line = str(e)
        assert line.isprintable() and str(folder) in line and len(line) < 3000
    assert time.process_time() - began < 5


def broken(data, text):
    """A document with some bytes of it put in or taken out."""
    at = data.draw(st.integers(0, len(text)))
    more = data.draw(st.binary(max_size=4))
    return text[:at] + more + text[at + data.draw(st.integers(0, 4)) :]


@pytest.mark.fault("fuzzed adapter configs", "one line")
def test_configs(model, adapter, tried):
    file = adapter / "adapter_config.json"
    good = json.loads(file.read_text())

    @RUN
    @given(CHANGES, st.data())
    def one(changes, data):
        text = json.dumps(good | changes).encode()
        file.write_bytes(broken(data, text) if data.draw(st.integers(0, 3)) == 0 else text)
        read(adapter, model)

    one()
    tried(EXAMPLES)


@st.composite
def entries(draw, names):
    """A safetensors header whose entries are nearly right."""
    few = st.integers(-1, 5) | st.sampled_from([8, 16, 2**31, 2**62, 2**64]) | VALUE
    held = {}
    for name in draw(st.lists(st.sampled_from(names) | TEXT, max_size=3)):
        held[name] = {
            "dtype": draw(
                st.sampled_from(["F32", "F16", "I8", "F4", "C64", "BOOL", "\x7f"]) | VALUE
            ),
            "shape": draw(st.lists(few, max_size=3) | VALUE),
            "data_offsets": draw(st.lists(few, max_size=3) | VALUE),
        }
    return held


@pytest.mark.fault("fuzzed safetensors headers", "one line")
def test_headers(model, adapter, tried):
    file = adapter / "adapter_model.safetensors"
    good = file.read_bytes()
    end = 8 + int.from_bytes(good[:8], "little")
    header = json.loads(good[8:end])

    @RUN
    @given(entries(sorted(header)), st.data())
    def one(changes, data):
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            file.write_bytes(broken(data, good))
        else:
            text = json.dumps((header if kind == 1 else {}) | changes).encode()
            length = data.draw(st.just(len(text)) | st.integers(0, 2**64 - 1))
            file.write_bytes(length.to_bytes(8, "little") + text + good[end:])
        read(adapter, model)
        try:
            with file.open("rb") as f:
                tensor_files.header(f, file.stat().st_size, str(file))
        except UserError as e:
            assert str(e).isprintable() and str(file) in str(e)

    one()
    tried(EXAMPLES)


@pytest.mark.fault("fuzzed tensors of adapters", "one line")
def test_tensors(model, adapter, tried):
    file = adapter / "adapter_model.safetensors"
    good = load_file(file)
    names = [*good, "base_model.model.lm_head.weight", "lm_head.lora_A.weight"]
    names += [n.replace(".lora_A.", ".lora_A.default.") for n in sorted(good)]
    names += [n.replace(".lora_A.", ".lora_magnitude_vector.") for n in sorted(good)]
    names += ["base_model.model.model.embed_tokens.weight", "model.embed_tokens.lora_embedding_A"]
    shapes = st.lists(st.sampled_from([0, 1, 2, 4, 11, 12]), max_size=3)
    kinds = st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.bool_])
    values = st.sampled_from([0.0, 0.1, 1e30, np.nan, np.inf])
    made = st.dictionaries(st.sampled_from(names), st.tuples(shapes, kinds, values), max_size=3)
    config = adapter / "adapter_config.json"
    raw = json.loads(config.read_text())

    @RUN
    @given(made, st.sets(st.sampled_from(sorted(good)), max_size=2), st.booleans())
    def one(made, gone, dora):
        kept = {n: x for n, x in good.items() if n not in gone}
        with np.errstate(all="ignore"):
            more = {n: np.full(s, v).astype(kind) for n, (s, kind, v) in made.items()}
        save_file(kept | more, file)
        config.write_text(json.dumps(raw | {"use_dora": dora}))
        read(adapter, model)

    one()
    tried(EXAMPLES)


@pytest.mark.fault("fuzzed safetensors indexes", "one line")
def test_indexes(model, tmp_path, tried):
    folder = tmp_path / "sharded"
    checkpoint.save(folder, model, shard_bytes=300)
    index = folder / tensor_files.INDEX
    good = json.loads(index.read_text())
    tensors, shards = sorted(good["weight_map"]), sorted(set(good["weight_map"].values()))
    names = TEXT | st.sampled_from([*shards, "../x.safetensors", "a" * 300 + ".safetensors", "\0"])
    changes = st.dictionaries(st.sampled_from(tensors) | TEXT, names | VALUE, max_size=3)

    @RUN
    @given(changes, VALUE, st.data())
    def one(changes, value, data):
        held = good | {"weight_map": good["weight_map"] | changes}
        kind = data.draw(st.integers(0, 5))
        held = {0: value, 1: good | {"weight_map": value}}.get(kind, held)
        text = json.dumps(held).encode()
        index.write_bytes(broken(data, text) if kind == 2 else text)
        for action in (checkpoint.load, fingerprint.of):
            try:
                action(folder)
            except UserError as e:
                assert str(e).isprintable() and str(folder) in str(e)

    one()
    tried(EXAMPLES)
