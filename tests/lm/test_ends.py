"""Live parity: where answers end, and heads of their own, as transformers has them.

Needs the `parity` extra.
"""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from forget_jax.commands import driver, report
from forget_jax.commands.settings import Export
from forget_jax.errors import UserError
from forget_jax.lm import decoder, generate
from forget_jax.lm.hf import about, checkpoint
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.lm.hf.tensor_files import INDEX, SINGLE
from forget_jax.lm.model import Model

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch", reason="the parity extra is not installed")

NEW = 16
TEXTS = ["the cat sat on the mat", "a dog ran 12 miles", "every poet forgets", "é 7 x", "on a mat"]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def theirs(parity, folder, prompts):
    """What transformers says by itself, without the token that ends it."""
    model = parity.torch_model(folder)
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    said = []
    for ids in prompts:
        x = torch.tensor([ids])
        new = model.generate(
            x, attention_mask=torch.ones_like(x), max_new_tokens=NEW, do_sample=False
        )[0, len(ids) :].tolist()
        said.append(new[:-1] if new[-1] in ends else new)
    return said


def ours(folder, prompts):
    until = generate.Until(NEW, about.eos_ids(folder))
    return generate.greedy(checkpoint.load(folder), None, prompts, until)


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A model with a tokenizer that says long and different things, and what these are."""
    folder = tmp_path_factory.mktemp("ends") / "model"
    tokenizer = tokenizers.train(TEXTS * 5, 290)
    config = decoder.DecoderConfig(len(tokenizer), 32, 2, 4, 2, 8, 48, 64)
    params = jax.tree.map(lambda x: x * 4, decoder.init(config, jax.random.key(0)))
    model = Model(config, params)
    checkpoint.save(folder, model, tokenizer)
    prompts = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in TEXTS]
    free = generate.greedy(model, None, prompts, generate.Until(NEW))
    assert len({tuple(n) for n in free}) == len(TEXTS)
    return folder, prompts, free


def late(free):
    """For each of three rows, a token that it says late, for the first time."""
    return [next(t for i, t in enumerate(row) if i > 4 and t not in row[:i]) for row in free[:3]]


def lists(ends):
    """What `eos_token_id` may be."""
    return {"one": ends[0], "a list of one": ends[:1], "three": ends}


@pytest.mark.fault("ends of answers", "as it should be")
@pytest.mark.parametrize("kind", ["one", "a list of one", "three"])
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_answers_end_where_transformers_ends_them(
    speaking, parity, tmp_path, monkeypatch, kind, file
):
    folder, prompts, free = speaking
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    value = lists(late(free))[kind]
    raw = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(raw | {"eos_token_id": value, "pad_token_id": 2}))
    expected = theirs(parity, folder, prompts)
    assert ours(folder, prompts) == expected
    ended = {f[len(row)] for f, row in zip(free, expected, strict=True) if len(row) < NEW}
    assert len(ended) > (1 if kind == "three" else 0)
    monkeypatch.setattr(report, "build", lambda workdir: None)
    driver.drive("export", Export(str(folder)), tmp_path / "out")
    out = tmp_path / "out" / "model"
    assert ours(out, prompts) == theirs(parity, out, prompts) == expected


def in_shards(tensors, folder):
    """Writes tensors as two shards with an index, the head and the embedding apart."""
    split = [{k: v for k, v in tensors.items() if (k == HEAD) == i} for i in (False, True)]
    where = {}
    for i, some in enumerate(split if split[1] else split[:1]):
        name = f"model-{i + 1:05d}-of-{len(split):05d}.safetensors"
        save_file(some, folder / name, {"format": "pt"})
        where |= dict.fromkeys(some, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def tied(golden, parity, folder, files, factor):
    """A checkpoint that calls its head tied and holds one: the embedding times a factor."""
    case = golden["llama_tied_llama3_rope"]
    parity.tiny.write_checkpoint(case, folder)
    tensors = load_file(folder / SINGLE)
    tensors[HEAD] = tensors[EMBED] * np.float32(factor)
    if files == "single":
        save_file(tensors, folder / SINGLE, {"format": "pt"})
    else:
        (folder / SINGLE).unlink()
        in_shards(tensors, folder)
    return case["prompts"], tensors


@pytest.mark.fault("heads and files that disagree", "as it should be")
@pytest.mark.parametrize("files", ["single", "shards"])
@pytest.mark.parametrize(("factor", "is_tied"), [(1, True), (0.5, False)])
def test_a_head_under_a_tied_flag(golden, parity, tmp_path, files, factor, is_tied):
    prompts, _ = tied(golden, parity, tmp_path / "m", files, factor)
    model = checkpoint.load(tmp_path / "m")
    assert model.config.tied_head == is_tied
    expected = parity.torch_logp(parity.torch_model(tmp_path / "m"), prompts)
    assert parity.gap(expected, parity.our_logp(model, None, prompts)) < 1e-4
    golden_logp = [np.array(row) for row in golden["llama_tied_llama3_rope"]["logp"]]
    assert (parity.gap(expected, golden_logp) < 1e-4) == is_tied
    checkpoint.save(tmp_path / "back", model, hf_config=about.raw_config(tmp_path / "m"))
    back = parity.torch_logp(parity.torch_model(tmp_path / "back"), prompts)
    assert parity.gap(expected, back) < 1e-4


@pytest.mark.fault("heads and files that disagree", "as it should be")
@pytest.mark.parametrize("files", ["single", "shards"])
def test_tensors_that_an_index_does_not_list(golden, parity, tmp_path, files):
    """transformers loads all that is in the files that an index names."""
    folder = tmp_path / "m"
    prompts, tensors = tied(golden, parity, folder, "single", 0.5)
    names = {SINGLE: tensors}
    if files == "shards":
        (folder / SINGLE).unlink()
        a = {k: v for k, v in tensors.items() if "layers" in k}
        names = {
            "model-a.safetensors": a,
            "model-b.safetensors": {k: tensors[k] for k in tensors.keys() - a.keys()},
        }
        for name, some in names.items():
            save_file(some, folder / name, {"format": "pt"})
    where = {k: name for name, some in names.items() for k in some if k != HEAD}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    expected = parity.torch_logp(parity.torch_model(folder), prompts)
    assert parity.gap(expected, parity.our_logp(checkpoint.load(folder), None, prompts)) < 1e-4


@pytest.mark.fault("heads and files that disagree", "one line")
@pytest.mark.parametrize("factor", [1, 0.5])
def test_a_single_file_and_an_index_that_disagree(golden, parity, tmp_path, factor):
    prompts, tensors = tied(golden, parity, tmp_path / "m", "shards", 1)
    tensors[EMBED] = tensors[EMBED] * np.float32(factor)
    save_file(tensors, tmp_path / "m" / SINGLE, {"format": "pt"})
    with pytest.raises(UserError, match="which names other files: remove the one"):
        checkpoint.load(tmp_path / "m")
    if factor != 1:  # what it would have been: transformers takes the single file
        theirs = parity.torch_logp(parity.torch_model(tmp_path / "m"), prompts)
        (tmp_path / "m" / SINGLE).unlink()
        assert (
            parity.gap(theirs, parity.our_logp(checkpoint.load(tmp_path / "m"), None, prompts))
            > 0.1
        )
