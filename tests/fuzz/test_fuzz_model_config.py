"""Any config.json, and any file of a tokenizer, is a model's or one line."""

import contextlib
import copy
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.lm.config import DecoderConfig
from forget_jax.lm.hf import about, families, hf_config, hf_values
from forget_jax.lm.hf import tokenizer as tokenizers
from tests.lm.conftest import golden_cases

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
RUN = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)

NUMBER = (
    st.integers(-2, 9)
    | st.integers()
    | st.floats()
    | st.sampled_from([10**9, 2**31, 2**64, 10**40, 1e300, 8.0, 64, 128])
)
NAMES = ("default", "linear", "yarn", "llama3", "dynamic", "gelu", "relu", "full_attention")
TEXT = st.sampled_from(["", "llama", "a\nb", "\ud800", "\x1b[2J", *NAMES]) | st.text(max_size=5)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
# What transformers' own classes take for more than a value, or spell in another way.
MORE = (
    *("rope_scaling", "rope_theta", "rotary_pct", "rotary_emb_base", "partial_rotary_factor"),
    *("num_labels", "id2label", "label2id", "problem_type", "torch_dtype", "dtype", "auto_map"),
    *("quantization_config", "per_layer_config", "layer_types", "attribute_map", "to_dict"),
    *("self", "_attn_implementation", "attn_implementation", "output_attentions", "__class__"),
    *("head_dim", "sliding_window", "text_config", "rope_parameters", "hidden_size", "n_inner"),
    *("rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"),
    *("original_max_position_embeddings", "num_hidden_layers", "model_type", "architectures"),
)
ROPE = st.dictionaries(
    st.sampled_from(
        [*hf_values.SCALING, "rope_type", "type", "rope_theta", "partial_rotary_factor"]
    )
    | TEXT,
    NUMBER | TEXT | VALUE,
    max_size=4,
)
ROPES = ROPE | st.dictionaries(st.sampled_from(list(families.LAYER_TYPES)), ROPE, max_size=2)


def places(value, path=()):
    """Every place of a JSON value, as keys from its root."""
    yield path
    inside = value if isinstance(value, dict | list) else []
    items = inside.items() if isinstance(inside, dict) else enumerate(inside)
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    """The value with another one at a place; None takes the place away."""
    if not path:
        return new
    held = copy.copy(value)
    if new is None and len(path) == 1:
        del held[path[0]]
    else:
        held[path[0]] = changed(held[path[0]], path[1:], new)
    return held


def broken(data, text):
    """A document with some bytes of it put in or taken out."""
    at = data.draw(st.integers(0, len(text)))
    more = data.draw(st.binary(max_size=4))
    return text[:at] + more + text[at + data.draw(st.integers(0, 4)) :]


@contextlib.contextmanager
def one_line(where):
    try:
        yield
    except UserError as e:
        line = str(e)
        assert "\n" not in line and where in line and len(line) < 1000
        line.encode()


@pytest.mark.fault("fuzzed model configs", "one line")
def test_configs(tmp_path, tried, capfd):
    file = tmp_path / "config.json"
    cases = [case["config"] for case in golden_cases().values()]
    names = sorted({key for family in families.FAMILIES.values() for key in family.fields})

    @RUN
    @given(st.sampled_from(cases), st.data())
    def one(good, data):
        raw = good
        for _ in range(data.draw(st.integers(1, 3))):
            key = data.draw(st.sampled_from([*sorted(good), *MORE, *names]) | TEXT)
            rope = key in ("rope_parameters", "rope_scaling")
            raw = raw | {key: data.draw(ROPES | VALUE if rope else VALUE)}
        text = json.dumps(raw).encode()
        file.write_bytes(broken(data, text) if data.draw(st.integers(0, 5)) == 0 else text)
        with one_line(str(file)):
            config = hf_config.read(files.read_json(file), str(file))
            assert isinstance(config, DecoderConfig) and hash(config) is not None
            again = hf_config.write(config, "float32")
            assert hf_config.read(again, "again") == config

    one()
    tried(EXAMPLES)
    said = capfd.readouterr()
    assert not said.out and not said.err


@pytest.mark.fault("fuzzed ends of answers", "one line")
def test_generation_configs(tmp_path, tried):
    file = tmp_path / about.GENERATION

    @RUN
    @given(VALUE, st.lists(NUMBER, max_size=3), st.data())
    def one(value, ids, data):
        kind = data.draw(st.integers(0, 2))
        held = [value, {"eos_token_id": value}, {"eos_token_id": ids}][kind]
        file.write_text(json.dumps(held))
        with one_line(str(file)):
            assert all(0 <= i < 2**31 for i in about.eos_ids(tmp_path))

    one()
    tried(EXAMPLES)


@pytest.fixture(scope="module")
def small():
    """The files of tokenizers of every kind of model, as JSON values."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    words = {w: i for i, w in enumerate(["[UNK]", "a", "b", "ab", "##b", "▁", "▁a"])}
    kinds = (
        models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
        models.WordLevel(words, unk_token="[UNK]"),
        models.WordPiece(words, unk_token="[UNK]"),
        models.Unigram([("<unk>", 0.0), ("a", -1.0), ("▁", -2.0)], unk_id=0),
    )
    found = []
    for model in kinds:
        made = Tokenizer(model)
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        made.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
        whole = tokenizers.transformers().PreTrainedTokenizerFast(
            tokenizer_object=made, bos_token="<s>", eos_token="</s>"
        )
        files_ = {"tokenizer.json": json.loads(whole.backend_tokenizer.to_str())}
        files_["tokenizer_config.json"] = {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "tokenizer_class": "TokenizersBackend",
            "model_max_length": 10,
        }
        found.append(files_)
    return found


@pytest.mark.fault("fuzzed tokenizers", "one line")
def test_tokenizers(small, tmp_path, tried):
    more = ("chat_template", "added_tokens_decoder", "auto_map", "extra_special_tokens", "backend")
    more += ("padding_side", "model_input_names", "add_bos_token", "pad_token", "legacy")

    @RUN
    @given(st.sampled_from(small), st.data())
    def one(good, data):
        name = data.draw(st.sampled_from(sorted(good)))
        raw = good[name]
        for _ in range(data.draw(st.integers(1, 2))):
            places_ = list(places(raw))
            raw = changed(raw, data.draw(st.sampled_from(places_)), data.draw(VALUE))
            if name == "tokenizer_config.json" and isinstance(raw, dict):
                raw = raw | {data.draw(st.sampled_from(more) | TEXT): data.draw(VALUE)}
            if not isinstance(raw, dict | list):
                break
        for other, held in good.items():
            text = json.dumps(raw if other == name else held).encode()
            wild = other == name and data.draw(st.integers(0, 5)) == 0
            (tmp_path / other).write_bytes(broken(data, text) if wild else text)
        with one_line(str(tmp_path)):
            tokenizer = tokenizers.load(tmp_path)
            tokenizers.special_tokens(tokenizer)
            assert tokenizer.get_vocab()
            ids = tokenizers.encode(tokenizer, data.draw(st.lists(TEXT, min_size=1, max_size=3)))[
                "input_ids"
            ]
            assert all(isinstance(tokenizer.decode(row), str) for row in ids)
            tokenizers.save(tokenizer, tmp_path / "again")

    one()
    tried(EXAMPLES)
