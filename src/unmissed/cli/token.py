"""``unmissed token``: signs a token for a user."""

from typing import Annotated

import typer

from unmissed.cli.options import seconds
from unmissed.core.audience import PUBLISH_SCOPE
from unmissed.security.tokens import issue_token_under
from unmissed.settings import Settings


def token(
    *,
    sub: Annotated[str, typer.Option(help="The user id.")],
    scope: Annotated[list[str] | None, typer.Option(help=f"A scope, such as {PUBLISH_SCOPE}. May be repeated.")] = None,
    topic: Annotated[
        list[str] | None, typer.Option(help="A topic, or a prefix such as 'orders.*'. May be repeated.")
    ] = None,
    expires: Annotated[float, typer.Option(parser=seconds, metavar="DURATION")] = "1h",  # type: ignore[assignment]  # typer parses the default, too
) -> None:
    """Print a token signed with UNMISSED_JWT_SECRET."""
    typer.echo(
        issue_token_under(
            Settings.load(), user_id=sub, scope=" ".join(scope or ()), topics=topic or (), expires_in=expires
        )
    )
