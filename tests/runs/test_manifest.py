"""A run that has ended notices what is damaged of it, and says what can be made again."""

import pytest

from forget_jax import files
from forget_jax.errors import UserError
from forget_jax.runs import manifest
from forget_jax.runs.workdir import Workdir


@pytest.fixture
def ended(tmp_path):
    work = Workdir(tmp_path / "run", "finetune", {"a": 1})
    files.write_json(work / "adapter" / "adapter_config.json", {"r": 8})
    files.write_bytes(work / "adapter" / "weights", b"\1" * 64)
    files.write_text(work / "points.csv", "P,steps\n1,2\n")
    files.write_json(work / "checkpoints" / "4", 1)
    work.metrics.add("train", {"step": 1, "loss": 1.5})
    work.finish({"loss_last": 1.5})
    files.write_text(work / "report.html", "<p>")
    return tmp_path / "run"


def again(path):
    return Workdir(path, "finetune", {"a": 1})


def test_a_sound_run_has_ended(ended):
    assert manifest.damaged(ended) == []
    assert again(ended).done == {"command": "finetune", "loss_last": 1.5}
    manifest.check(ended / "adapter")
    manifest.check(ended)


REMADE = ["adapter/adapter_config.json", "adapter/weights", "points.csv", "summary.json"]


@pytest.mark.fault("damaged results of a run", "done again")
@pytest.mark.parametrize("name", [*REMADE, manifest.NAME])
@pytest.mark.parametrize("damage", ["flip", "empty", "remove"])
def test_what_is_damaged_is_made_again(ended, name, damage, capsys):
    file = ended / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink() if damage == "remove" else file.write_bytes(data if damage == "flip" else b"")
    if damage == "remove" and name in (manifest.NAME, "summary.json"):
        return  # a run of before manifests, or one that has not ended
    assert manifest.damaged(ended) == [name]
    assert again(ended).done is None
    assert f"{name} is damaged or gone; it is made again" in capsys.readouterr().err
    assert not (ended / "summary.json").exists()
    assert not file.exists()
    assert len(list((ended / "adapter").iterdir())) == (1 if name.startswith("adapter/") else 2)
    if name.startswith("adapter"):
        with pytest.raises(UserError, match="is not what it was when its run ended"):
            manifest.check(ended / "adapter")


@pytest.mark.fault("damaged results of a run", "one line")
def test_records_of_steps_cannot_be_made_again(ended):
    file = ended / "metrics.jsonl"
    file.write_bytes(file.read_bytes().replace(b"1.5", b"1.4"))
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged, .* cannot be made again"):
        again(ended)
    (ended / "metrics.seal.json").unlink()  # as the line says
    assert again(ended).done and again(ended).metrics.records[0]["loss"] == 1.4


@pytest.mark.fault("damaged results of a run", "done again")
def test_runs_inside_a_run(ended, capsys):
    """As quickstart's stages are: what is damaged there ends the outer one's being over too."""
    outer = Workdir(ended.parent, "quickstart", {})
    outer.finish({"x": 1})
    assert manifest.damaged(ended.parent) == []
    (ended / "points.csv").write_text("P,steps\n1,3\n")
    assert Workdir(ended.parent, "quickstart", {}).done is None
    assert "run/points.csv is damaged" in capsys.readouterr().err
    assert again(ended).done is None and (ended / "adapter" / "weights").exists()


@pytest.mark.fault("a run's own files", "as it should be")
@pytest.mark.parametrize("text", ["", "[]", "-1", '"a"', "null", "\0"])
def test_time_taken_that_is_lost_is_said(ended, text, capsys):
    (ended / "seconds.json").write_text(text)
    assert again(ended).seconds() < 100
    assert "the time taken before is not counted" in capsys.readouterr().err


@pytest.mark.fault("a run's own files", "one line")
@pytest.mark.parametrize("text", ["", "{", "\0\0", "\xff"])
def test_a_config_that_is_none(ended, text):
    (ended / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="the run's own config, damaged: remove it"):
        again(ended)
