"""No token in any log line."""

import logging
import time
from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.security.redaction import (
    TokenFilter,
    keep_tokens_out_of_logs,
    printable,
    redact,
    shown_url,
    without_login,
)
from unmissed.security.tokens import issue_token
from unmissed.testing import SECRET

JWT = issue_token(SECRET, user_id="alice", expires_in=3600.0)
OPAQUE = "s3cr3t-0paque.T0ken~+/="


class Lines(logging.Handler):
    """Keeps what a log file would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.written.append(self.format(record))


def record_of(message: object, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("uvicorn.error", logging.INFO, __file__, 1, message, arguments, None)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def logger(lines: Lines) -> Iterator[logging.Logger]:
    """Give a test a logger that is filtered as those of uvicorn are."""
    logger, token_filter = logging.getLogger("unmissed.tests.redaction"), TokenFilter()
    logger.setLevel(logging.DEBUG)
    logger.addFilter(token_filter)
    logger.addHandler(lines)
    yield logger
    logger.removeHandler(lines)
    logger.removeFilter(token_filter)


@pytest.mark.parametrize("token", [JWT, OPAQUE])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/ws?token={}", "/ws?token=[redacted]"),
        ("/ws?token={}&since=5", "/ws?token=[redacted]&since=5"),
        ("/ws?since=5&token={} HTTP/1.1", "/ws?since=5&token=[redacted] HTTP/1.1"),
        ("/ws?TOKEN={}", "/ws?TOKEN=[redacted]"),
        ('"GET /ws?token={}" 101', '"GET /ws?token=[redacted]" 101'),
        ("Authorization: Bearer {}", "Authorization: Bearer [redacted]"),
        ("authorization: bearer  {}", "authorization: bearer  [redacted]"),
        ("(b'authorization', b'Bearer {}')", "(b'authorization', b'Bearer [redacted]')"),
        ("Sec-WebSocket-Protocol: unmissed.bearer, {}", "Sec-WebSocket-Protocol: unmissed.bearer, [redacted]"),
        ("Sec-WebSocket-Protocol: unmissed.bearer,{}", "Sec-WebSocket-Protocol: unmissed.bearer,[redacted]"),
        ("'subprotocols': ['unmissed.bearer', '{}']", "'subprotocols': ['unmissed.bearer', '[redacted]']"),
        ('< TEXT \'{{"token":"{}"}}\' [9 bytes]', '< TEXT \'{"token":"[redacted]"}\' [9 bytes]'),
        ('{{"type": "authenticate", "token": "{}"}}', '{"type": "authenticate", "token": "[redacted]"}'),
    ],
)
def test_a_token_is_redacted_where_tokens_stand(token: str, text: str, expected: str) -> None:
    assert expected == redact(text.format(token))


@pytest.mark.parametrize("text", ["{}", "({})", "token {} was refused", "x={}&y", "['{}']", "/{}/", "%22{}%22"])
def test_a_jwt_is_redacted_wherever_it_stands(text: str) -> None:
    assert text.format("[redacted]") == redact(text.format(JWT))


def test_a_jwt_that_was_cut_is_redacted_too() -> None:
    assert "< [redacted]" == redact(f"< {JWT[:30]}")


ENCODED = {
    "a letter of the name": "%74oken={}",
    "another letter of it, in upper case": "to%4Ben={}",
    "the whole name": "%74%6f%6b%65%6e={}",
    "the name in upper case": "%54OKEN={}",
    "a letter encoded twice": "%2574oken={}",
    "a letter encoded four times": "%2525252574oken={}",
    "a letter whose code is encoded": "%25%37%34oken={}",
    "the equals sign": "token%3D{}",
    "after a semicolon": "since=5;%74oken={}",
    "another name of it": "access_%74oken={}",
}


@pytest.mark.parametrize("token", [JWT, OPAQUE])
@pytest.mark.parametrize("pattern", ENCODED.values(), ids=ENCODED.keys())
def test_a_token_under_an_encoded_name_is_redacted(pattern: str, token: str) -> None:
    clean = redact(f'127.0.0.1:5 - "GET /websocket/events?{pattern.format(token)}&since=7 HTTP/1.1" 200')

    assert token not in unquote(unquote(clean))
    assert clean.endswith('[redacted]&since=7 HTTP/1.1" 200')


@pytest.mark.parametrize("token", [JWT, OPAQUE])
def test_an_encoded_token_is_redacted(token: str) -> None:
    every_letter = "".join(f"%{ord(character):02x}" for character in token)

    assert "/ws?token=[redacted]&since=7" == redact(f"/ws?token={every_letter}&since=7")
    assert "/ws?token=[redacted]&since=7" == redact(f"/ws?%74oken={every_letter}&since=7")


def test_an_encoded_jwt_is_redacted_wherever_it_stands() -> None:
    every_letter = "".join(f"%{ord(character):02x}" for character in JWT)

    assert "GET /%0A[redacted] HTTP/1.1" == redact(f"GET /%0a{every_letter} HTTP/1.1")


@pytest.mark.parametrize("text", ["50% of %d and %s", "/a%20b?x=%7B%22a%22%7D", "%", "%%%", "/x%0aERROR:%20forged"])
def test_percent_signs_without_a_token_stay_as_they_are(text: str) -> None:
    assert text == redact(text)


def test_deep_encodings_take_no_time() -> None:
    """A client chooses the text: the work must not grow with the depth of its encoding."""
    text = "GET /?" + "%" + "25" * 30_000 + "74oken=x"
    started = time.perf_counter()

    assert "GET /?token=[redacted]" == redact(text)
    assert time.perf_counter() - started < 5


def test_two_tokens_are_both_redacted() -> None:
    assert "token=[redacted] then [redacted]" == redact(f"token={OPAQUE} then {JWT}")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Application startup complete.",
        '127.0.0.1:5 - "GET /websocket/messages?since=5&epoch=k3J9x0aQ_2fM HTTP/1.1" 200',
        "the token is invalid or expired",
        "eyJust a word",
    ],
)
def test_a_text_without_a_token_stays_as_it_is(text: str) -> None:
    assert text == redact(text)


def test_every_record_passes_the_filter() -> None:
    assert TokenFilter().filter(record_of("x"))
    assert TokenFilter().filter(record_of(f"token={OPAQUE}"))


def test_what_holds_no_token_passes_as_the_same_object() -> None:
    message, arguments = "%s %s %s %s %s", (object(), 5, 1.5, None, ["since"])
    record = record_of(message, *arguments)

    TokenFilter().filter(record)

    assert message is record.msg
    assert all(before is after for before, after in zip(arguments, record.args or (), strict=True))


def test_numbers_stay_numbers_for_their_formats(logger: logging.Logger, lines: Lines) -> None:
    logger.info("%05d %.1f %s", 42, 1.25, None)

    assert ["00042 1.2 None"] == lines.written


def test_a_url_argument_is_redacted(logger: logging.Logger, lines: Lines) -> None:
    """The form in which uvicorn logs a handshake, at INFO, whatever the access log."""
    logger.info('%s - "WebSocket %s" [accepted]', "127.0.0.1:5", f"/ws?token={OPAQUE}&since=5")

    assert ['127.0.0.1:5 - "WebSocket /ws?token=[redacted]&since=5" [accepted]'] == lines.written


def test_a_message_that_was_formatted_before_is_redacted(logger: logging.Logger, lines: Lines) -> None:
    logger.info(f"connected with {JWT}")  # noqa: G004  # what is tested

    assert ["connected with [redacted]"] == lines.written


def test_header_arguments_are_redacted(logger: logging.Logger, lines: Lines) -> None:
    logger.debug("< %s: %s", "Authorization", f"Bearer {OPAQUE}")

    assert ["< Authorization: Bearer [redacted]"] == lines.written


def test_objects_are_redacted_by_their_text(logger: logging.Logger, lines: Lines) -> None:
    logger.debug("%s", {"headers": [(b"authorization", f"Bearer {OPAQUE}".encode())]}["headers"])

    assert ["[(b'authorization', b'Bearer [redacted]')]"] == lines.written


def test_exceptions_as_messages_are_redacted(logger: logging.Logger, lines: Lines) -> None:
    logger.error(ValueError(f"token={OPAQUE}"))

    assert ["token=[redacted]"] == lines.written


def test_arguments_by_name_are_redacted(logger: logging.Logger, lines: Lines) -> None:
    logger.info("%(client)s %(url)s", {"client": "127.0.0.1:5", "url": f"/ws?token={OPAQUE}"})

    assert ["127.0.0.1:5 /ws?token=[redacted]"] == lines.written


def test_arguments_by_name_without_a_token_are_written(logger: logging.Logger, lines: Lines) -> None:
    logger.info("%(client)s %(port)05d", {"client": "127.0.0.1", "port": 5})

    assert ["127.0.0.1 00005"] == lines.written


@pytest.mark.parametrize("form", ["/ws?token=%s", "Authorization: Bearer %s", '{"token": "%s"}'])
def test_a_format_with_the_token_as_its_argument_is_redacted(logger: logging.Logger, lines: Lines, form: str) -> None:
    logger.info(form, OPAQUE)

    assert [form.replace("%s", "[redacted]")] == lines.written


def test_a_traceback_is_redacted(logger: logging.Logger, lines: Lines) -> None:
    try:
        int(f"/ws?token={OPAQUE}")
    except ValueError:
        logger.exception("failed")

    assert "ValueError: invalid literal" in lines.written[0]
    assert OPAQUE not in lines.written[0]


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "uvicorn.asgi"])
def test_the_loggers_of_uvicorn_are_filtered_once(name: str) -> None:
    keep_tokens_out_of_logs()
    keep_tokens_out_of_logs()

    assert 1 == sum(isinstance(each, TokenFilter) for each in logging.getLogger(name).filters)


@pytest.mark.parametrize("name", ["uvicorn.error", "uvicorn.access", "uvicorn.asgi"])
def test_a_real_logger_of_uvicorn_writes_no_token(lines: Lines, name: str) -> None:
    keep_tokens_out_of_logs()
    logger = logging.getLogger(name)
    logger.addHandler(lines)
    try:
        logger.critical('%s - "WebSocket %s" [accepted]', "127.0.0.1:5", f"/ws?token={JWT}")
    finally:
        logger.removeHandler(lines)

    assert ['127.0.0.1:5 - "WebSocket /ws?token=[redacted]" [accepted]'] == lines.written


@pytest.mark.parametrize("path", ["/bearer", "/x?next=bearer", "/ws?token=" + OPAQUE, "/token="])
def test_the_access_log_keeps_its_five_arguments(path: str) -> None:
    record = logging.LogRecord(
        "uvicorn.access", logging.INFO, __file__, 1, '%s - "%s %s HTTP/%s" %d', ("::1", "GET", path, "1.1", 200), None
    )

    assert TokenFilter().filter(record)

    assert record.args is not None
    assert 5 == len(record.args)
    assert OPAQUE not in record.getMessage()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8000/ws", "http://127.0.0.1:8000/ws"),
        ("wss://me:pass@h.example/a?token=t@x#f", "wss://h.example/a"),
        ("http://me:a@b@h", "http://h"),
        ("http://h/a@b?c", "http://h/a@b"),
        ("http://h?user=a@b", "http://h"),
        (f"http://h/{JWT}", "http://h/[redacted]"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert shown == shown_url(url)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain: h\u00e9llo \u65e5\u672c\u3000\u8a9e", "plain: h\u00e9llo \u65e5\u672c\u3000\u8a9e"),
        ("\U0001f600 \\x1b", "\U0001f600 \\x1b"),
        ("\x1b[2J\x00\x7f", r"\x1b[2J\x00\x7f"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x85\x9b2J", r"\x85\x9b2J"),
        ("\u202egnp.exe\u2066\u200f", r"\u202egnp.exe\u2066\u200f"),
        ("\u2028\u2029\ufeff\U000e0041", r"\u2028\u2029\ufeff\U000e0041"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_text_of_a_peer_is_shown_without_what_a_terminal_obeys(text: str, expected: str) -> None:
    assert expected == printable(text)


@pytest.mark.parametrize(
    "url", ["memory:", "sqlite:unmissed.db", "redis://localhost:6379/1?name=chat", "nats://one:4222,two:4222", ""]
)
def test_the_url_of_a_log_without_a_login_is_shown_as_it_is(url: str) -> None:
    assert url == without_login(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://alice:secret@localhost:6379/1", "redis://localhost:6379/1"),
        ("redis://:secret@localhost", "redis://localhost"),
        ("nats://token@one:4222,two:4222?name=chat", "nats://one:4222,two:4222?name=chat"),
        ("redis+sentinel://:se@cret@one,two/mymaster", "redis+sentinel://one,two/mymaster"),
    ],
)
def test_the_user_and_the_password_are_left_out(url: str, expected: str) -> None:
    assert expected == without_login(url)


@pytest.mark.parametrize("password", ["se/cret", "/secret", "se?cret", "se#cret", "se@cret", "//secret", "se\ncret"])
@pytest.mark.parametrize("start", ["nats://alice:", "nats://", "nats:alice:"])
def test_a_password_is_left_out_even_if_it_should_have_been_escaped(start: str, password: str) -> None:
    assert "cret" not in without_login(f"{start}{password}@localhost:4222")


@given(login=st.text())
def test_nothing_of_a_login_is_shown(login: str) -> None:
    assert "redis://host" == without_login(f"redis://{login}@host")
