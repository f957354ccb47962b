"""The tree of exceptions, and the texts that people read."""

import inspect

import pytest

from unmissed.core import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", ALL)
def test_every_exception_is_in_the_one_tree(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.UnmissedError)


@pytest.mark.parametrize("kind", ALL)
def test_every_exception_is_drawn_in_the_tree_of_the_docstring(kind: type[Exception]) -> None:
    assert kind.__name__ in str(errors.__doc__).split()


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.InvalidMessage, ValueError),
        (errors.InvalidPosition, ValueError),
        (errors.InvalidFrame, ValueError),
        (errors.UnknownConnection, LookupError),
        (errors.NotRunning, RuntimeError),
        (errors.AlreadyRunning, RuntimeError),
        (errors.WrongThread, RuntimeError),
    ],
)
def test_exceptions_are_also_what_python_calls_them(kind: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(kind, builtin)


def test_a_message_too_large_is_an_invalid_message_that_knows_its_limit() -> None:
    error: errors.InvalidMessage = errors.MessageTooLarge("the body", limit=10)

    assert isinstance(error, errors.MessageTooLarge)
    assert 10 == error.limit
    assert "the body is over the limit of 10 bytes: send less, or raise the limit on the server" == str(error)


def test_an_unknown_connection_names_itself_and_the_way_out() -> None:
    error = errors.UnknownConnection("c1")

    assert "c1" == error.connection_id
    assert str(error).startswith("no open connection has the id 'c1'")
    assert "manager.publish(message, users=[user_id])" in str(error)


def test_a_refused_connection_tells_its_code_and_reason() -> None:
    error = errors.ConnectionRefused(4401, "the token has expired")

    assert (4401, "the token has expired") == (error.code, error.reason)
    assert "the server refused the connection with code 4401: the token has expired" == str(error)


def test_a_refusal_without_a_reason_says_so() -> None:
    assert str(errors.ConnectionRefused(4403, "")).endswith("4403: no reason given")


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (errors.InvalidPosition(), "in plain digits such as 42"),
        (errors.OriginRefused("https://evil.example", host="app.example.com"), "add it to UNMISSED_ALLOWED_ORIGINS"),
        (errors.NotRunning(), "FastAPI(lifespan=manager.lifespan)"),
        (errors.AlreadyRunning(), "enter it once"),
        (errors.Draining(), "reconnect"),
        (errors.WrongThread(right_call="manager.publish_threadsafe(message)"), "manager.publish_threadsafe(message)"),
    ],
)
def test_a_text_names_what_to_do(error: errors.UnmissedError, fix: str) -> None:
    assert fix in str(error)


def test_a_refused_origin_is_told_with_the_host_it_was_compared_with() -> None:
    error = errors.OriginRefused("https://evil.example", host="app.example.com")

    assert ("https://evil.example", "app.example.com") == (error.origin, error.host)
    assert (
        "origin 'https://evil.example' does not match Host 'app.example.com': "
        "add it to UNMISSED_ALLOWED_ORIGINS, or let the proxy forward the Host header"
    ) == str(error)


def test_a_refused_origin_without_a_host_says_so() -> None:
    assert "does not match Host ''" in str(errors.OriginRefused("null", host=None))


def test_long_headers_are_not_repeated_in_full() -> None:
    error = str(errors.OriginRefused("o" * 101, host="h" * 101))

    assert f"origin '{'o' * 100}' does not match Host '{'h' * 100}': " in error


def test_line_breaks_of_a_header_forge_no_log_line() -> None:
    assert "\n" not in str(errors.OriginRefused("a\nb", host="c\nd"))
