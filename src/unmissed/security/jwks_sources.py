"""Where a JWK Set is read: at a URL, or in a file. What is read is bounded in size, and not trusted to be a set."""

from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from unmissed.core.errors import ConfigurationError
from unmissed.security.origins import is_loopback

MAX_SET_BYTES = 262_144
"""Largest JWK Set. Those of the large providers have up to 20 kB."""


class Fetch:
    """Fetches a URL: without redirects, which could lead to a host of someone else, and no more than a set may have."""

    def __init__(self, url: str) -> None:
        import httpx  # noqa: PLC0415  # most servers never need it, and importing it takes a tenth of a second

        self._url = url
        # Here, before an event loop runs: reading the certificates takes tens of milliseconds.
        self._context = httpx.create_ssl_context()

    async def __call__(self) -> bytes:
        """Return the body. Raises OSError and ValueError."""
        import httpx  # noqa: PLC0415  # as above

        # Unpacked, a small answer could take all memory.
        headers = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}
        try:
            async with (
                httpx.AsyncClient(verify=self._context, timeout=None) as client,  # noqa: S113  # Jwks has a time limit
                client.stream("GET", self._url, headers=headers) as response,
            ):
                if response.is_redirect:
                    raise ValueError(f"it redirects to {response.headers.get('location', '')[:200]!r}: set that URL")
                if response.status_code != HTTPStatus.OK:
                    raise ValueError(f"it answers with status {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_SET_BYTES:
                        raise ValueError(f"it has more than {MAX_SET_BYTES} bytes")
        except httpx.HTTPError as error:
            raise OSError(str(error) or type(error).__name__) from None
        return bytes(body)


def content_of(path: Path) -> bytes:
    """Return the content of a file. Raises OSError and ValueError."""
    with path.open("rb") as file:
        content = file.read(MAX_SET_BYTES + 1)
    if len(content) > MAX_SET_BYTES:
        raise ValueError(f"it has more than {MAX_SET_BYTES} bytes")
    return content


def checked_url(url: str) -> str:
    """Return the URL without its query. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigurationError(f"UNMISSED_JWKS_URL is not a URL: {error}") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("UNMISSED_JWKS_URL has a login, which the keys of a provider do not need: remove it")
    # Who can change the answer on its way can sign any token.
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise ConfigurationError(
            "UNMISSED_JWKS_URL must be an https:// URL, such as https://login.example.com/.well-known/jwks.json "
            "(http:// for this machine only); UNMISSED_JWKS_FILE takes a file"
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
