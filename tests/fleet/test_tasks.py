"""What is said of a run's tasks before they are trained."""

from forget_jax.fleet.tasks import say_warmup
from forget_jax.training.settings import Train


def test_a_learning_rate_that_does_not_reach_its_peak_is_said(capsys):
    say_warmup(Train(steps=5, warmup=10, lr=0.01))
    say_warmup(Train(steps=5, warmup=4), {"a": {"warmup": 5}, "b": {"steps": 2}})
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "train.warmup=10 is over train.steps=5: the learning rate ends at 50% of 0.01" in said[0]
    assert "train.warmup=4 of b is over train.steps=2" in said[1]
