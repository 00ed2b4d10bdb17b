"""What both sides must agree on: the models that are measured, and how long the clock waits."""

from forget_jax.lm.config import DecoderConfig

TINY = DecoderConfig(
    vocab_size=512,
    width=32,
    layers=2,
    heads=2,
    kv_heads=2,
    head_dim=16,
    mlp_width=64,
    context=64,
    tied_head=False,
)
SMALL = DecoderConfig(  # 5.3 M parameters
    vocab_size=4096,
    width=256,
    layers=4,
    heads=4,
    kv_heads=4,
    head_dim=64,
    mlp_width=688,
    context=512,
    tied_head=False,
)
SMOLLM2 = DecoderConfig(  # SmolLM2 135M, with rows of at most 256 tokens
    vocab_size=49152,
    width=576,
    layers=30,
    heads=9,
    kv_heads=3,
    head_dim=64,
    mlp_width=1536,
    context=256,
    rope_theta=100000.0,
)
LLAMA_1B = DecoderConfig(  # Llama 3.2 1B
    vocab_size=128256,
    width=2048,
    layers=16,
    heads=32,
    kv_heads=8,
    head_dim=64,
    mlp_width=8192,
    context=4096,
    rope_theta=500000.0,
    dtype="bfloat16",
)
LLAMA_7B = DecoderConfig(  # Llama 2 7B
    vocab_size=32000,
    width=4096,
    layers=32,
    heads=32,
    kv_heads=32,
    head_dim=128,
    mlp_width=11008,
    context=4096,
    tied_head=False,
    dtype="bfloat16",
)
SHAPES = {"tiny": TINY, "small": SMALL, "smollm2": SMOLLM2, "1b": LLAMA_1B, "7b": LLAMA_7B}
PRETRAINED = {"smollm2": "builtin:smollm2"}  # shapes of models whose weights and words are at hand
FEWER = {"smollm2": 4}  # how many times fewer rows a slow model takes
CPU_SHAPES = "the model on CPU: small (the default), tiny or smollm2"
ADAPTERS = 8  # how many are made, to be scored together
SKIPPED = 2  # steps of training before the clock starts: they may compile
