"""URLs as they may be shown."""

import re

_LOGIN = re.compile(r"(?<=//)[^/]*@")


def without_login(url: str) -> str:
    """Return a URL without the user and the password in it."""
    return _LOGIN.sub("", url)
