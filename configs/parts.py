"""Fields that several configs share."""

from ml_collections import ConfigDict


def model(path: str = "") -> ConfigDict:
    """A checkpoint and the precision it computes in."""
    c = ConfigDict()
    c.path = path
    c.dtype = "float32"
    return c


def data() -> ConfigDict:
    """How data sets are read and tokenised."""
    c = ConfigDict()
    c.columns = ()
    c.shuffle = 0
    c.template = "plain"
    c.bos = True
    c.eos = True
    c.eos_scored = True
    c.targets = "completion"
    c.too_long = "truncate"
    c.stride = 0
    c.context = 0
    return c


def train() -> ConfigDict:
    """A LoRA fine-tune."""
    c = ConfigDict()
    c.steps = 100
    c.batch_size = 8
    c.microbatch = 0
    c.buckets = 6
    c.lr = 2e-4
    c.schedule = "linear"
    c.warmup = 10
    c.clip = 1.0
    c.decay = 0.0
    c.seed = 0
    c.save_every = 50
    c.heldout = 0
    c.eval_every = 50
    c.patience = 0
    c.by_task = ()
    c.remat = "none"
    c.trace = 0
    c.trace_steps = 3
    c.tensorboard = False
    return c


def mesh() -> ConfigDict:
    """How the devices are laid out; data 0 takes what the other axes leave."""
    c = ConfigDict()
    c.task = 1
    c.data = 0
    c.fsdp = 1
    c.tensor = 1
    return c


def lora() -> ConfigDict:
    """Adapters on every linear layer."""
    c = ConfigDict()
    c.rank = 8
    c.alpha = 16.0
    c.rslora = False
    c.dropout = 0.0
    c.targets = r"layers/(attn|mlp)/\w+"
    return c


def score() -> ConfigDict:
    """How examples are scored."""
    c = ConfigDict()
    c.rows = 8
    c.buckets = 6
    c.chunk = 1024
    c.packing = "auto"
    c.adapters_together = 0
    return c
