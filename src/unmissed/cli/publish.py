"""``unmissed publish``: publishes one message over REST."""

from http import HTTPStatus
from typing import Annotated, Any

import httpx
import typer

from unmissed.api.message_routes import PATH as MESSAGES_PATH
from unmissed.cli.options import TokenOption, UrlOption, token_or_own
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.errors import UnmissedError
from unmissed.security.redaction import printable, redact, shown_url


def publish(
    type: Annotated[str, typer.Argument(help="The message type, such as chat.")],
    data: Annotated[
        str | None, typer.Argument(help="""The data as JSON, such as '{"text": "hello"}'. Default: no data.""")
    ] = None,
    *,
    user: Annotated[list[str] | None, typer.Option(help="Publish only to this user. May be repeated.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="Publish to the followers of this topic. May be repeated.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The message is the value of this key, and replaces the one before it.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Add a piece to the value of the key.")] = False,
    deleted: Annotated[bool, typer.Option("--deleted", help="End the value of the key.")] = False,
    ephemeral: Annotated[
        bool, typer.Option("--ephemeral", help="Do not store the message: it reaches those who are connected.")
    ] = False,
    url: UrlOption = "http://127.0.0.1:8000",
    token: TokenOption = None,
) -> None:
    """Publish one message, and print its stamp."""
    fields = {
        "users": user,
        "topics": topic,
        "key": key,
        "append": append,
        "deleted": deleted,
        "ephemeral": ephemeral,
    }
    # Not an empty key: the server says what is wrong with it.
    message: dict[str, Any] = {"type": type, **{name: each for name, each in fields.items() if each or each == ""}}
    try:
        if data is not None:
            message["data"] = decode_json(data)
        body = encode_json(message)
    except ValueError as error:
        raise typer.BadParameter(f"DATA is not JSON: {error}. A text needs quotes inside quotes: '\"hello\"'") from None
    try:
        response = httpx.post(
            f"{url.rstrip('/')}{MESSAGES_PATH}", content=body, headers=json_headers(token_or_own(token))
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UnmissedError(f"{shown_url(url)} cannot be reached: {redact(str(error))}") from None
    if response.status_code not in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED):
        raise UnmissedError(f"{shown_url(url)} answered {response.status_code}: {detail_of(response)}")
    typer.echo(printable(response.text))


def json_headers(token: str) -> dict[str, str]:
    """Return the headers of a request that publishes."""
    return {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}


def detail_of(response: httpx.Response) -> str:
    """Return the reason that a server gives for refusing a request."""
    try:
        return redact(str(response.json()["detail"]))
    except (ValueError, LookupError, TypeError):
        return response.reason_phrase
