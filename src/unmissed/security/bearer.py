"""What a bearer token may look like before it is sent."""

import re

from unmissed.core.errors import ConfigurationError

_TOKEN = re.compile(r"[!-~]+")


def clean_token(text: str) -> str:
    """Return a token without the whitespace around it, such as the line break at the end of a file.

    Raises ConfigurationError, whose text does not contain the token, unless the rest is visible ASCII.
    """
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError(
            "the token is empty, or contains characters that no token has, such as a space or a line break: "
            "pass the token alone, as it was issued"
        )
    return token
