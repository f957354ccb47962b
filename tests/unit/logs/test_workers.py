"""Several worker processes, where each would keep a log of its own, are refused."""

import pytest

from unmissed.core.errors import ConfigurationError
from unmissed.logs.workers import refuse_several_workers


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
    ],
)
def test_a_command_line_with_several_workers_is_refused_with_its_fix(command_line: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        refuse_several_workers(command_line.split(), {})

    assert "run one worker (uvicorn --workers 1) and unset WEB_CONCURRENCY" in str(refused.value)


@pytest.mark.parametrize("command_line", ["uvicorn shop:app", "unmissed serve", "python"])
def test_web_concurrency_above_one_is_refused(command_line: str) -> None:
    with pytest.raises(ConfigurationError, match="unset WEB_CONCURRENCY"):
        refuse_several_workers(command_line.split(), {"WEB_CONCURRENCY": "2"})


@pytest.mark.parametrize("options", ["--workers 4", "--workers=4", "-w 4", "-w4"])
def test_workers_in_the_variable_of_gunicorn_are_refused(options: str) -> None:
    """Gunicorn reads options from there as if they were on its command line."""
    with pytest.raises(ConfigurationError, match="run one worker"):
        refuse_several_workers(["gunicorn", "shop:app"], {"GUNICORN_CMD_ARGS": options})


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
    refuse_several_workers(command_line.split(), {})


def test_an_interpreter_without_a_command_line_is_fine() -> None:
    refuse_several_workers([""], {})


@pytest.mark.parametrize("count", ["1", "", "auto", "0"])
def test_web_concurrency_that_asks_for_no_more_than_one_is_fine(count: str) -> None:
    refuse_several_workers(["uvicorn", "shop:app"], {"WEB_CONCURRENCY": count})
