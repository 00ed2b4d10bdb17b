"""What is written to standard error while a library is at work comes out, but for a panic."""

import subprocess
import sys
import textwrap

import pytest

START = """
import os, sys, threading
from forget_jax import stderr

class Panic(BaseException):
    pass

def hold(body):
    with stderr.held(lambda e: isinstance(e, Panic)):
        os.write(2, b"by a library\\n")
        print("by Python", file=sys.stderr)
        body()

def fails(error, body=None):
    def fail():
        raise error
    try:
        hold(body or fail)
    except type(error):
        print("failed")
"""
BOTH = ["by a library", "by Python"]


def said(body):
    """What a process that does this writes to stderr and to stdout, as lines."""
    code = START + textwrap.dedent(body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines(), done.stdout.splitlines()


def test_it_is_passed_on_in_order():
    body = """
    for number in range(2):
        print(f"before {number}", file=sys.stderr)
        hold(lambda: None)
    os.write(2, b"after")
    """
    assert said(body) == (["before 0", *BOTH, "before 1", *BOTH, "after"], [])


@pytest.mark.parametrize(("error", "comes"), [("Panic", []), ("KeyboardInterrupt", BOTH)])
def test_it_is_dropped_where_an_error_tells_it(error, comes):
    body = f"""
    def within():
        hold(lambda: None)
        raise {error}
    fails({error}())
    fails({error}(), within)
    print("after", file=sys.stderr)
    """
    assert said(body) == ([*comes, *comes, *comes, "after"], ["failed", "failed"])


def test_a_line_of_another_thread_is_not_held():
    body = """
    def body():
        thread = threading.Thread(target=stderr.write, args=("at once",))
        thread.start()
        thread.join()
        raise Panic
    fails(Panic(), body)
    """
    assert said(body) == (["at once"], ["failed"])


def test_it_need_not_be_there():
    body = """
    os.close(2)
    with stderr.held(bool):
        stderr.write("lost")
    print("fine")
    """
    assert said(body) == ([], ["fine"])
