"""Which pages may connect."""

import pytest

from unmissed.security.origins import Origins

HOST = "app.example.com"


def test_a_client_without_an_origin_is_no_page_and_may_connect() -> None:
    assert Origins().allow(None, host=HOST)
    assert Origins().allow(None, host=None)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://app.example.com", "app.example.com"),
        ("http://app.example.com", "app.example.com"),
        ("https://APP.example.com", "app.example.COM"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_pages_of_the_own_host_may_connect(origin: str, host: str) -> None:
    assert Origins().allow(origin, host=host)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "https://app.example.com.evil",
        "https://app.example.com.evil:443",
        "https://evil-app.example.com",
        "https://evil.app.example.com",
        "https://example.com",
        "https://app.example.com:8443",
        "https://app.example.com@evil.example",
        "https://evil.example@app.example.com",
        "https://evil.example/app.example.com",
        "https://evil.example?app.example.com",
        "https://evil.example#app.example.com",
        "https://app.example.com\\.evil",
        "app.example.com",
        "file://",
    ],
)
@pytest.mark.parametrize("allowed", [(), ("https://app.example.com",)])
def test_pages_of_other_hosts_may_not(origin: str, allowed: tuple[str, ...]) -> None:
    assert not Origins(allowed).allow(origin, host=HOST)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://example.com", "example.com:443"),
        ("https://example.com:443", "example.com"),
        ("HTTPS://EXAMPLE.com", "example.COM:443"),
        ("http://example.com", "example.com:80"),
        ("http://example.com:80", "example.com"),
        ("wss://example.com", "example.com:443"),
        ("ws://example.com", "example.com:80"),
        ("https://[::1]", "[::1]:443"),
        ("http://[::1]:80", "[::1]"),
    ],
)
def test_the_default_port_of_a_scheme_may_be_left_out(origin: str, host: str) -> None:
    assert Origins().allow(origin, host=host)
    assert Origins([f"{origin.partition('://')[0]}://{host}"]).allow(origin, host=HOST)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://example.com", "example.com:80"),
        ("http://example.com", "example.com:443"),
        ("https://example.com:8443", "example.com:443"),
        ("https://example.com", "example.com:4430"),
        ("capacitor://example.com", "example.com:443"),
        ("https://[::1]", "[::1]:80"),
        ("https://", ":443"),
        ("https://:443", ":443:443"),
        ("https://example.com:443:443", "example.com"),
    ],
)
def test_a_port_that_is_not_the_default_counts(origin: str, host: str) -> None:
    assert not Origins().allow(origin, host=host)


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http://]", "http://[evil]"])
def test_an_origin_that_is_no_url_is_refused_rather_than_an_error(origin: str) -> None:
    assert not Origins().allow(origin, host=HOST)


@pytest.mark.parametrize("host", [None, ""])
@pytest.mark.parametrize("origin", ["null", "", "file://", "https://app.example.com"])
def test_without_a_host_no_page_is_of_the_own_host(origin: str, host: str | None) -> None:
    assert not Origins().allow(origin, host=host)


@pytest.mark.parametrize("origin", ["https://shop.example", "https://SHOP.example", "HTTPS://shop.example"])
@pytest.mark.parametrize("allowed", ["https://shop.example", "https://shop.example/", "https://Shop.Example"])
def test_an_allowed_origin_is_compared_without_case_and_trailing_slash(origin: str, allowed: str) -> None:
    assert Origins([allowed]).allow(origin, host=HOST)


@pytest.mark.parametrize(
    "origin",
    [
        "http://shop.example",
        "https://shop.example:8443",
        "https://shop.example.evil",
        "https://shopXexample",
        "https://www.shop.example",
        "xhttps://shop.example",
        "https://shop.example evil",
        "https://shop.example\n",
    ],
)
def test_an_allowed_origin_is_compared_whole(origin: str) -> None:
    assert not Origins(["https://shop.example"]).allow(origin, host=HOST)


def test_each_of_several_origins_is_allowed() -> None:
    origins = Origins(["https://a.example", "https://b.example"])

    assert origins.allow("https://a.example", host=HOST)
    assert origins.allow("https://b.example", host=HOST)
    assert not origins.allow("https://a.example|https://b.example", host=HOST)


@pytest.mark.parametrize("origin", ["http://localhost", "http://localhost:1", "http://localhost:65535"])
def test_a_wildcard_port_is_any_port_or_none(origin: str) -> None:
    assert Origins(["http://localhost:*"]).allow(origin, host=HOST)


@pytest.mark.parametrize(
    "origin",
    [
        "https://localhost:1",
        "http://localhost:",
        "http://localhost:80evil",
        "http://localhost:80.evil.example",
        "http://localhost.evil.example",
        "http://localhost:@evil.example",
        "http://localhost:1:2",
        "http://127.0.0.1:1",
    ],
)
def test_a_wildcard_port_is_nothing_but_a_port(origin: str) -> None:
    assert not Origins(["http://localhost:*"]).allow(origin, host=HOST)


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "file://"])
def test_a_star_is_any_origin(origin: str) -> None:
    assert Origins(["*"]).allow(origin, host=HOST)


@pytest.mark.parametrize("allowed", ["https://*.example.com", "https://*", "h*"])
def test_a_star_inside_an_origin_is_only_a_star(allowed: str) -> None:
    assert not Origins([allowed]).allow("https://evil.example.com", host=HOST)
