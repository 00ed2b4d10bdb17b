"""Two stages of fact memorisation with REMIX's mixing; `:builtin` (default) runs offline."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Factoids, fields


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: short key-value facts; `kvr`: the paper's random strings."""
    if arg not in ("builtin", "kvr"):
        raise ValueError("it takes builtin or kvr")
    kind = "short_facts" if arg == "builtin" else "facts"
    c = fields(Factoids)
    c.stage_a = f"builtin:{kind}[:100]"
    c.stage_b = f"builtin:{kind}/B[:100]"
    c.mix = "builtin:random_words/10[:400]"
    c.train.batch_size = 32
    c.train.buckets = 2
    c.train.lr = 1e-3
    c.train.schedule = "cosine"
    c.train.warmup = 5
    c.lora.rank = 0
    return c
