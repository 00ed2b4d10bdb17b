"""`hf:` and `tfds:` read small data sets made here, offline, and explain what they cannot read."""

import importlib.util

import datasets
import pytest

from forget_jax.data import sources
from forget_jax.errors import UserError

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def made():
    return datasets.Dataset.from_dict(
        {"question": ["a", "b", "c"], "answers": [["x"], ["y"], ["z"]]}
    )


COLUMNS = {"prompt": "question", "completion": "answers"}


def fails(spec, *needles):
    with pytest.raises(UserError) as caught:
        sources.load(spec, columns=COLUMNS)
    message = str(caught.value)
    assert "\n" not in message
    for needle in (spec, *needles):
        assert needle in message, message


def test_saved_to_disk(tmp_path):
    made().save_to_disk(str(tmp_path / "plain"))
    datasets.DatasetDict(train=made(), test=made().select([2])).save_to_disk(
        str(tmp_path / "split")
    )
    plain = sources.load(f"hf:{tmp_path}/plain", columns=COLUMNS)
    assert [(e.name, e.source, e.completion) for e in plain] == [
        (f"plain#{i}", "plain", answer) for i, answer in enumerate("xyz")
    ]
    assert [e.prompt for e in sources.load(f"hf:{tmp_path}/split", columns=COLUMNS)] == list("abc")
    assert [e.prompt for e in sources.load(f"hf:{tmp_path}/split:test", columns=COLUMNS)] == ["c"]
    fails(f"hf:{tmp_path}/split:tset", "no split 'tset'", "train, test", "did you mean test?")
    fails(f"hf:{tmp_path}/plain:test", "has no splits")


def test_folder_of_parquet_files(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    made().to_parquet(str(folder / "train-0.parquet"))
    made().select([1]).to_parquet(str(folder / "test-0.parquet"))
    assert len(sources.load(f"hf:{folder}", columns=COLUMNS)) == 3
    assert [e.prompt for e in sources.load(f"hf:{folder}:test", columns=COLUMNS)] == ["b"]
    assert [e.prompt for e in sources.load(f"hf:{folder}:train[1:]", columns=COLUMNS)] == ["b", "c"]
    assert len(sources.load(f"hf:{folder}:default:train", columns=COLUMNS)) == 3
    fails(f"hf:{folder}:validation", "train", "test")


def test_messages_of_a_saved_data_set(tmp_path):
    datasets.Dataset.from_dict({"messages": [TURNS]}).save_to_disk(str(tmp_path / "chat"))
    assert sources.load(f"hf:{tmp_path}/chat")[0].messages == (("user", "hi"), ("assistant", "yes"))


def test_hf_mistakes(tmp_path):
    fails("hf:no-such-owner/no-such-set", "no network", "parquet files", "hf:FOLDER")
    fails("hf:a:b:c:d", "hf:NAME:config:split")
    fails(f"hf:{tmp_path}/absent", "absent")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    fails(f"hf:{tmp_path}/broken", "cannot be read as a saved data set")
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "script.py").write_text("raise SystemExit('must not run')")
    fails(f"hf:{tmp_path}/script", "refs/convert/parquet", "hf:FOLDER")


def test_tfds_missing_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    fails("tfds:mnist", "pip install forget-jax[tfds]")


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A tiny data set prepared by tfds without TensorFlow."""
    for module in ("tensorflow_datasets", "importlib_resources", "array_record"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (the extra `tfds`)")
    import numpy as np
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            text = tfds.features.Text()
            features = {"question": text, "answers": tfds.features.Sequence(text), "n": np.int64}
            turn = {"role": text, "content": text}
            features["messages"] = tfds.features.Sequence(turn)
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "test": self._generate_examples()}

        def _generate_examples(self):
            for i in range(4):
                question, answers = f"é {i}", [str(i), "x"]
                yield i, {"question": question, "answers": answers, "n": i, "messages": TURNS}

    tfds.disable_progress_bar()
    builder = Tiny(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_path)


def test_tfds_prepared_folder(tfds_folder):
    examples = sources.load(f"tfds:{tfds_folder}", columns=COLUMNS | {"source": "n"})
    assert sorted((e.prompt, e.answers) for e in examples) == [
        (f"é {i}", (str(i), "x")) for i in range(4)
    ]
    assert [e.name for e in examples] == [f"tiny#{i}" for i in range(4)]
    assert {e.source for e in examples} == set("0123")
    assert len(sources.load(f"tfds:{tfds_folder}:test[:2]", columns=COLUMNS)) == 2
    assert sources.load(f"tfds:{tfds_folder}")[0].messages == (("user", "hi"), ("assistant", "yes"))


def test_tfds_mistakes(tfds_folder):
    fails(f"tfds:{tfds_folder}:tset", "no split 'tset'", "train, test", "did you mean test?")
    fails("tfds:no_such_set_at_all", "not found", "list_builders")
    fails("tfds:a:b:c", "tfds:NAME:version:split")
    with pytest.raises(UserError, match="text is a number"):
        sources.load(f"tfds:{tfds_folder}", columns={"text": "n"})
