"""Processes that are started, disturbed and ended: small programs in Python, which create a file when ready."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.lab.process import ManagedProcess, ServerProcess, answers, free_ports, running, succeeds

pytestmark = pytest.mark.live

READY = "import pathlib, sys, time; print('ready'); pathlib.Path(sys.argv[1]).touch(); time.sleep(3_600)"
DOCUMENT = "/openapi.json"
FAILS = "raise SystemExit('no such option')"
FAILS_SECOND = f"""
import pathlib
starts = pathlib.Path('starts')
starts.touch()
starts.write_text(starts.read_text() + 'x')
if starts.read_text() == 'xx':
    raise SystemExit('the port is in use')
{READY}
"""
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def program(code: str, *, name: str = "program") -> ManagedProcess:
    command = [sys.executable, "-uc", code, name]
    return ManagedProcess(name, command, ready=Path(name).exists, output=Path(f"{name}.log"))


def test_a_process_is_ready_after_its_start_and_gone_after_the_context() -> None:
    with program(READY) as process:
        assert process.running
        assert "ready\n" == process.output
        pid = process.pid

    assert not process.running
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_ends_did_not_start_and_its_last_words_are_shown() -> None:
    with pytest.raises(ConfigurationError, match=r"program did not start:\nno such option"):
        program(FAILS).start()


def test_a_restart_that_fails_is_repeated() -> None:
    with program(FAILS_SECOND) as process:
        first = process.pid
        process.kill()
        Path("program").unlink()

        process.start()

        assert process.running
        assert first != process.pid
        assert "the port is in use" in process.output


def test_a_stopped_process_is_stopped_when_the_signal_returns_and_can_be_killed() -> None:
    with program(READY) as process:
        process.signal(signal.SIGSTOP)
        state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert "T" == state

        process.signal(signal.SIGKILL)

        assert -signal.SIGKILL == process.exit_code(seconds=0)


async def test_a_process_that_obeys_terminates_with_its_own_code() -> None:
    async with running([process := program(READY)]):
        await process.terminate()

        assert -signal.SIGTERM == process.exit_code(seconds=0)


async def test_a_process_that_does_not_obey_is_killed() -> None:
    async with running([process := program(DEAF)]):
        await process.terminate(patience=0.1)

        assert -signal.SIGKILL == process.exit_code(seconds=0)


async def test_processes_that_run_together_end_together_also_if_one_does_not_start() -> None:
    good, bad = program(READY, name="good"), program(FAILS, name="bad")

    with pytest.raises(ConfigurationError, match="bad did not start"):
        async with running([good, bad]):
            pass

    assert not good.running


def test_the_figures_of_a_process_are_read() -> None:
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); {READY}"
    with program(child) as process:
        assert process.cpu_seconds > 0
        assert process.resident_bytes > 1_000_000
        [pid] = process.children
        subprocess.run(["kill", "-9", str(pid)], check=True)  # noqa: S603, S607


def test_a_server_keeps_its_port_over_a_restart() -> None:
    with ServerProcess("uvicorn", "unmissed.lab.bench.tutorial:app", probe=DOCUMENT, output=Path("log")) as server:
        server.kill()
        assert not succeeds(server.port, DOCUMENT)

        server.start()

        assert succeeds(server.port, DOCUMENT)
        assert not succeeds(server.port, "/missing")
        assert answers(server.port, b"GET /missing HTTP/1.0\r\n\r\n", expected=(b"other", b"HTTP/1.1 404"))


def test_free_ports_are_different_and_below_those_of_outgoing_connections() -> None:
    ports = free_ports(20)

    assert 20 == len({*ports})
    assert max(ports) < 32_768
