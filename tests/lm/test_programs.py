"""Programs compiled ahead: in order, in the caller's mesh, with errors where they are asked for."""

import concurrent.futures
import dataclasses
import functools
import threading

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from forget_jax.lm import decoder, sharding
from forget_jax.lm.model import Batch
from forget_jax.lm.programs import Programs


def fails():
    raise ValueError("no such program")


def test_each_key_has_what_its_maker_gave():
    with Programs({n: (lambda n=n: n * n) for n in range(20)}) as programs:
        assert [programs[n] for n in reversed(range(20))] == [n * n for n in reversed(range(20))]
        programs.wait()
        with pytest.raises(KeyError):
            programs[20]


def test_processes_of_one_run_compile_in_one_order_one_at_a_time(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    began, running, together = [], [], []

    def make(n):
        began.append(n)
        running.append(n)
        together.append(len(running))
        threading.Event().wait(0.01)
        running.remove(n)

    with Programs({n: (lambda n=n: make(n)) for n in (3, 1, 2, 0)}) as programs:
        programs.wait()
    assert began == [3, 1, 2, 0] and together == [1] * 4


def test_an_error_is_raised_where_its_program_is_asked_for():
    with Programs({"a": lambda: 1, "b": fails, "c": lambda: 3}) as programs:
        assert (programs["a"], programs["c"]) == (1, 3)
        for _ in range(2):
            with pytest.raises(ValueError, match="no such program"):
                programs["b"]
        with pytest.raises(ValueError, match="no such program"):
            programs.wait()


def test_programs_are_traced_beside_each_other(tiny_model, monkeypatch):
    """Flax makes classes while it traces, and takes fields away from their parents meanwhile."""

    def slowly(call):
        def called(*args, **kwargs):
            found = call(*args, **kwargs)
            threading.Event().wait(0.01)
            return found

        return called

    def trace(length):
        batch = Batch(jnp.zeros((1, length), jnp.int32))
        return jax.eval_shape(lambda: decoder.hidden(tiny_model, None, batch)).shape[1]

    monkeypatch.setattr("os.cpu_count", lambda: 4)
    for name in ("fields", "dataclass"):
        monkeypatch.setattr(dataclasses, name, slowly(getattr(dataclasses, name)))
    with Programs({n: functools.partial(trace, n) for n in range(1, 5)}) as programs:
        assert [programs[n] for n in range(1, 5)] == list(range(1, 5))


def test_makers_run_in_the_mesh_that_was_entered():
    kinds = (AxisType.Auto,) * len(sharding.AXES)
    mesh = jax.make_mesh((1, 1, 1, 1), sharding.AXES, axis_types=kinds)
    with sharding.entered(mesh), Programs({"a": sharding.current}) as programs:
        assert programs["a"] == mesh
    with Programs({"a": sharding.current}) as programs:
        assert programs["a"] is None


def test_what_has_not_begun_when_the_run_ends_is_not_compiled(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # one at a time
    began, end = threading.Event(), threading.Event()
    made = []

    def first():
        began.set()
        assert end.wait(10)
        made.append("first")

    makers = {1: first, 2: lambda: made.append("second")}
    with pytest.raises(KeyboardInterrupt), Programs(makers) as programs:
        assert began.wait(10)
        raise KeyboardInterrupt
    end.set()  # leaving did not wait for it
    programs[1]
    with pytest.raises(concurrent.futures.CancelledError):
        programs[2]
    assert made == ["first"]


def test_who_waits_is_told_how_far_it_is():
    gate, said = threading.Event(), []

    def told(what):
        said.append(what)
        gate.set()

    with Programs({"a": gate.wait, "b": lambda: 2}, told) as programs:
        programs.wait()
    assert said[0].startswith("compiling, ") and said[0].endswith(" of 2 programs ready")
    assert said[-1] == ""
