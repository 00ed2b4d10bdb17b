"""The tables of settings: what a config says is what a command reads, or one clear line."""

import csv
import dataclasses
import io
import math
import subprocess
import sys
import typing

import hypothesis
import pytest
from hypothesis import strategies as st

from forget_jax import cli
from forget_jax.commands import config, quickstart, settings, values
from forget_jax.errors import UserError
from forget_jax.lm.settings import Mesh
from forget_jax.lm.sharding import MeshShape
from forget_jax.settings import check, leaves, setting

LETTERS = st.characters(exclude_categories=("C", "Z"))
# What the command line strips is no part of a text.
TEXTS = st.text(st.one_of(LETTERS, st.sampled_from(', "[]=:')), max_size=12).map(str.strip)


def field_of(command, key):
    """The type of a field, or of its elements; whether it is a sequence; its rule."""
    field = leaves(settings.TABLES[command])[key]
    several = typing.get_origin(field.type) is tuple
    kind = typing.get_args(field.type)[0] if several else field.type
    return kind, several, field.metadata["rule"]


def values_of(kind, rule):
    """Values that a field may have."""
    if kind is str:
        return st.sampled_from(sorted(rule.words())) if rule.words() else TEXTS
    if kind is bool:
        return st.booleans()
    low = rule.least if rule.above is None else rule.above
    high = rule.most if rule.below is None else rule.below
    if kind is int:
        return st.integers(int(low), 2**40 if high is None else int(high))
    return st.floats(
        low,
        1e9 if high is None else high,
        exclude_min=rule.above is not None,
        exclude_max=rule.below is not None,
    )


def as_text(value):
    """A value as one writes it on the command line."""
    if not isinstance(value, tuple):
        return str(value)
    line = io.StringIO()
    quoted = csv.QUOTE_ALL if value and str(value[0])[:1] in "([" else csv.QUOTE_MINIMAL
    csv.writer(line, quoting=quoted, lineterminator="").writerow(map(str, value))
    return line.getvalue()


@pytest.mark.parametrize("command", [c for c in cli.COMMANDS if c != "quickstart"])
@hypothesis.settings(deadline=None, max_examples=20)
@hypothesis.given(data=st.data())
def test_every_field_comes_back_from_the_command_line(command, data):
    c = config.load(command)
    table = settings.TABLES[command]
    for key in leaves(table):
        kind, several, rule = field_of(command, key)
        one = values_of(kind, rule)
        value = data.draw(st.lists(one, max_size=3).map(tuple) if several else one)
        config.override(c, key, as_text(value))
        assert config.flat(c)[key] == value
        if several:
            config.override(c, key, repr(value))  # as Python writes it
            assert config.flat(c)[key] == value
    read = settings.read(table, c)
    check(read)
    again = settings.as_config(read)
    assert config.flat(again) == config.flat(c)
    assert settings.read(table, again) == read


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_numbers_out_of_their_bounds_are_refused(command):
    for key in leaves(settings.TABLES[command]):
        kind, _, rule = field_of(command, key)
        if kind not in (int, float):
            continue
        for bound, beyond, said in (
            (rule.least, -1, f"{rule.least} or more"),
            (rule.above, 0, f"above {rule.above}"),
            (rule.below, 0, f"below {rule.below}"),
        ):
            if bound is None:
                continue
            c = config.load(command)
            config.override(c, key, str(kind(bound + beyond)))
            with pytest.raises(UserError) as e:
                check(settings.read(settings.TABLES[command], c))
            assert str(e.value).startswith(f"config.{key} is {kind(bound + beyond)}; it must be ")
            assert said in str(e.value)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_words_that_are_no_choice_are_refused_with_the_nearest(command):
    for key in leaves(settings.TABLES[command]):
        kind, several, rule = field_of(command, key)
        if kind is not str or not rule.words():
            continue
        longest = max(rule.words(), key=len)
        c = config.load(command)
        config.override(c, key, longest + "x")
        with pytest.raises(UserError) as e:
            check(settings.read(settings.TABLES[command], c))
        how = "names" if several else "is"
        said = f"config.{key} {how} '{longest}x' (did you mean {longest}?); "
        assert str(e.value).startswith(said)
        assert all(word in str(e.value) for word in rule.words())


@dataclasses.dataclass(frozen=True)
class Sample:
    share: float = setting(0.5, "a share", above=0, below=1)
    count: int = setting(1, "a count", least=1, most=9)
    names: tuple[str, ...] = setting((), "names", choices=("one", "two"))
    level: int = setting(5, "any number at all")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"share": 0.0}, "config.share is 0.0; it must be above 0 and below 1"),
        ({"share": 1.0}, "config.share is 1.0; it must be above 0 and below 1"),
        ({"share": math.nan}, "config.share is nan; it must be above 0 and below 1"),
        ({"count": 10}, "config.count is 10; it must be 1 or more and 9 or less"),
        (
            {"names": ("one", "tow")},
            "config.names names 'tow' (did you mean two?); there are one, two",
        ),
    ],
)
def test_what_is_said_of_a_value(values, said):
    check(Sample(level=-7))
    with pytest.raises(UserError) as e:
        check(Sample(**values))
    assert str(e.value) == said


def test_types_are_those_of_the_table():
    c = settings.fields(Sample)
    c.share = 1  # a whole number may stand for a fraction
    assert settings.read(Sample, c).share == 1.0
    c = settings.fields(Sample).to_dict()
    for key, value, said in (
        ("count", 1.5, "config.count takes a whole number, not 1.5"),
        ("count", True, "config.count takes a whole number, not True"),
        ("share", math.inf, "config.share takes a number, not inf"),
        ("names", "one", "config.names takes a sequence, not 'one'"),
        ("names", (1,), r"config.names takes a text, not 1"),
    ):
        with pytest.raises(UserError) as e:
            settings.read(Sample, settings.ConfigDict({**c, key: value}))
        assert str(e.value) == said
    listed = settings.ConfigDict({**c, "names": ["one", "two"]})
    assert settings.read(Sample, listed).names == ("one", "two")


BEGIN = "from forget_jax.configs import finetune, score\ndef get_config():\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "    c = finetune.get_config(); c.mine = 3; return c",
            "config.mine is no field of finetune",
        ),
        (
            "    c = finetune.get_config(); c.train.step = 3; return c",
            "config.train.step is no field of finetune (did you mean train.steps?)",
        ),
        (
            "    c = finetune.get_config(); del c.train; return c",
            "section config.train is missing; finetune needs it",
        ),
        (
            "    c = finetune.get_config(); del c.train.lr; return c",
            "config.train.lr is missing; finetune needs it",
        ),
        ("    return score.get_config()", "config.adapters is no field of finetune"),
        ("    return {'train': 3}", "get_config() returns dict, not a ConfigDict"),
        ("    raise SystemExit('no')", "mine.py: SystemExit: no"),
        ("    import sys; sys.exit()", "mine.py: SystemExit"),
        ("    raise ValueError('a\\nb')", "mine.py: ValueError: a b"),
        ("    c = finetune.get_config(); c.train.steps = 'x'; return c", "mine.py: TypeError: "),
        (
            "    c = finetune.get_config(); c.lora.targets = '\\0'; return c",
            r"config.lora.targets takes a text, not '\x00'",
        ),
        (
            "    c = finetune.get_config(); c.train.seed = 10**5000; return c",
            "config.train.seed takes a whole number, not a value of type int",
        ),
        ("    return None", "get_config() returns NoneType, not a ConfigDict"),
        ("    return finetune.get_config().nothing", "mine.py: AttributeError: "),
        ("    return finetune.get_config('a', 'b')", "mine.py: TypeError: "),
    ],
)
@pytest.mark.parametrize("more", [[], ["--help"]])
def test_a_config_of_ones_own_that_does_not_fit(body, said, more, tmp_path, run_cli):
    file = tmp_path / "mine.py"
    file.write_text(BEGIN + body + "\n")
    status, out, err = run_cli("finetune", f"--config={file}", *more)
    assert (status, out) == (2, "") and said in err
    assert len(err.splitlines()) == 1


def test_quickstart_has_the_fields_of_its_stages():
    base, *stages = dataclasses.fields(settings.Quickstart)
    assert base.name == "base"
    for stage in stages:
        assert stage.type is settings.TABLES[quickstart.COMMAND.get(stage.name, stage.name)]


def test_a_section_that_is_left_out_of_a_table_has_no_field_in_its_config():
    assert "steps" not in settings.fields(settings.Scaling).train
    assert "rank" not in settings.fields(settings.Scaling).lora
    assert "steps" not in settings.fields(settings.Factoids).train
    assert "test_tasks" not in settings.fields(settings.Probes).split
    assert set(settings.fields(settings.Export).model) == {"path"}
    assert "steps" in settings.fields(settings.Finetune).train


def test_fields_that_differ_are_given_by_name():
    c = settings.fields(settings.Bench, what="score")
    assert (c.what, c.shape) == ("score", "small")
    with pytest.raises(TypeError):
        settings.fields(settings.Bench, waht="score")


def test_the_mesh_is_that_of_the_language_model():
    def defaults(table):
        return {f.name: f.default for f in dataclasses.fields(table)}

    assert defaults(Mesh) == defaults(MeshShape)


def test_settings_and_configs_need_no_jax():
    code = "import forget_jax.configs.quickstart, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_training_without_records_is_said():
    with pytest.raises(UserError, match="has no step of this training"):
        values.training([])
