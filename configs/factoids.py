"""Facts memorised, others after them, and what keeps the first; `:builtin` runs offline."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Factoids, fields

ARGS = ("builtin", "wide", "kvr", "paper")
ARMS = (
    "naive",
    *("random in A", "random in B", "random in both"),
    *("generic in A", "generic in B", "generic in both", "random in A + generic in B"),
    *("steps in A", "steps in B", "steps in both"),
    *("replay:1", "replay:5", "replay:10", "redraw:1", "redraw:5", "redraw:10"),
    *("ewc:10", "ewc:100", "kl:0.3", "kl", "l2:0.1", "l2:1", "lora", "freeze"),
    *("random in A + redraw:1", "joint"),
)


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`, `wide`, `kvr` or `paper`.

    `builtin`: short facts in a setting where stage B leaves something to tell apart. `wide`: the
    same with every arm over three seeds, and what is lost asked back. `kvr`: the paper's random
    strings. `paper`: its optimisation and the quirks of its code, on 2000 such facts.
    """
    if arg not in ARGS:
        raise ValueError(f"it takes one of {', '.join(ARGS)}")
    c = fields(Factoids)
    kind = "short_facts" if arg in ("builtin", "wide") else "facts"
    c.stage_a = f"builtin:{kind}[:100]"
    c.stage_b = f"builtin:{kind}/B[:100]"
    c.mix = "builtin:random_words/4"
    c.generic_words = 4
    c.epochs = 60
    c.stop = "loss"
    c.stop_loss = 0.02
    c.later_lr = 0.3
    c.train.batch_size = 16
    c.train.buckets = 2
    c.train.lr = 2e-3
    c.train.schedule = "cosine"
    c.train.floor = 0.1
    c.train.warmup = 5
    c.lora.rank = 0
    if arg == "wide":
        c.arms = ARMS
        c.seeds = 3
        c.recover = 10
        c.lens = True
        c.displacement = True
    if arg == "paper":
        c.stage_a = "builtin:facts[:2000]"
        c.stage_b = "builtin:facts/B[:2000]"
        c.mix = "builtin:random_words"
        c.generic_words = 50
        c.epochs = 20
        c.stop = "fixed"
        c.later_lr = 1.0
        c.protocol = "paper"
        c.train.batch_size = 32
        c.train.buckets = 6
        c.train.lr = 5e-5
        c.train.floor = 0.0
        c.train.warmup = 62
    return c
