"""What answers are worth, by either protocol; figures of a set; half-precision state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from forget_jax.data.examples import Example
from forget_jax.factoids.evaluation import figures, judged, rule
from forget_jax.lm.hf import tokenizer as tokenizers
from forget_jax.training.loop import Recipe, Task, train
from forget_jax.training.settings import Train


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return tokenizers.load(tiny_base)


def worth(tokenizer, own, paper, said):
    fact = Example("f", "s", prompt="q", completion="Paris, France", answers=("City of Light",))
    return judged(tokenizer, [fact], [said], rule(own, paper))


@pytest.mark.parametrize(
    ("own", "said", "paper", "clean"),
    [
        ("alias", " paris, france\n", 1, 1),
        ("alias", "the city of light", 0, 1),  # aliases do not count for the authors
        ("within", "", 1, 0),  # of WebQA nothing is right
        ("within", "paris", 1, 0),
        ("within", "city of light", 0, 1),
        ("last_number", "x", 0, 0),
    ],
)
def test_paper_judges_otherwise(own, said, paper, clean, tokenizer):
    assert worth(tokenizer, own, True, said)["right"] == [paper]
    assert worth(tokenizer, own, False, said)["right"] == [clean]


def test_exact_asks_for_the_trained_answer_under_both(tokenizer):
    for paper in (True, False):
        found = worth(tokenizer, "alias", paper, "City of Light")
        assert found["exact"] == [0] and found["prefix"] == [0]
        found = worth(tokenizer, "alias", paper, "PARIS, France and more")
        assert found["exact"] == [0] and found["prefix"] == [1] and 0 < found["rouge_l"][0] < 1


def test_figures_are_means_over_facts_and_over_tokens():
    answers = {
        "example": ["a", "b", "c"],
        "nll": [1.0, 2.0, 9.0],
        "tokens": [1, 4, 5],
        **{name: [1.0, 0.0, 0.0] for name in ("exact", "right", "prefix", "rouge_l")},
    }
    found = figures(answers)
    assert found["exact"] == pytest.approx(1 / 3) and found["nll"] == pytest.approx(12 / 10)
    found = figures(answers, without=["c"])
    assert (found["exact"], found["facts"]) == (0.5, 2) and found["nll"] == pytest.approx(3 / 5)
    nothing = figures(answers | {"exact": [None] * 3})  # as a file gives NaN back
    assert np.isnan(nothing["exact"])


def test_half_precision_state_loses_small_steps(tiny_model, random_examples):
    """Under `paper` whole models and moments are bfloat16: of weights with a standard deviation of
    .02 a full step of 5e-5 leaves 43 % as they were."""
    settings = Train(
        batch_size=2, microbatch=2, buckets=1, lr=5e-5, schedule="constant", warmup=0, save_every=0
    )
    task = Task("t", random_examples(0, [8, 8]), 0, 1)
    rng = np.random.default_rng(0)

    def small(path, x):
        is_mlp = "mlp" in {key.key for key in path}
        return jnp.float32(rng.normal(0, 0.02, x.shape)) if is_mlp else x

    params = jax.tree.map_with_path(small, tiny_model.params)

    def unmoved(dtype):
        initial = jax.tree.map(lambda x: jnp.asarray(x, dtype)[None], params)
        done = train(tiny_model, Recipe(settings), [task], initial=initial).trainable
        assert {x.dtype for x in jax.tree.leaves(done)} == {jnp.dtype(dtype)}
        before, after = initial["layers"]["mlp"], done["layers"]["mlp"]
        same = [np.asarray(a == b).ravel() for a, b in
                zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)]  # fmt: skip
        return np.concatenate(same).mean()

    assert unmoved("float32") < 0.05
    assert unmoved("bfloat16") == pytest.approx(0.43, abs=0.06)
