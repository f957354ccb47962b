"""URLs of logs as they may be shown."""

import re

_LOGIN = re.compile(r":(//)?.*@", re.DOTALL)
"""Up to the last ``@``: a password that should have been percent-encoded may contain any character."""


def without_login(url: str) -> str:
    """Return the URL of a log without the user and the password in it."""
    return _LOGIN.sub(r":\1", url, count=1)
