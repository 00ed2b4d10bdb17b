"""A line that moves by itself, on a terminal and in a log."""

import io
import time

import pytest

from forget_jax.runs import progress
from forget_jax.runs.progress import Progress, duration


class Stream(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


class Clock:
    """The time of the `time` module, moved by hand."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


class Beats:
    """Stands for the thread's waiting: each wait moves the clock and ends after so many beats."""

    def __init__(self, clock, beats):
        self.clock, self.left, self.waited = clock, beats, []

    def wait(self, seconds):
        self.clock.now += seconds
        self.waited.append(seconds)
        self.left -= 1
        return self.left < 0

    def set(self):
        pass


@pytest.mark.parametrize("tty", [True, False])
def test_it_moves_at_least_every_five_seconds_without_news(clock, tty):
    stream = Stream(tty)
    line = Progress("train", 10, stream=stream)
    line._stop = Beats(clock, 6)
    line._beat()
    assert max(line._stop.waited) <= 5
    shown = stream.getvalue().replace("\r", "\n").split("\n")
    shown = [s.strip() for s in shown if s.strip()]
    assert len(shown) == 6
    assert all(s.startswith("train: step 0/10") for s in shown)
    if not tty:  # the time alone changes while XLA compiles
        assert len(set(shown)) == 6


def test_a_log_has_one_line_each_and_a_terminal_one_line(clock):
    for tty in (False, True):
        stream = Stream(tty)
        with Progress("score", 9, unit="example", stream=stream) as line:
            line._print()
            line.at(9, "a note")
        text = stream.getvalue()
        assert text.endswith("\n") and "score: example 9/9 · a note" in text
        assert text.count("\n") == (1 if tty else 2)
        assert ("\r" in text) == tty


def test_a_shorter_line_covers_a_longer_one(clock):
    stream = Stream(True)
    line = Progress("train", 5, stream=stream)
    line.at(1, "a very long note")
    line._print()
    line.at(2, "short")
    line._print()
    first, second = stream.getvalue().split("\r")[1:]
    assert len(second) >= len(first)


def test_time_left_counts_from_the_first_work_done(clock):
    stream = Stream(False)
    line = Progress("train", 20, start=8, stream=stream)
    clock.now += 60  # compiling
    line.at(9)
    line._print()
    assert "left" not in stream.getvalue()
    clock.now += 10
    line.at(10)
    line._print()
    assert stream.getvalue().endswith("step 10/20 · 1:10 · 1:40 left\n")


def test_it_ends_its_thread_when_the_work_fails():
    line = Progress("train", 3, stream=Stream(False))
    with pytest.raises(RuntimeError, match="inside"), line:
        raise RuntimeError("inside")
    assert not line._thread.is_alive()


def test_the_thread_itself_moves_the_line(monkeypatch):
    stream = Stream(True)
    with Progress("train", 3, stream=stream):
        deadline = time.monotonic() + 5
        while not stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert stream.getvalue().startswith("\rtrain: step 0/3")


def test_durations():
    assert [duration(s) for s in (0, 9.6, 125, 3723)] == ["0:00", "0:10", "2:05", "1:02:03"]


def test_what_goes_on_before_the_next_step_is_said_until_it_is_done(clock):
    stream = Stream(tty=False)
    line = Progress("train", 10, stream=stream)
    line._stop = Beats(clock, 1)
    line.doing("compiling, 1 of 4 programs ready")
    line._beat()
    line.at(1, "loss 2.000")
    line._stop = Beats(clock, 1)
    line._beat()
    before, after = stream.getvalue().splitlines()
    assert before == "train: step 0/10 · compiling, 1 of 4 programs ready · 0:04"
    assert "compiling" not in after and "step 1/10 · loss 2.000" in after
