"""Several worker processes, where each would keep a log of its own, are refused."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.logs.one_process import refuse_several_workers

OPEN = """
import asyncio, multiprocessing, sys
from unmissed.core.errors import ConfigurationError
from unmissed.logs.memory import MemoryLog
from unmissed.logs.one_process import refuse_second_worker

def opened(*, hurried=False):
    try:
        for _ in range(2):
            # A log tries to get the lock for five seconds.
            asyncio.run(refuse_second_worker(attempts=2) if hurried else MemoryLog().open())
    except ConfigurationError:
        return "refused"
    return "accepted"
"""
PROGRAM = f"""{OPEN}
print(opened(), flush=True)
sys.stdin.read()
"""
GUNICORN_PROGRAM = f"{OPEN}\nsys.modules['gunicorn.arbiter'] = sys\n{PROGRAM}"
SERVER = f"""{OPEN}
import uvicorn

def work(connection, config=None, hurried=False):
    connection.send(opened(hurried=hurried))
    connection.recv()

def start(**options):
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,), kwargs=options)
    worker.start()
    print(ours.recv(), flush=True)

    def stop():
        ours.send(None)
        worker.join()

    return stop

if __name__ == "__main__":
"""


@pytest.mark.parametrize(
    "command_line",
    [
        "uvicorn shop:app --workers 4",
        "/venv/bin/uvicorn --workers=2 shop:app",
        "/venv/lib/python3.11/site-packages/uvicorn/__main__.py shop:app --workers 2",
        "gunicorn -w 4 shop:app",
        "gunicorn -w4 shop:app",
        "/venv/bin/gunicorn shop:app --workers=4 -k uvicorn.workers.UvicornWorker",
        "gunicorn -k uvicorn.workers.UvicornWorker shop:app -w 2",
        "hypercorn shop:app --workers 2",
        "/venv/bin/fastapi run shop.py --workers 4",
        "granian --interface asgi --workers 2 shop:app",
    ],
)
def test_a_command_line_with_several_workers_is_refused_with_its_fix(command_line: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        refuse_several_workers(command_line.split(), {})

    assert "run one worker (uvicorn --workers 1) and unset WEB_CONCURRENCY" in str(refused.value)


@pytest.mark.parametrize("variable", ["WEB_CONCURRENCY", "UVICORN_WORKERS", "GRANIAN_WORKERS"])
@pytest.mark.parametrize("command_line", ["uvicorn shop:app", "unmissed serve", "python"])
def test_a_variable_that_asks_for_several_workers_is_refused(command_line: str, variable: str) -> None:
    with pytest.raises(ConfigurationError, match="unset WEB_CONCURRENCY and UVICORN_WORKERS"):
        refuse_several_workers(command_line.split(), {variable: "2"})


@pytest.mark.parametrize("options", ["--workers 4", "--workers=4", "-w 4", "-w4"])
def test_workers_in_the_variable_of_gunicorn_are_refused(options: str) -> None:
    """Gunicorn reads options from there as if they were on its command line."""
    with pytest.raises(ConfigurationError, match="run one worker"):
        refuse_several_workers(["gunicorn", "shop:app"], {"GUNICORN_CMD_ARGS": options})


def is_accepted(command_line: list[str], environment: dict[str, str] | None = None) -> bool:
    try:
        refuse_several_workers(command_line, environment or {})
    except ConfigurationError:
        return False
    return True


@pytest.mark.parametrize(
    "command_line",
    [
        "uvicorn shop:app",
        "uvicorn shop:app --workers 1",
        "uvicorn shop:app --workers=1",
        "uvicorn shop:app --workers",
        "gunicorn -w 1 shop:app",
        "gunicorn -k uvicorn.workers.UvicornWorker shop:app",
        "train.py --workers 4",
        "/home/me/train.py -w 8",
        "/srv/fastapi-shop/train.py --workers 4",
        "pytest -n 4",
        "unmissed serve",
        "-c",
    ],
)
def test_one_worker_and_the_workers_of_other_programs_are_fine(command_line: str) -> None:
    assert is_accepted(command_line.split())


def test_an_interpreter_without_a_command_line_is_fine() -> None:
    assert is_accepted([""])


@pytest.mark.parametrize("count", ["1", "", "auto", "0"])
def test_web_concurrency_that_asks_for_no_more_than_one_is_fine(count: str) -> None:
    assert is_accepted(["uvicorn", "shop:app"], {"WEB_CONCURRENCY": count})


Start = Callable[[str], str]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Return a function that starts a program, leaves it running, and returns its first line."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with ExitStack() as stack:

        def started(program: str) -> str:
            process = stack.enter_context(
                subprocess.Popen(  # noqa: S603  # our own program
                    [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            assert process.stdout is not None
            return process.stdout.readline().strip()

        yield started


@pytest.fixture
def outcomes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return a function that runs a server with multiprocessing, and returns what its workers said."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run(statements: str) -> list[str]:
        path = tmp_path / "server.py"
        path.write_text(f"{SERVER}    {statements}\n")
        ended = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True)  # noqa: S603  # our own program
        return ended.stdout.split()

    return run


@pytest.mark.live
def test_the_second_of_two_workers_is_refused(outcomes: Callable[[str], list[str]]) -> None:
    assert ["accepted", "refused"] == outcomes("stop = start(); start(hurried=True)(); stop()")


@pytest.mark.live
def test_a_worker_may_follow_one_that_has_ended(outcomes: Callable[[str], list[str]]) -> None:
    """As under ``uvicorn --reload``."""
    assert ["accepted", "accepted"] == outcomes("start()(); start()()")


@pytest.mark.live
def test_a_worker_that_was_started_with_a_configuration_of_several_is_refused(
    outcomes: Callable[[str], list[str]],
) -> None:
    several, one = (f"start(config=uvicorn.Config('shop:app', workers={count}))()" for count in (2, 1))

    assert ["refused"] == outcomes(several)
    assert ["accepted"] == outcomes(one)


@pytest.mark.live
def test_two_programs_of_one_parent_are_separate(start: Start) -> None:
    """As two servers of one shell, or the workers of pytest-xdist."""
    assert ["accepted", "accepted"] == [start(PROGRAM), start(PROGRAM)]


@pytest.mark.live
def test_the_second_of_two_workers_of_gunicorn_is_refused(start: Start) -> None:
    """gunicorn forks without multiprocessing."""
    second = GUNICORN_PROGRAM.replace("opened()", "opened(hurried=True)")

    assert ["accepted", "refused"] == [start(GUNICORN_PROGRAM), start(second)]


@pytest.mark.live
def test_without_a_directory_for_the_lock_a_worker_serves(start: Start) -> None:
    read_only = "import tempfile; tempfile.tempdir = '/nonexistent'\n"

    assert "accepted" == start(read_only + GUNICORN_PROGRAM)
