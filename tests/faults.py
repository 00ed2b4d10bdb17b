"""Faults that the tests try, counted for the table of docs/faults.md.

A test carries `@pytest.mark.fault("kind", "outcome")`; each of its cases that passes counts. A fuzz
target says with the fixture `tried` how many inputs it gave. `pytest --faults=docs/faults.md`
rewrites the rows of the kinds that ran, and leaves the others as they stand.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = """# Faults that were tried

What people, disks and other programs get wrong, tried by the tests: `pytest
--faults=docs/faults.md` writes this table. Outcomes: *one line* says what is wrong, where, and what
to do, with exit status 2; *as it should be* gives the right figures; *done again* finds the damage,
says so, and makes again what was lost.

| kind | outcome | cases |
|---|---|---|
"""
OUTCOMES = ("one line", "as it should be", "done again")
_ROW = re.compile(r"\| (.+) \| (.+) \| (\d+) \|")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults", metavar="PATH", help="write the table of faults that were tried")


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """How many inputs this test has tried; without it a test counts as one."""
    return lambda count: request.node.user_properties.append(("tried", count))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("fault"):
            kind, outcome = mark.args
            assert outcome in OUTCOMES, f"{item.nodeid}: {outcome} is none of {OUTCOMES}"
            item.user_properties.append(("fault", [kind, outcome]))


class Counts:
    """The cases of a session that passed, by kind and outcome."""

    def __init__(self, path: Path):
        self.path = path
        self.cases: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" or not report.passed:
            return
        count = max((n for key, n in report.user_properties if key == "tried"), default=1)
        for key, value in report.user_properties:
            if key == "fault":
                self.cases[tuple(value)] += count

    def pytest_sessionfinish(self) -> None:
        rows = dict(self.cases)
        if self.path.exists():
            found = _ROW.findall(self.path.read_text())
            rows = {(kind, outcome): int(n) for kind, outcome, n in found} | rows
        lines = [f"| {kind} | {outcome} | {n} |\n" for (kind, outcome), n in sorted(rows.items())]
        self.path.write_text(HEAD + "".join(lines))


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--faults")
    if path and not hasattr(config, "workerinput"):  # of pytest-xdist's processes, the first
        config.pluginmanager.register(Counts(Path(path)))
