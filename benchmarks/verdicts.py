"""`check` on one adapter, by the models and by lm-evaluation-harness's sample files, side by side.

    python benchmarks/verdicts.py --model builtin:smollm2 --adapter task/adapter \
        --texts c4=c4.jsonl[:40],wikitext=wiki.jsonl[:40] --tasks quiz=quiz.jsonl[:40] \
        --out runs/verdicts

Texts are scored whole, tasks' completions after their prompts; both sides see the first `--letters`
of each, so that nothing is cut into windows. The same command is then asked under a limit that is
passed and one that is not. Needs the extra [parity].
"""

import argparse
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pandas as pd

from forget_jax.benchmarks import command
from forget_jax.data import reading
from forget_jax.data.settings import Data
from forget_jax.files import Path, read_json, write_text
from forget_jax.lm.hf import about

CONTEXT = 256  # tokens; the longest rows have fewer


def sets_of(text: str) -> dict[str, str]:
    """`NAME=ROWS,...` by name."""
    return dict(part.split("=", 1) for part in text.split(",") if part)


def cut(spec: str, letters: int, where: pathlib.Path) -> pathlib.Path:
    """The rows of a data set as a file, texts no longer than so many letters."""
    lines = []
    for e in reading.load((spec,), Data()):
        if e.text is not None:
            lines.append({"name": e.name, "text": e.text.strip()[:letters].strip()})
        else:
            # The harness takes a blank between both as part of the answer.
            lines.append(
                {
                    "name": e.name,
                    "prompt": (e.prompt or "").strip(),
                    "completion": f" {e.completion}",
                }
            )
    write_text(Path(where), "".join(json.dumps(line) + "\n" for line in lines))
    return where


def check(fields: Mapping[str, Any], work: pathlib.Path) -> int:
    """`forget-jax check` with these fields; its exit status, 3 past a limit."""
    return command.run("check", fields, work, accepted=(0, 3))


def harness(given: argparse.Namespace, files: Mapping[str, pathlib.Path], adapter: str) -> Any:
    """Evaluates all sets and writes the sample files as `lm_eval --log_samples` does."""
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM

    texts = sets_of(given.texts)
    rolling: dict[str, Any] = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}],
    }
    asked: dict[str, Any] = {
        "output_type": "loglikelihood",
        "doc_to_text": "prompt",
        "doc_to_target": "completion",
        "target_delimiter": "",
        "metric_list": [{"metric": "perplexity"}],
    }
    tasks = [
        ConfigurableTask(
            config={"task": name, "dataset_path": "json", "test_split": "train", "num_fewshot": 0}
            | {"dataset_kwargs": {"data_files": str(file)}}
            | (rolling if name in texts else asked)
        )
        for name, file in files.items()
    ]
    peft = {"peft": adapter} if adapter else {}
    base = str(about.folder(given.model))
    common = {"device": "cpu", "dtype": "float32", "batch_size": 8, "max_length": CONTEXT}
    lm = HFLM(pretrained=base, add_bos_token=False, **common, **peft)
    found = simple_evaluate(lm, tasks=tasks, log_samples=True, bootstrap_iters=0)
    folder = pathlib.Path(given.out) / ("after" if adapter else "before")
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.model_name_sanitized = "model"
    tracker.save_results_aggregated(
        {k: v for k, v in found.items() if k != "samples"}, found["samples"]
    )
    for name, samples in found["samples"].items():
        tracker.save_results_samples(name, samples)
    return folder


def figures(work: pathlib.Path) -> dict[str, dict[str, Any]]:
    """By set, what `check.json` says."""
    return {entry["set"]: entry for entry in read_json(Path(work) / "check.json")["checks"]}


def main() -> None:
    """Checks both ways and prints the table."""
    parser = argparse.ArgumentParser(description="check, by models and by lm-eval's files.")
    for name in ("--model", "--adapter", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--texts", default="", help="NAME=ROWS,...")
    parser.add_argument("--tasks", default="", help="NAME=ROWS,...")
    parser.add_argument("--letters", type=int, default=300)
    parser.add_argument("--limit", type=float, default=0.05, help="nats a token, to be passed")
    given = parser.parse_args()
    out = pathlib.Path(given.out)
    texts, tasks = sets_of(given.texts), sets_of(given.tasks)
    files = {n: cut(s, given.letters, out / f"{n}.jsonl") for n, s in {**texts, **tasks}.items()}
    models: dict[str, dict[str, Any]] = {}
    statuses = {}
    # Told to add none, the harness puts BOS before rolling texts and not before questions.
    for kind, names, bos in (("texts", texts, "true"), ("tasks", tasks, "false")):
        if not names:
            continue
        fields = {
            "model.path": given.model,
            "adapters": given.adapter,
            "sets": ",".join(f"{name}={files[name]}" for name in names),
            "data.template": "raw",
            "data.bos": bos,
            "data.eos": "false",
            "data.shuffle": -1,
            "data.context": CONTEXT,
        }
        for limit in (given.limit, 100.0):
            statuses[kind, limit] = check(fields | {"limits": limit}, out / f"check-{kind}")
        models |= figures(out / f"check-{kind}")
    before, after = (harness(given, files, adapter) for adapter in ("", given.adapter))
    fields = {"model.path": given.model, "before": before, "after": after, "limits": given.limit}
    statuses["files", given.limit] = check(fields, out / "check-files")
    theirs = figures(out / "check-files")
    table = pd.DataFrame(
        {
            name: {
                **{key: models[name][key] for key in ("examples", "z", "low", "high", "noise")},
                "z of files": theirs[name]["z"],
                "apart": abs(models[name]["z"] - theirs[name]["z"]),
            }
            for name in files
        }
    ).T
    table.to_csv(out / "verdicts.csv")
    print(table.to_string())
    for (kind, limit), status in statuses.items():
        print(f"{kind}, limit {limit:g}: exit status {status}")


if __name__ == "__main__":
    main()
