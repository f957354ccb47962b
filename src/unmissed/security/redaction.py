"""Removes tokens and control characters from logs and output, which contain URLs, headers and texts of peers."""

import logging
import re
import unicodedata
from urllib.parse import quote, unquote

_LOGGERS = (
    "unmissed",
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "gunicorn.error",
    "gunicorn.access",
    "hypercorn.error",
    "hypercorn.access",
    "_granian",
    "granian.access",
)
_ACCESS_LOG = "uvicorn.access"
_REDACTED = "[redacted]"
_TOKENS = re.compile(
    r"(?P<name>\b\w*token=|\bbearer[', ]+|\"token\" ?: ?\")[^\s&\"',]+|eyJ[\w-]{6,}(?:\.[\w-]*)*",
    re.IGNORECASE,
)
_SIGNS = ("eyj", "token", "bearer")
"""One of these is in every text, in lower case, that ``_TOKENS`` matches. Looking for them takes less time."""

_ENCODED_WORD = re.compile(r"[^\s\"']*%[^\s\"']*")
_ENCODED_AGAIN = re.compile(r"%(?:25)+(?=[0-9a-f]{2})", re.IGNORECASE)
_MAX_DECODINGS = 3
_SHOWN = "/?&=;:@+,[]"

_NOT_SHOWN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: control characters, formats such as bidirectional overrides, surrogates, line separators."""

_QUERY = re.compile(r"[?#].*", re.DOTALL)
_LOGIN = re.compile(r"(?<=//)[^/]*@")
"""In the URL of a server. Its path, too, may contain an ``@``."""

_LOGIN_OF_LOG = re.compile(r":(//)?.*@", re.DOTALL)
"""In the URL of a log, up to the last ``@``: a password that should have been encoded may contain any character."""


def redact(text: str) -> str:
    """Replace everything that looks like a bearer token, also if it or its name is percent-encoded."""
    clean = _redact_plain(text)
    return _ENCODED_WORD.sub(_redact_encoded, clean) if "%" in clean else clean


def _redact_encoded(match: re.Match[str]) -> str:
    """Return a word as it is, or, if a token is in it, without the token and encoded once."""
    decoded = match[0]
    for _ in range(_MAX_DECODINGS):
        decoded = unquote(_ENCODED_AGAIN.sub("%", decoded))
    clean = _redact_plain(decoded)
    return match[0] if clean == decoded else quote(clean, safe=_SHOWN)


def _redact_plain(text: str) -> str:
    lower = text.lower()
    if not any(sign in lower for sign in _SIGNS):
        return text
    return _TOKENS.sub(lambda match: (match["name"] or "") + _REDACTED, text)


def printable(text: str) -> str:
    """Return a text of a peer as one line, with escapes in place of control and other invisible characters."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in _NOT_SHOWN else each for each in text
    )


def shown_url(url: str) -> str:
    """Return the URL of a server without the parts that may be secret: user, password, query and fragment."""
    return redact(_LOGIN.sub("", _QUERY.sub("", url)))


def without_login(log_url: str) -> str:
    """Return the URL of a log without the user and the password in it."""
    return _LOGIN_OF_LOG.sub(r":\1", log_url, count=1)


class TokenFilter(logging.Filter):
    """Removes tokens from the message and the arguments of a record. It drops no record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record in place. The access log keeps its arguments: uvicorn's formatter needs them separately."""
        text = record.getMessage()
        clean = redact(text)
        if clean != text and record.name == _ACCESS_LOG and isinstance(record.args, tuple):
            record.args = tuple(_redacted(argument) for argument in record.args)
        elif clean != text:
            record.msg, record.args = clean, ()
        # Formatters use this text, if it is set, in place of formatting the exception.
        if record.exc_info:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


def keep_tokens_out_of_logs() -> None:
    """Install the filter on the loggers of uvicorn and of this package, once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, TokenFilter) for present in logger.filters):
            logger.addFilter(TokenFilter())


def _redacted(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    clean = redact(text)
    return value if clean == text else clean
