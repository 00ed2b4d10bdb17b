"""The forgetting matrix: M tasks against N upstream examples; `:builtin` (default) runs offline."""

from ml_collections import ConfigDict

from forget_jax.commands.settings import Associate, fields

# What the tasks use; the base and the upstream examples leave these out.
TASK_MODULES = ("email", "http", "logging", "multiprocessing", "unittest", "xml")
TASK_SKILLS = ("addition", "reversal", "roman_numerals", "sorting", "letter_position", "calendar")
MORE_MODULES, MORE_SKILLS = ("asyncio", "turtle"), ("counting", "comparison")  # `wide`


def _but(names: tuple[str, ...]) -> str:
    return ",".join(f"-{name}" for name in names)


def _tasks(modules: tuple[str, ...], skills: tuple[str, ...]) -> tuple[str, ...]:
    return (
        *(f"builtin:docstring_task/{m}[:120]" for m in modules),
        *(f"builtin:skill/{s}[:120]" for s in skills),
    )


def _upstream(modules: tuple[str, ...], skills: tuple[str, ...]) -> tuple[str, ...]:
    return (
        "builtin:language_reference[:100]",
        f"builtin:docstrings/{_but(modules)}[:150]",
        f"builtin:skills/{_but(skills)}[:60]",
    )


MODULES, SKILLS = _but(TASK_MODULES), _but(TASK_SKILLS)
TASKS, UPSTREAM = _tasks(TASK_MODULES, TASK_SKILLS), _upstream(TASK_MODULES, TASK_SKILLS)
BOTH = (*TASK_MODULES, *MORE_MODULES), (*TASK_SKILLS, *MORE_SKILLS)


def get_config(arg: str = "builtin") -> ConfigDict:
    """`builtin`: text that ships with Python; `wide`: 16 such tasks; `empty`: yours to give.

    With `empty` tasks and upstream have no value; `existing` is for adapters, models or scores that
    there are, and has the defaults of every field. `wide` trains longer, so that more is forgotten:
    what strategies of replay are compared on.
    """
    if arg == "existing":
        return fields(Associate)
    c = small_steps(fields(Associate))
    c.exact_match.max_new_tokens = 512 if arg == "empty" else 32
    if arg == "builtin":
        c.tasks, c.upstream = TASKS, UPSTREAM
    elif arg == "wide":
        c.tasks, c.upstream = _tasks(*BOTH), _upstream(*BOTH)
        c.train.steps = 64
    elif arg != "empty":
        raise ValueError("it takes builtin, wide, empty or existing")
    return c


def small_steps(c: ConfigDict) -> ConfigDict:
    """A config of many tasks for short rows and a small base."""
    c.data.context = 128
    c.train.steps = 30
    c.train.lr = 2e-3
    c.train.warmup = 3
    c.train.save_every = 10
    c.score.chunk = 128
    return c
