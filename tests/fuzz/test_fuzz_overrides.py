"""Any arguments and any config file are settings, or one line: no command begins any work."""

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forget_jax import cli
from forget_jax.commands import driver
from forget_jax.commands import settings as tables
from forget_jax.errors import UserError
from forget_jax.settings import leaves

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
WILD = st.sampled_from(
    [
        *("", " ", "0", "-1", "1", "2", "1e9", "1000000000", "nan", "inf", "-inf", "1e400", "1_0"),
        *(str(2**31), str(2**63), str(2**64), "9" * 400, "9" * 5000, "-" + "9" * 5000, "٣"),
        *("true", "no", ",", ",,", '"', '"a', "a,b", "a\nb", "a\r", "\0", "\udcff", "x" * 5000),
        *("x.jsonl[0:3]", "x.jsonl[3:0]", f"x.jsonl[0:{'9' * 5000}]", "[:]", "base", "base.jsonl"),
        *("http://x/y", "file:///x", "s3://x/y", "gs://", "builtin:", "hf:", "tfds:", "../..", "/"),
        *("0/2", "2/2", "1/0", f"{'9' * 5000}/1", "a.steps=3", "base.seed=" + "9" * 5000, "(", "*"),
    ]
)
VALUE = WILD | st.text(max_size=8) | st.integers().map(str) | st.floats().map(str)
KEYS = {command: sorted(leaves(table)) for command, table in tables.TABLES.items()}


def try_one(argv, workdir="run"):
    """Settings, or one line; help is neither."""
    try:
        for request in cli.resolve([*argv, f"--workdir={workdir}"]):
            driver.check_place(request.workdir)
            driver.check(request.command, request.settings)
    except UserError as e:
        assert str(e)


@st.composite
def command_lines(draw):
    command = draw(st.sampled_from(sorted(cli.COMMANDS)))
    keys = st.sampled_from(KEYS[command] or ["x"]) | st.text(max_size=6)
    given = draw(st.lists(st.tuples(keys, VALUE), max_size=5))
    named = draw(st.none() | st.sampled_from(sorted(cli.COMMANDS)) | VALUE)
    argument = draw(st.just("") | VALUE.map(":{}".format))
    config = [] if named is None else [f"--config={named}{argument}"]
    return [command, *config, *(f"--config.{key}={value}" for key, value in given)]


FEW = {"max_examples": EXAMPLES, "deadline": None, "database": None}
ALL = {"suppress_health_check": list(HealthCheck)}


@pytest.mark.fault("fuzzed command lines", "one line")
def test_command_lines(tried, capsys):
    @settings(**FEW, **ALL)
    @given(command_lines(), st.just("run") | VALUE)
    def one(argv, workdir):
        try_one(argv, workdir)

    one()
    tried(EXAMPLES)


BODIES = st.sampled_from(
    [
        *("return None", "return {}", "return c.to_dict()", "return 3", "return c, c", "pass"),
        *("import sys; sys.exit()", "import sys; sys.exit('no')", "raise SystemExit(0)"),
        *("raise ValueError('a\\nb')", "raise BaseException()", "raise UnicodeError(1)", "1/0"),
        *("def f(): return f()\n    return f()", "raise type('E', (Exception,), {'__str__': 3})"),
        *(
            "c['x'] = c; return c",
            "c.a = ConfigDict(); c.a.a = c; return c",
            "return ConfigDict(c)",
        ),
        *("return FrozenConfigDict(c)", "return c.lock()", "return c.unlock()", "return object"),
        *(
            "c[3] = 4; return c",
            "c[''] = 4; return c",
            "c['\\0'] = 1; return c",
            "return type(c)()",
        ),
        "c.lazy = FieldReference(1) + FieldReference('x'); return c",
        "c.x = placeholder(int); return c",
        "c.x = required_placeholder(int); return c",
    ]
)
VALUES = st.sampled_from(
    [
        *("None", "()", "[]", "{}", "''", "'x'", "b'x'", "0", "-1", "True", "1.5", "float('nan')"),
        *(
            "float('inf')",
            "10**400",
            "10**5000",
            "-10**5000",
            "2**63",
            "object()",
            "lambda: 0",
            "c",
        ),
        *("('a', 1)", "(1, 'a')", "((),)", "[None]", "set()", "range(3)", "'\\0'", "'\\udcff'"),
        *(
            "ConfigDict()",
            "ConfigDict({'a': 1})",
            "int",
            "...",
            "1j",
            "'x' * 10**6",
            "(0,) * 10**5",
        ),
        *("np.int64(3)", "np.float32(0.5)", "np.nan", "np.zeros(3)", "np.zeros(0)", "np.array(3)"),
        *("placeholder(int)", "FieldReference(3)", "FieldReference('x')"),
    ]
)
HEAD = """from ml_collections import ConfigDict, FieldReference, FrozenConfigDict
from ml_collections.config_dict import placeholder, required_placeholder
import numpy as np
from forget_jax import configs
import importlib
def get_config(arg=''):
    c = importlib.import_module('forget_jax.configs.NAME').get_config().unlock()
"""


@st.composite
def config_files(draw):
    command = draw(st.sampled_from(sorted(cli.COMMANDS)))
    name = draw(st.just(command) | st.sampled_from(sorted(cli.COMMANDS)))
    keys = sorted({k.rpartition(".")[0] for k in KEYS[name]} - {""} | set(KEYS[name]) | {"new"})
    lines = []
    for key in draw(st.lists(st.sampled_from(keys), max_size=3)):
        change = draw(st.none() | VALUES)
        lines.append(f"del c.{key}" if change is None else f"c.{key} = {change}")
    lines.append(draw(st.just("return c") | BODIES))
    text = HEAD.replace("NAME", name) + "".join(f"    {line}\n" for line in lines)
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.text(max_size=3)) + text[at:]
    return command, text


@pytest.mark.fault("fuzzed config files", "one line")
def test_config_files(tmp_path, tried, capsys, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    @settings(**FEW, **ALL)
    @given(config_files(), st.booleans())
    def one(drawn, wants_help):
        command, text = drawn
        path = tmp_path / "mine.py"
        path.write_bytes(text.encode(errors="surrogatepass"))
        try_one([command, f"--config={path}", *(["--help"] if wants_help else [])])

    one()
    tried(EXAMPLES)
