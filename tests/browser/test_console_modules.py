"""The parts of the console that need no browser, and the types of all parts, in Node.js."""

from pathlib import Path

import pytest

from browser.node import FOLDER, TYPESCRIPT, run, run_tests

pytestmark = pytest.mark.live

CONSOLE = FOLDER / "console"


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(each, marks=[pytest.mark.long] * (each.name != "ledger.test.js"), id=each.name)
        for each in sorted(CONSOLE.glob("*.test.js"))
    ],
)
def test_the_parts_without_a_page_pass_their_tests(script: Path) -> None:
    run_tests(script)


@pytest.mark.long
def test_the_types_of_all_parts_are_right() -> None:
    run(TYPESCRIPT, "-p", CONSOLE)
