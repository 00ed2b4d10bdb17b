"""Any GGUF file is a model and its tokenizer, or one line."""

import os
import shutil
import struct
import time

import numpy as np
import pytest
from gguf import GGUFValueType as Kind
from gguf.gguf_writer import GGUFValue
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forget_jax.errors import UserError
from forget_jax.lm.hf import about, checkpoint
from forget_jax.lm.hf import tokenizer as tokenizers
from tests.lm.test_gguf import write

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
RUN = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
NAMES = (
    *("general.architecture", "general.alignment", "llama.block_count", "llama.context_length"),
    *("llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count"),
    *("llama.attention.head_count_kv", "llama.attention.layer_norm_rms_epsilon"),
    *("llama.rope.freq_base", "llama.rope.scaling.type", "llama.rope.scaling.factor"),
    *("llama.rope.scaling.original_context_length", "llama.rope.dimension_count"),
    *("llama.attention.key_length", "llama.attention.value_length", "llama.expert_count"),
    *("llama.vocab_size", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens"),
    *("tokenizer.ggml.token_type", "tokenizer.ggml.merges", "tokenizer.ggml.scores"),
    *("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.chat_template"),
    *("tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id"),
    *("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix"),
    *("tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"),
)
WORD = st.sampled_from(
    ["", "llama", "qwen2", "gemma3", "mamba", "gpt2", "bert", "yarn", "linear", "a\nb", "Ġ a", "a"]
) | st.text(st.characters(codec="utf-8"), max_size=5)
FEW = st.integers(0, 9) | st.sampled_from([16, 64, 2**31 - 1])
ENTRY = st.one_of(
    st.tuples(st.just(Kind.UINT32), FEW | st.integers(0, 2**32 - 1)),
    st.tuples(st.just(Kind.INT32), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just(Kind.UINT64), FEW | st.integers(0, 2**64 - 1)),
    st.tuples(st.just(Kind.FLOAT32), st.floats(width=32)),
    st.tuples(st.just(Kind.FLOAT64), st.floats()),
    st.tuples(st.just(Kind.BOOL), st.booleans()),
    st.tuples(st.just(Kind.STRING), WORD),
    st.tuples(st.just(Kind.ARRAY), st.lists(WORD, min_size=1, max_size=4)),
    st.tuples(st.just(Kind.ARRAY), st.lists(st.integers(0, 9), min_size=1, max_size=4)),
    st.tuples(st.just(Kind.ARRAY), st.lists(st.floats(0, 9, width=32), min_size=1, max_size=4)),
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 31, 32, 64, 96]), min_size=1, max_size=3)
FLOATS = st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.int32])
WILD = st.sampled_from([0, 1, 2**31, 2**40, 2**62, 2**63, 2**64 - 1]).map(struct.Struct("<Q").pack)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """The bytes of a good file, and where its header ends."""
    path = tmp_path_factory.mktemp("good") / "m.gguf"
    write(path)
    data = path.read_bytes()
    return data, data.index(b"output_norm.weight") + 100


@pytest.fixture
def read(tmp_path, monkeypatch):
    """A function that reads a file in all ways that commands do: values, or one line."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def one(path):
        began = time.process_time()
        for action in (checkpoint.load, tokenizers.load, about.eos_ids):
            try:
                action(path)
            except UserError as e:
                line = str(e)
                assert line.isprintable() and len(line) < 1000
                assert str(path) in line or str(cache) in line
        assert time.process_time() - began < 10
        shutil.rmtree(cache, ignore_errors=True)
        path.unlink()

    return one


@pytest.mark.fault("fuzzed GGUF headers", "one line")
def test_headers(held, read, tmp_path, tried):
    good, end = held

    @RUN
    @given(st.data())
    def one(data):
        text = good
        for _ in range(data.draw(st.integers(1, 2))):
            at = data.draw(st.integers(0, end))
            new = data.draw(WILD | st.binary(max_size=4))
            gone = data.draw(st.sampled_from([len(new), len(new), 0, 3]))
            text = text[:at] + new + text[at + gone :]
        path = tmp_path / "m.gguf"
        path.write_bytes(text[: data.draw(st.sampled_from([len(text)] * 4 + [end, end // 2]))])
        read(path)

    one()
    tried(EXAMPLES)


@pytest.mark.fault("fuzzed GGUF entries and tensors", "one line")
def test_entries_and_tensors(read, tmp_path, tried):
    @RUN
    @given(st.data())
    def one(data):
        changes = data.draw(st.dictionaries(st.sampled_from(NAMES), st.none() | ENTRY, max_size=3))
        tensors = data.draw(st.integers(0, 1))

        def change(writer):
            for name, entry in changes.items():
                writer.kv_data[0].pop(name, None)
                if entry is not None:
                    writer.kv_data[0][name] = GGUFValue(value=entry[1], type=entry[0])
            for _ in range(tensors):
                names = st.sampled_from(sorted(writer.tensors[0]))
                writer.tensors[0].pop(data.draw(names))
                if data.draw(st.booleans()):
                    name = data.draw(
                        names | st.sampled_from(["output.weight", "rope_freqs.weight"])
                    )
                    writer.tensors[0].pop(name, None)
                    x = np.zeros(data.draw(SHAPES), data.draw(FLOATS))
                    writer.add_tensor(name, x)

        path = tmp_path / "m.gguf"
        write(path, change=change)
        read(path)

    one()
    tried(EXAMPLES)
