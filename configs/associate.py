"""The forgetting matrix: M tasks against N upstream examples; `:builtin` (default) runs offline."""

from ml_collections import ConfigDict

from forget_jax.configs import parts

# What the tasks use; the base and the upstream examples leave these out.
TASK_MODULES = ("email", "http", "logging", "multiprocessing", "unittest", "xml")
TASK_SKILLS = ("addition", "reversal", "roman_numerals", "sorting", "letter_position", "calendar")


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: text that ships with Python; `empty`: tasks and upstream are yours to give."""
    if arg not in ("builtin", "empty"):
        raise ValueError("it takes builtin or empty")
    c = ConfigDict()
    c.model = parts.model()

    modules = ",".join(f"-{m}" for m in TASK_MODULES)
    skills = ",".join(f"-{s}" for s in TASK_SKILLS)
    builtin = arg == "builtin"
    c.tasks = (
        tuple(f"builtin:docstring_task/{m}[:120]" for m in TASK_MODULES)
        + tuple(f"builtin:skill/{s}[:120]" for s in TASK_SKILLS)
        if builtin
        else ()
    )
    c.upstream = (
        (
            "builtin:language_reference[:100]",
            f"builtin:docstrings/{modules}[:150]",
            f"builtin:skills/{skills}[:60]",
        )
        if builtin
        else ()
    )
    c.tasks_together = 16
    c.part = ""
    c.repeat_tasks = 4
    c.r2_ranks = 5
    c.metric = "nll"
    c.exact_match = ConfigDict()
    c.exact_match.max_new_tokens = 32 if builtin else 512
    c.exact_match.cut = "blank_line"
    c.exact_match.normaliser = "squad"

    c.data = parts.data()
    c.data.context = 128
    c.train = parts.train()
    c.train.steps = 30
    c.train.lr = 2e-3
    c.train.warmup = 3
    c.train.save_every = 10
    c.lora = parts.lora()
    c.mesh = parts.mesh()
    c.score = parts.score()
    c.score.chunk = 128
    return c
