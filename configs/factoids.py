"""Two stages of fact memorisation with REMIX's mixing; `:builtin` (default) runs offline."""

from ml_collections import ConfigDict

from forget_jax.configs import parts


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: short key-value facts; `kvr`: the paper's random strings."""
    if arg not in ("builtin", "kvr"):
        raise ValueError("it takes builtin or kvr")
    kind = "short_facts" if arg == "builtin" else "facts"
    c = ConfigDict()
    c.model = parts.model()
    c.stage_a = f"builtin:{kind}[:100]"
    c.stage_b = f"builtin:{kind}/B[:100]"
    c.mix = "builtin:random_words/10[:400]"
    c.ratio = 2.0
    c.arms = ("naive", "mix in A", "mix in B", "mix in both")
    c.epochs = 20
    c.max_new_tokens = 16
    c.seeds = 1

    c.data = parts.data()
    c.train = parts.train()
    del c.train.steps
    c.train.batch_size = 32
    c.train.buckets = 2
    c.train.lr = 1e-3
    c.train.schedule = "cosine"
    c.train.warmup = 5
    c.lora = parts.lora()
    c.lora.rank = 0
    c.mesh = parts.mesh()
    return c
