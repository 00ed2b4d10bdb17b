"""Score files of others: what is read of them, and what is said of those that do not fit."""

import json

import numpy as np
import pytest

from forget_jax.commands import summaries
from forget_jax.errors import UserError
from forget_jax.integrations import lm_eval, score_files

DATE = "2026-11-26T18-00-00.123456"


def sample(doc, right, logp, **further):
    """A record of a question with options, as lm-evaluation-harness 0.4.13 writes it."""
    options = [f" option {i}" for i in range(len(logp))]
    return {
        "doc_id": doc,
        "doc": {"q": doc},
        "target": str(right),
        "arguments": {
            f"gen_args_{i}": {"arg_0": f"Question {doc}?", "arg_1": text}
            for i, text in enumerate(options)
        },
        "resps": [[[str(x), "False"]] for x in logp],
        "filtered_resps": [[str(x), "False"] for x in logp],
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": f"d{doc}",
        "prompt_hash": f"p{doc}",
        "target_hash": f"t{right}",
        "acc": float(np.argmax(logp) == right),
        **further,
    }


def generated(doc, right, rule="none"):
    return {
        "doc_id": doc,
        "target": "4",
        "arguments": {"gen_args_0": {"arg_0": "2+2?", "arg_1": {"until": ["\n"]}}},
        "resps": [["4"]],
        "filtered_resps": ["4" if right else "5"],
        "filter": rule,
        "metrics": ["exact_match"],
        "exact_match": float(right),
        "doc_hash": f"d{doc}",
    }


def write(folder, task, records, date=DATE):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(r) + "\n" for r in records)
    (folder / f"samples_{task}_{date}.jsonl").write_text(text)
    return folder


@pytest.fixture
def folders(tmp_path):
    """A base and a fine-tune: a quiz of three options, sums of one answer."""
    quiz = {
        "before": [
            sample(0, 1, [-4, -1, -3]),
            sample(1, 0, [-1, -2, -3]),
            sample(2, 2, [-1, -2, -3]),
        ],
        "after": [
            sample(0, 1, [-1, -2, -3]),
            sample(1, 0, [-1, -2, -3]),
            sample(2, 2, [-1, -2, -3]),
        ],
    }
    for name, records in quiz.items():
        write(tmp_path / name / "org__model", "quiz", records)
        sums = [generated(i, right=name == "after" or i == 0) for i in range(4)]
        write(tmp_path / name / "org__model", "sums", sums)
    return tmp_path / "before", tmp_path / "after"


def figures_of(work):
    (of,) = summaries.read(summaries.Check, work / "summary.json").sets.values()
    return of


def checked(run_cli, before, after, work, *fields):
    return run_cli(
        *("check", f"--config.before={before}", f"--config.after={after}", f"--workdir={work}"),
        *fields,
    )


def test_samples_of_lm_eval(folders, run_cli, tmp_path):
    status, _, err = checked(run_cli, *folders, tmp_path / "run", "--config.limits_lost=sums=0.5")
    assert status == 0, err
    found = figures_of(tmp_path / "run")
    quiz, sums = found["quiz"], found["sums"]
    assert quiz.z == pytest.approx(1 / 3) and quiz.tokens is None  # nats an answer
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["unit"] == "nats/example"
    assert (quiz.flips.lost, quiz.flips.gained, quiz.flips.answers) == (1, 0, 3)
    # one lost (1.5 of it by more than chance) less what two wrong guesses make of it
    assert quiz.flips.adjusted.lost == pytest.approx((1.5 - 0.75) / 3)
    assert "Question 0? option 1" in quiz.worst[0].text
    assert sums.z is None and (sums.flips.lost, sums.flips.gained) == (0, 3)
    assert sums.flips.adjusted is None


def test_the_newest_samples_of_each_task_and_filters_apart(tmp_path):
    write(tmp_path, "sums", [generated(0, True)], "2025-01-01T00-00-00")
    write(tmp_path, "sums", [generated(0, False, "strict"), generated(0, True, "flexible")])
    frame = score_files.read(tmp_path).set_index("set").correct
    assert frame.to_dict() == {"sums/strict": 0, "sums/flexible": 1}


def test_tokens_are_those_of_the_continuation(folders):
    frame = lm_eval.read(folders[0], lambda context, target: len(target.split()))
    assert (frame[frame.set == "quiz"].tokens == 2).all()
    assert frame[frame.set == "sums"].tokens.isna().all()


def position(token, logprob, *others):
    held = {str(token): {"logprob": logprob, "rank": 1, "decoded_token": f" t{token}"}}
    return held | {str(t): {"logprob": -9.0, "rank": 2, "decoded_token": "x"} for t in others}


def answers(shift, ids=(5, 6, 7)):
    """The three kinds of lines, of one text each."""
    several = [None, position(6, -1.0 - shift, 9), position(7, -2.0, 8)]
    single = [None, position(6, -1.0 - shift), position(7, -2.0)]
    return [
        {"prompt": "a text", "prompt_token_ids": list(ids), "prompt_logprobs": several},
        {"custom_id": "b", "response": {"body": {"choices": [{"prompt_logprobs": single}]}}},
        {"name": "c", "source": "chats", "context_tokens": 2, "prompt_logprobs": single},
    ]


def lines(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_prompt_logprobs_of_vllm(run_cli, tmp_path):
    before = lines(tmp_path / "texts.jsonl", answers(0.0))
    (tmp_path / "tuned").mkdir()
    after = lines(tmp_path / "tuned" / "texts.jsonl", answers(0.5))
    status, _, err = checked(run_cli, before, after, tmp_path / "run", "--config.limits=texts=0.2")
    assert status == 3, err
    found = figures_of(tmp_path / "run")
    assert found["texts"].z == pytest.approx(0.25) and found["texts"].tokens == 4
    assert found["chats"].z == 0 and found["chats"].tokens == 1
    assert found["texts"].worst[0].text == "a text"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("prompt_logprobs"), "no prompt_logprobs; ask vLLM for them"),
        (lambda r: r.pop("prompt_token_ids"), "nothing says which was the prompt's"),
        (lambda r: r.update(prompt_token_ids=[5, 6]), "prompt_token_ids are not as many as"),
        (lambda r: r.update(prompt_token_ids=[5, 6, 4]), "lack the prompt's own token 4"),
        (lambda r: r.update(prompt_logprobs=[None]), "prompt_token_ids are not as many as"),
        (lambda r: r.update(context_tokens=3), "no token after the first 3"),
        (lambda r: r["prompt_logprobs"][1]["6"].update(logprob="x"), "logprob is the text 'x'"),
    ],
)
def test_a_line_of_vllm_that_is_none(change, said, tmp_path):
    record = answers(0.0)[0]
    change(record)
    with pytest.raises(UserError, match="line 1") as e:
        score_files.read(lines(tmp_path / "texts.jsonl", [record]))
    assert said in str(e.value)


def refused(run_cli, before, after, work):
    status, _, err = checked(run_cli, before, after, work)
    (line,) = [x for x in err.splitlines() if x.startswith("forget-jax: ")]
    assert status == 2 and "Traceback" not in err
    return line


def test_scores_that_do_not_compare_are_one_line(folders, run_cli, tmp_path):
    before, after = folders
    inner = after / "org__model"
    quiz = inner / f"samples_quiz_{DATE}.jsonl"
    records = [json.loads(line) for line in quiz.read_text().splitlines()]
    write(inner, "quiz", records[:2])
    line = refused(run_cli, before, after, tmp_path / "a")
    assert "1 examples are scored under one of the base" in line and "quiz#2" in line
    records[1]["prompt_hash"] = "another"
    write(inner, "quiz", records)
    line = refused(run_cli, before, after, tmp_path / "b")
    assert "1 examples were asked otherwise" in line and "quiz#1" in line
    quiz.write_text("{}\n")
    assert "line 1: doc_id is missing" in refused(run_cli, before, after, tmp_path / "c")
    quiz.write_text('{"doc_id": 0}\n')
    assert "not a sample of --log_samples" in refused(run_cli, before, after, tmp_path / "d")
    quiz.unlink()
    (inner / f"samples_sums_{DATE}.jsonl").unlink()
    assert "holds no scores" in refused(run_cli, before, after, tmp_path / "e")
    assert "does not exist" in refused(run_cli, before, tmp_path / "no", tmp_path / "f")
    write(after / "other", "quiz", records)
    write(after / "third", "quiz", records)
    assert "samples of several models" in refused(run_cli, before, after, tmp_path / "g")


def test_no_finite_score_is_one_line(run_cli, tmp_path):
    for name in ("before", "after"):
        record = generated(0, True)
        del record["exact_match"]
        write(tmp_path / name, "sums", [record])
    line = refused(run_cli, tmp_path / "before", tmp_path / "after", tmp_path / "run")
    assert "no example has a finite score under both" in line


def test_other_tokens_are_one_line(run_cli, tmp_path):
    before = lines(tmp_path / "texts.jsonl", answers(0.0))
    (tmp_path / "tuned").mkdir()
    other = answers(0.0)
    other[1]["response"]["body"]["choices"][0]["prompt_logprobs"] = [None, position(3, -1.0)]
    after = lines(tmp_path / "tuned" / "texts.jsonl", other)
    line = refused(run_cli, before, after, tmp_path / "run")
    assert "1 examples were asked otherwise" in line and "such as b" in line
