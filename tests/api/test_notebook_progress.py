"""Progress in a notebook: its stream is no terminal, and still there is one line for a job."""

import io
import sys
import types

import pytest

from forget_jax.runs.progress import Progress, one_line


@pytest.fixture
def kernel(monkeypatch):
    """Makes it look as if this process were a notebook's kernel; gives its class of streams."""
    module = types.ModuleType("ipykernel.iostream")
    module.OutStream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "ipykernel.iostream", module)
    return module.OutStream


def shown(stream):
    """Runs a job of three steps that writes to the stream."""
    with Progress("train", 3, stream=stream) as line:
        for step in (1, 2, 3):
            line.at(step, f"loss {3 - step}.5")
            line._print()
    return stream.getvalue()


def test_a_notebook_sees_one_line_that_is_rewritten(kernel):
    stream = kernel()
    assert not stream.isatty()
    text = shown(stream)
    assert text.count("\n") == 1 and text.endswith("\n") and text.count("\r") == 4
    assert text.splitlines()[-1].startswith("train: step 3/3 · loss 0.5")


def test_a_file_opened_in_a_notebook_is_a_log(kernel):
    assert shown(io.StringIO()).count("\n") == 4


def test_without_a_kernel_the_class_alone_says_nothing(kernel, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel")
    assert "\r" not in shown(kernel())


def test_stages_of_one_job_share_its_line(kernel):
    stream = kernel()
    with one_line(stream):
        for what in ("score the base", "score a"):
            with Progress(what, 9, unit="example", stream=stream):
                pass
    assert stream.getvalue().count("\n") == 1
    first, second = stream.getvalue().rstrip("\n").split("\r")[1:]
    assert len(second) == len(first) and second.startswith("score a: example 0/9")
    shown(stream)
    assert stream.getvalue().count("\n") == 2  # the next job has a line of its own


def test_stages_of_one_job_in_a_log_have_a_line_each():
    stream = io.StringIO()
    with one_line(stream):
        shown(stream)
    assert stream.getvalue().count("\n") == 4 and "\n\n" not in stream.getvalue()
