"""The forgetting matrix: M tasks against N upstream examples; `:builtin` (default) runs offline."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Associate, fields

# What the tasks use; the base and the upstream examples leave these out.
TASK_MODULES = ("email", "http", "logging", "multiprocessing", "unittest", "xml")
TASK_SKILLS = ("addition", "reversal", "roman_numerals", "sorting", "letter_position", "calendar")

MODULES = ",".join(f"-{m}" for m in TASK_MODULES)
SKILLS = ",".join(f"-{s}" for s in TASK_SKILLS)
TASKS = (
    *(f"builtin:docstring_task/{m}[:120]" for m in TASK_MODULES),
    *(f"builtin:skill/{s}[:120]" for s in TASK_SKILLS),
)
UPSTREAM = (
    "builtin:language_reference[:100]",
    f"builtin:docstrings/{MODULES}[:150]",
    f"builtin:skills/{SKILLS}[:60]",
)


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: text that ships with Python; `empty`: tasks and upstream are yours to give."""
    c = fields(Associate)
    if arg == "builtin":
        c.tasks, c.upstream = TASKS, UPSTREAM
        c.exact_match.max_new_tokens = 32
    elif arg != "empty":
        raise ValueError("it takes builtin or empty")
    return small_steps(c)


def small_steps(c: ConfigDict) -> ConfigDict:
    """A config of many tasks for short rows and a small base."""
    c.data.context = 128
    c.train.steps = 30
    c.train.lr = 2e-3
    c.train.warmup = 3
    c.train.save_every = 10
    c.score.chunk = 128
    return c
