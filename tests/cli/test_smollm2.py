"""The config of a pretrained model: a folder of one's own data, and arguments it does not take."""

import pytest

from forget_jax.commands import config, driver, settings
from forget_jax.configs.smollm2 import FACTS
from forget_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in [f"tasks/t{i}.jsonl" for i in range(9)] + ["upstream/u.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    return tmp_path


def test_each_fourth_task_file_is_upstream(folder):
    c = config.load(f"smollm2:study,{folder}")
    driver.check("quickstart", settings.read(settings.Quickstart, c))
    tasks = [spec.rpartition("/")[2] for spec in c.associate.tasks]
    upstream = [spec.rpartition("/")[2] for spec in c.associate.upstream]
    assert tasks == [f"t{i}.jsonl[:200]" for i in (0, 1, 2, 4, 5, 6, 8)]
    assert upstream == ["u.txt[:60]", "t3.jsonl[:60]", "t7.jsonl[:60]"]
    assert set(c.replay.tasks) <= set(c.associate.tasks)


def test_the_comparison_replays_what_its_matrix_measured(folder):
    for i in range(20):
        (folder / "tasks" / f"more{i:02}.jsonl").write_text("x\n" * (3 + i))
    made = {
        command: settings.read(settings.TABLES[command], config.load(f"smollm2:{command},{folder}"))
        for command in ("associate", "replay")
    }
    for command, given in made.items():
        driver.check(command, given)
    matrix, replay = made.values()
    assert len(matrix.tasks) == 16 and "more19" not in str(matrix.tasks)
    same = ("model", "tasks", "upstream", "data", "train", "lora")
    assert all(getattr(matrix, name) == getattr(replay, name) for name in same)


def test_both_sets_of_facts_come_before_both_others(tmp_path):
    (tmp_path / "factoids").mkdir()
    for file in FACTS.values():
        (tmp_path / "factoids" / file).write_text("x\n")
    given = settings.read(settings.Factoids, config.load(f"smollm2:factoids,{tmp_path}"))
    driver.check("factoids", given)
    stages = [[stage.partition("=")[0] for stage in s.split(" > ")] for s in given.sequences]
    assert stages == [
        ["popqa", "entityquestions"],
        ["kvr[:200]", "entityquestions"],
        ["popqa", "gsm8k"],
        ["kvr[:200]", "gsm8k"],
    ]


@pytest.mark.fault("arguments of a config", "one line")
@pytest.mark.parametrize(
    "arg", ["large", "", "small,nowhere", "replay", "replay,nowhere", "factoids,nowhere"]
)
def test_an_argument_that_it_does_not_take(arg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="does not take the argument"):
        config.load(f"smollm2:{arg}")
