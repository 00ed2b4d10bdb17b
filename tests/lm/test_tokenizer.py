import pytest

from forget_jax.errors import UserError
from forget_jax.lm.hf import tokenizer as tk

TEXTS = [
    "The cat sat on the mat.",
    "a cat, 1234 mats; naïve café ☃ 12+34=46",
    "def f(x):\n    return x",
] * 20


@pytest.fixture(scope="module")
def trained():
    return tk.train(TEXTS, 300)


def test_round_trip_of_any_text(trained):
    for text in ["", " ", "  two  spaces ", "unseen Ωmega 漢字 \t\n\x00", *TEXTS]:
        assert trained.decode(trained(text, add_special_tokens=False)["input_ids"]) == text


def test_digits_are_split_and_specials_fixed(trained):
    ids = trained("98765", add_special_tokens=False)["input_ids"]
    assert [trained.decode([i]) for i in ids] == list("98765")
    assert (trained.bos_token_id, trained.eos_token_id, trained.pad_token_id) == (0, 1, 2)
    assert len(trained) <= 300


def test_training_is_deterministic(trained):
    assert (
        tk.train(iter(TEXTS), 300).backend_tokenizer.to_str() == trained.backend_tokenizer.to_str()
    )


def test_saved_tokenizer_loads_the_same(trained, tmp_path):
    tk.save(trained, tmp_path / "model")
    again = tk.load(tmp_path / "model")
    for text in TEXTS:
        assert again(text)["input_ids"] == trained(text)["input_ids"]
    assert again.eos_token_id == 1 and again.pad_token_id == 2
    assert again.decode(again("a , b .")["input_ids"], skip_special_tokens=True) == "a , b ."


def test_special_tokens_say_what_is_put_on(trained):
    special = tk.special_tokens(trained)
    assert special.bos == ("<s>", 0) and special.adds_bos
    assert special.line(bos=True, eos=False) == (
        "BOS: <s> (id 0) put on (the tokenizer by itself: yes); "
        "EOS: </s> (id 1) not put on (the tokenizer by itself: no)"
    )


def test_bad_input(tmp_path):
    with pytest.raises(UserError, match="259"):
        tk.train(TEXTS, 100)
    with pytest.raises(UserError, match="not a folder"):
        tk.load(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no tokenizer"):
        tk.load(tmp_path)
    work = tmp_path / "work"
    for folder in ("model", "tokenizer"):  # as a run leaves it
        (work / folder).mkdir(parents=True)
    with pytest.raises(UserError, match=r"is a workdir, not a model: give .*work/model"):
        tk.load(work)
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError, match="line 1: not valid JSON"):
        tk.load(tmp_path)
