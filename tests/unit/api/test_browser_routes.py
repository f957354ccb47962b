"""The files for browsers, in place of which there are others here."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from unmissed import ConnectionManager, Settings, create_app, create_router
from unmissed.api import browser_routes as browser
from unmissed.testing import SECRET

CLIENT, CONSOLE = "/websocket/client.js", "/websocket/console"
SCRIPT = "export const connect = () => {};"
SOURCE_MAP = '{"version": 3}'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "browser"
    (folder / "console").mkdir(parents=True)
    (folder / "unmissed.min.js").write_text(SCRIPT)
    (folder / "client.js.map").write_text(SOURCE_MAP)
    for name in ("index.html", "console.js", "console.css", "icon.svg"):
        (folder / "console" / name).write_text(name)
    (tmp_path / "secret.html").write_text("secret")
    monkeypatch.setattr(browser, "FOLDER", folder)
    return folder


def built_in(settings: Settings) -> FastAPI:
    return create_app(settings)


def included(settings: Settings) -> FastAPI:
    app = FastAPI()
    app.include_router(create_router(ConnectionManager(settings)))
    return app


def prefixed(settings: Settings) -> FastAPI:
    app = FastAPI()
    app.include_router(create_router(ConnectionManager(settings)), prefix="/live")
    return app


def mounted(settings: Settings) -> FastAPI:
    app = FastAPI()
    app.mount("/live", create_app(settings))
    return app


Build = Callable[[Settings], FastAPI]
BUILDS = pytest.mark.parametrize(
    ("build", "prefix"), [(built_in, ""), (included, ""), (prefixed, "/live"), (mounted, "/live")]
)


@asynccontextmanager
async def serving(
    build: Build = built_in, *, console: bool = True, root_path: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    app = build(Settings.load(jwt_secret=SECRET, console=console))
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        yield client


@BUILDS
async def test_the_client_is_a_script_that_any_page_may_import(build: Build, prefix: str) -> None:
    async with serving(build, console=False, headers={"Origin": "https://elsewhere.example"}) as client:
        response = await client.get(prefix + CLIENT)

    assert (200, SCRIPT) == (response.status_code, response.text)
    assert "text/javascript; charset=utf-8" == response.headers["content-type"]
    assert "no-cache" == response.headers["cache-control"]
    assert "*" == response.headers["access-control-allow-origin"]


@BUILDS
async def test_the_source_map_is_beside_the_client(build: Build, prefix: str) -> None:
    async with serving(build, console=False) as client:
        response = await client.get(f"{prefix}{CLIENT}.map")

    assert (200, SOURCE_MAP) == (response.status_code, response.text)
    assert "application/json" == response.headers["content-type"]
    assert "no-cache" == response.headers["cache-control"]


async def test_a_browser_that_has_the_client_gets_it_again_only_if_it_has_changed(folder: Path) -> None:
    async with serving() as client:
        headers = {"If-None-Match": (await client.get(CLIENT)).headers["etag"]}
        same = await client.get(CLIENT, headers=headers)
        (folder / "unmissed.min.js").write_text(SCRIPT + " // changed")
        changed = await client.get(CLIENT, headers=headers)

    assert (304, b"") == (same.status_code, same.content)
    assert ("no-cache", "*") == (same.headers["cache-control"], same.headers["access-control-allow-origin"])
    assert (200, SCRIPT + " // changed") == (changed.status_code, changed.text)


@pytest.mark.parametrize("path", [CLIENT, f"{CONSOLE}/console.js"])
async def test_the_files_are_compressed_for_browsers_that_accept_it(folder: Path, path: str) -> None:
    for file in (folder / "unmissed.min.js", folder / "console" / "console.js"):
        file.write_text(SCRIPT * 100)

    async with serving() as client:
        compressed = await client.get(path, headers={"Accept-Encoding": "gzip"})
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})

    assert ("gzip", None) == tuple(each.headers.get("content-encoding") for each in (compressed, plain))
    assert int(compressed.headers["content-length"]) < len(plain.content)
    assert SCRIPT * 100 == compressed.text == plain.text
    assert "Accept-Encoding" == compressed.headers["vary"]


@BUILDS
@pytest.mark.parametrize("root_path", ["", "/behind"])
async def test_the_console_is_found_from_its_url_without_a_slash(build: Build, prefix: str, root_path: str) -> None:
    async with serving(build, root_path=root_path) as client:
        redirect = await client.get(f"{root_path}{prefix}{CONSOLE}?token=x")
        page = await client.get(redirect.url.join(redirect.headers["location"]))

    assert (307, "console/") == (redirect.status_code, redirect.headers["location"])
    assert f"{root_path}{prefix}{CONSOLE}/" == page.url.path
    assert (200, "index.html") == (page.status_code, page.text)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("index.html", "text/html; charset=utf-8"),
        ("console.js", "text/javascript; charset=utf-8"),
        ("console.css", "text/css; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_the_pages_of_the_console_are_confined_to_this_server(name: str, kind: str) -> None:
    async with serving() as client:
        response = await client.get(f"{CONSOLE}/{name}")

    assert (200, kind) == (response.status_code, response.headers["content-type"])
    policy = dict(each.split(" ", 1) for each in response.headers["content-security-policy"].split("; "))
    assert {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    } == policy
    assert "nosniff" == response.headers["x-content-type-options"]
    assert "no-referrer" == response.headers["referrer-policy"]
    assert "no-cache" == response.headers["cache-control"]
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("path", ["", "/", "/console.js"])
async def test_without_the_setting_there_is_no_console(path: str) -> None:
    async with serving(console=False) as client:
        assert 404 == (await client.get(CONSOLE + path)).status_code


@pytest.mark.parametrize(
    "path", ["unknown.js", "..%2Funmissed.js", "..%2F..%2Fsecret.html", "%2e%2e%2fsecret.html", "/etc/passwd", "%00"]
)
async def test_other_files_are_not_served(path: str) -> None:
    async with serving() as client:
        assert 404 == (await client.get(f"http://test{CONSOLE}/{path}")).status_code


@pytest.mark.parametrize("path", [CLIENT, f"{CONSOLE}/"])
async def test_only_reading_is_allowed(path: str) -> None:
    async with serving() as client:
        head, post = await client.head(path), await client.post(path)

    assert (200, b"", 405) == (head.status_code, head.content, post.status_code)


async def test_the_files_are_not_among_the_documented_routes() -> None:
    async with serving() as client:
        paths = (await client.get("/openapi.json")).json()["paths"]

    assert [] == [path for path in paths if path.startswith((CLIENT, CONSOLE + "/"))]
