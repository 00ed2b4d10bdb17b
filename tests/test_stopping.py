"""Signals that end a command are never lost, wherever they come, and never half-way."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from forget_jax import stopping


def program(body: str, **env: str) -> subprocess.Popen:
    """A process that runs the body while watched; it prints `ready` when a signal may come."""
    lines = [
        "import gc, os, signal, sys, time",
        "from forget_jax import stopping",
        "def main():",
        "    with stopping.watched():",
        textwrap.indent(textwrap.dedent(body), " " * 8),
        "try:",
        "    main()",
        "except KeyboardInterrupt as e:",
        "    print(e, file=sys.stderr); sys.exit(130)",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )


def ended(process: subprocess.Popen, *numbers: int, pause: float = 0.2) -> tuple[int, str]:
    assert process.stdout.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
        time.sleep(pause)
    _, err = process.communicate(timeout=20)
    return process.returncode, err


@pytest.mark.fault("signals", "as it should be")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_inside_a_callback_of_the_garbage_collector(number):
    """Where an exception would be printed and lost."""
    process = program(
        """
        def callback(phase, info):
            if phase == "start":
                print("ready", flush=True)
                time.sleep(0.5)
        gc.callbacks.append(callback)
        gc.collect()
        gc.callbacks.clear()
        while True:
            time.sleep(0.01)
            stopping.check()
        """
    )
    status, err = ended(process, number)
    assert status == 130 and "ignored" not in err
    name = signal.Signals(number).name
    assert err.splitlines() == [
        f"{name}: stopping after this step; again to abort",
        f"stopped by {name}",
    ]


@pytest.mark.fault("signals", "as it should be")
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_one_ends_at_once(second):
    status, err = ended(
        program("print('ready', flush=True)\ntime.sleep(60)"), signal.SIGTERM, second
    )
    assert status == 130
    assert err.endswith("stopped by SIGTERM; start the same command again to resume\n")


@pytest.mark.fault("signals", "as it should be")
def test_work_that_cannot_be_asked_ends_after_a_while():
    body = "stopping.GRACE = 0.5\nprint('ready', flush=True)\ntime.sleep(60)"
    began = time.monotonic()
    status, err = ended(program(body), signal.SIGTERM)
    assert status == 130 and time.monotonic() - began < 15
    assert "start the same command again to resume" in err


@pytest.mark.fault("signals", "as it should be")
def test_patient_work_is_let():
    body = """
    stopping.GRACE = 0.1
    with stopping.patient():
        print("ready", flush=True)
        while not stopping.came():
            time.sleep(0.01)
        time.sleep(1)
        stopping.check()
        print("saved", file=sys.stderr)
    stopping.check()
    """
    status, err = ended(program(body), signal.SIGTERM)
    assert status == 130 and err.splitlines()[1:] == ["saved", "stopped by SIGTERM"]


def test_handlers_come_back_and_threads_end():
    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    threads = threading.active_count()
    with stopping.watched():
        assert stopping.is_watched() and not stopping.came()
        stopping.check()
    assert [signal.getsignal(number) for number in stopping.SIGNALS] == before
    assert threading.active_count() == threads and not stopping.is_watched()


def test_other_threads_are_not_interrupted():
    with pytest.raises(stopping.Interrupted), stopping.watched():
        os.kill(os.getpid(), signal.SIGTERM)
        while not stopping.came():
            time.sleep(0.01)
        thread = threading.Thread(target=stopping.check)
        thread.start()
        thread.join()
        stopping.check()


AFTER = """
import sys, threading, time
from forget_jax import stopping
{thread}
class Late:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(0.5)
sys.modules["late"] = Late()
stopping.over({status})
{rest}
sys.exit({status})
"""


def after(status: int, thread: str = "", rest: str = "") -> subprocess.Popen:
    code = AFTER.format(status=status, thread=thread, rest=rest)
    return subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True)


@pytest.mark.fault("signals", "as it should be")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("rest", ["", "print('ready', flush=True); time.sleep(60)"])
def test_after_the_end_the_status_stays(number, rest):
    """Before the interpreter takes itself down, and while it does."""
    status, err = ended(after(3, rest=rest), number)
    assert (status, err) == (3, "")


def test_one_that_was_stopped_waits_for_no_thread():
    process = after(130, thread="threading.Thread(target=time.sleep, args=(60,)).start()")
    assert process.communicate(timeout=20) == ("", "") and process.returncode == 130
