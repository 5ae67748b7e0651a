"""Origins: what a URL means, who may be spoken to in clear, what goes through a proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.connection import find_proxy
from client.errors import ClientError
from client.options import ClientOptions
from client.origin import Origin, candidates, is_loopback

PLAIN = ClientOptions(default_registry="localhost:5000")


@given(st.text(max_size=60) | st.text("htps:/@[]%.0123456789abcxyz?#-", max_size=60))
def test_any_text_is_an_origin_or_a_value_error(text: str) -> None:
    try:
        origin, target = Origin.parse(text)
    except ValueError:
        return
    assert target.startswith("/") and " " not in target and "\r" not in target
    assert Origin.parse(str(origin) + target) == (origin, target)


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://Host/a?b=c#d", "https://host", "/a?b=c"),
        ("http://host:5000", "http://host:5000", "/"),
        ("https://host:443/x", "https://host", "/x"),
        ("http://[::1]:5000/v2/", "http://[::1]:5000", "/v2/"),
    ],
)
def test_a_url_is_split(url: str, origin: str, target: str) -> None:
    found, path = Origin.parse(url)
    assert (str(found), path) == (origin, target)


@pytest.mark.parametrize(
    ("registry", "tried"),
    [
        ("reg.example", ["https://reg.example"]),
        ("reg.example:5000", ["https://reg.example:5000"]),
        ("docker.io", ["https://registry-1.docker.io"]),
        ("localhost:5000", ["http://localhost:5000", "https://localhost:5000"]),
        ("127.0.0.1:1", ["http://127.0.0.1:1", "https://127.0.0.1:1"]),
        ("[::1]:5000", ["http://[::1]:5000", "https://[::1]:5000"]),
        ("lan:5000", ["https://lan:5000", "http://lan:5000"]),
        ("127.0.0.1.evil.com", ["https://127.0.0.1.evil.com"]),
    ],
)
def test_only_loopback_and_what_is_listed_may_be_plain(registry: str, tried: list[str]) -> None:
    options = ClientOptions(default_registry="x", insecure_registries=("lan:5000",))
    assert [str(origin) for origin in candidates(registry, options)] == tried


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1", "a.localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["localhost.evil", "127.0.0.1.evil", "0.0.0.0", "127.1", "10.0.0.1"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


PROXIES = {"https": "http://proxy:3128", "http": "user:p%40ss@proxy:3128", "no": ".corp, 10.0.0.1"}


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("https://reg.example", "http://proxy:3128"),
        ("https://reg.corp", None),
        ("https://corp", None),
        ("https://notcorp", "http://proxy:3128"),
        ("https://10.0.0.1:5000", None),
        ("https://localhost:5000", None),
        ("http://127.0.0.1:5000", None),
    ],
)
def test_a_proxy_is_used_but_never_for_loopback(url: str, through: str | None) -> None:
    options = ClientOptions(default_registry="x", proxies=PROXIES)
    found = find_proxy(Origin.parse(url)[0], options)
    assert (found and str(found.origin)) == through


def test_a_proxys_own_credentials_are_its_own() -> None:
    options = ClientOptions(default_registry="x", proxies=PROXIES)
    found = find_proxy(Origin("http", "reg.example", 80), options)
    assert found is not None
    assert found.headers == {"Proxy-Authorization": "Basic dXNlcjpwQHNz"}


@pytest.mark.parametrize("url", ["socks5://p:1", "https://p:1", "http://", "http:// x"])
def test_a_proxy_of_another_kind_is_an_error(url: str) -> None:
    options = ClientOptions(default_registry="x", proxies={"all": url})
    with pytest.raises(ClientError, match="proxy"):
        find_proxy(Origin("https", "reg.example", 443), options)
    assert PLAIN.proxies == {}
