"""The commands: serve, token, publish, tail, check."""

import asyncio
import importlib.util
import os
import platform
import secrets
import sys
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import typer
import uvicorn

from unmissed.api.messages import PATH as MESSAGES_PATH
from unmissed.api.tokens import PUBLISH_SCOPE, JwtVerifier, issue_token_under
from unmissed.cli.options import Token, Url, seconds, with_settings
from unmissed.cli.tail import tail as tail_stream
from unmissed.core.encoding import decode_json, encode_json
from unmissed.core.errors import ConfigurationError, UnmissedError
from unmissed.logs.memory import refuse_several_workers
from unmissed.main import create_app
from unmissed.server import HttpProtocol, Server, WebSocketProtocol
from unmissed.settings import Settings, unknown_variables

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

_DEV_ORIGINS = "http://localhost:*,http://127.0.0.1:*,http://[::1]:*"
_DAY = 86_400.0


def main() -> None:
    """Run the command line. What the user can mend is told in one line, without a traceback."""
    try:
        app()
    except UnmissedError as error:
        sys.exit(f"unmissed: {error}")


@app.command()
@with_settings
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65_535)] = 8000,
    dev: Annotated[bool, typer.Option("--dev", help="Try it out: a random secret and a ready token.")] = False,
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="How much to log.")] = "info",
    access_log: Annotated[bool, typer.Option(help="Log every request.")] = True,
    overrides: dict[str, Any],
) -> None:
    """Serve /ws, /websocket/messages and /docs."""
    settings = Settings.load(**overrides)
    if dev:
        settings = _development(settings, overrides, host=host)
    refuse_several_workers(sys.argv, os.environ)
    application = create_app(settings)
    if dev:
        typer.echo(_welcome(settings, origin=f"{host if ':' not in host else f'[{host}]'}:{port}"))
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level=log_level,
        access_log=access_log,
        workers=1,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        backlog=4096,
    )
    Server(config, manager=application.state.manager).run()


@app.command()
def token(
    *,
    sub: Annotated[str, typer.Option(help="The user id.")],
    scope: Annotated[list[str] | None, typer.Option(help=f"Such as {PUBLISH_SCOPE}; repeat it for more.")] = None,
    expires: Annotated[float, typer.Option(parser=seconds, metavar="DURATION")] = "1h",  # type: ignore[assignment]  # parsed, too
) -> None:
    """Print a token that is signed with UNMISSED_JWT_SECRET."""
    typer.echo(issue_token_under(Settings.load(), user_id=sub, scope=" ".join(scope or ()), expires_in=expires))


@app.command()
def publish(
    type: Annotated[str, typer.Argument(help="What the message is about, such as chat.")],
    data: Annotated[str, typer.Argument(help="""Its data as JSON, such as '{"text": "hello"}'.""")] = "null",
    *,
    user: Annotated[list[str] | None, typer.Option(help="Only to this user; repeat it for more.")] = None,
    url: Url = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Publish one message, and print its stamp."""
    addressed = {"users": user} if user else {}
    try:
        body = encode_json({"type": type, "data": decode_json(data), **addressed})
    except ValueError as error:
        raise typer.BadParameter(f"DATA is not JSON: {error}") from None
    try:
        response = httpx.post(
            f"{url.rstrip('/')}{MESSAGES_PATH}",
            content=body,
            headers={"Authorization": f"Bearer {token or _own_token()}", "Content-Type": "application/json"},
        )
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise UnmissedError(f"{url} cannot be reached: {error}") from None
    if response.status_code not in (HTTPStatus.OK, HTTPStatus.CREATED):
        raise UnmissedError(f"{url} answered {response.status_code}: {_detail(response)}")
    typer.echo(response.text)


@app.command()
def tail(
    *,
    since: Annotated[int | None, typer.Option(help="Begin after this number instead of now.", min=0)] = None,
    drop_every: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Cut the own connection off so often.")
    ] = None,
    stop_after: Annotated[
        float | None, typer.Option(parser=seconds, metavar="DURATION", help="Stop by itself.")
    ] = None,
    url: Url = "http://127.0.0.1:8000",
    token: Token = None,
) -> None:
    """Show messages as they come (+ marks the recovered ones), and count what was recovered, lost or doubled."""
    asyncio.run(
        tail_stream(
            url,
            token=token or _own_token(),
            since=since,
            drop_every=drop_every,
            stop_after=stop_after,
            show=typer.echo,
        )
    )


@app.command()
def bench(
    *,
    connections: Annotated[int, typer.Option(help="WebSockets at the same time.", min=1)] = 1_000,
    messages: Annotated[int, typer.Option(help="Messages that everyone is sent.", min=1)] = 200,
    size: Annotated[int, typer.Option(help="Bytes of padding in each message.", min=0)] = 200,
    compare: Annotated[Literal["tutorial"] | None, typer.Option(help="Run this server, too, in turn.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure this server, with UNMISSED_TOKEN, instead of an own.")
    ] = None,
    token: Token = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures there as JSON.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Draw them there, as PNG.")] = None,
) -> None:
    """Measure deliveries, connects, recoveries and memory from another process. It floods the server it measures."""
    from unmissed.bench.command import bench as run  # noqa: PLC0415  # stands on uvloop, which not every system has
    from unmissed.bench.scenarios import Load  # noqa: PLC0415
    from unmissed.bench.server import Target  # noqa: PLC0415

    run(
        Load(connections, messages, size),
        target=Target.at(url, token or _own_token()) if url else None,
        compare=compare,
        json_file=json_file,
        plot_file=plot_file,
        show=typer.echo,
    )


@app.command()
def check() -> None:
    """Check the settings and the environment, and say what to mend."""
    problems = 0
    try:
        settings = Settings.load()
        refuse_several_workers(sys.argv, os.environ)
        JwtVerifier(settings.key(), algorithm=settings.jwt_algorithm)
        for name, value in settings:
            typer.echo(f"ok       UNMISSED_{name.upper()} = {value}")
    except ConfigurationError as error:
        problems += 1
        typer.echo(f"problem  {error}")
    for name in unknown_variables():
        problems += 1
        typer.echo(f"problem  {name} means nothing: unset it, or see the README for the names that do")
    typer.echo(f"ok       Python {platform.python_version()}, uvicorn {uvicorn.__version__}")
    for module in ("uvloop", "httptools"):
        missing = importlib.util.find_spec(module) is None
        typer.echo(f"slow     {module} is missing: pip install {module}" if missing else f"ok       {module}")
    if files := _open_files():
        typer.echo(f"ok       {files} open files, one for each connection; raise it with ulimit -n")
    raise typer.Exit(1 if problems else 0)


def _development(settings: Settings, overrides: dict[str, Any], *, host: str) -> Settings:
    """Return the settings with what trying out needs, where nothing else was asked for."""
    if not _is_loopback(host):
        raise ConfigurationError(
            "--dev serves this machine only: leave --host out, or leave --dev out and set a secret"
        )
    convenient: dict[str, Any] = {"allow_query_token": True}
    if settings.jwt_secret is None and settings.jwt_secret_file is None:
        convenient["jwt_secret"] = secrets.token_urlsafe(48)
    if not settings.allowed_origins:
        convenient["allowed_origins"] = _DEV_ORIGINS
    return Settings.load(**{**convenient, **overrides})


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _welcome(settings: Settings, *, origin: str) -> str:
    ready = issue_token_under(settings, user_id="dev", scope=PUBLISH_SCOPE, expires_in=_DAY)
    return f"""
NOT FOR PRODUCTION: --dev takes tokens in URLs, and this server's secret may be gone when it stops.

  WebSocket   ws://{origin}/ws?token={ready}
  Messages    http://{origin}{MESSAGES_PATH}?since=0
  Docs        http://{origin}/docs

In another terminal:

  export UNMISSED_URL=http://{origin} UNMISSED_TOKEN={ready}
  unmissed tail --drop-every 5s
  unmissed publish chat '{{"text": "hello"}}'
"""


def _own_token() -> str:
    try:
        return issue_token_under(Settings.load(), user_id="cli", scope=PUBLISH_SCOPE, expires_in=_DAY)
    except ConfigurationError:
        raise ConfigurationError(
            "there is no token: set UNMISSED_TOKEN (unmissed serve --dev prints one), or UNMISSED_JWT_SECRET"
        ) from None


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, LookupError, TypeError):
        return response.reason_phrase


def _open_files() -> int | None:
    """Return the limit on open files, or None where the system has no such limit."""
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
