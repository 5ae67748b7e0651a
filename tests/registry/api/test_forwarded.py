"""X-Forwarded-*: whose word counts, hop by hop."""

from __future__ import annotations

from typing import Any

import pytest

from registry.api.forwarded import ForwardedHeaders

TRUSTED = ("10.0.0.0/8", "fd00::/8", "192.0.2.7")


async def seen(client: str, *headers: tuple[str, str]) -> tuple[str, str, str]:
    """What the application sees: client, scheme, host."""
    found: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope)

    raw = [
        (b"host", b"inside"),
        *((name.encode(), value.encode("latin-1")) for name, value in headers),
    ]
    scope = {"type": "http", "client": (client, 1), "scheme": "http", "headers": raw}
    await ForwardedHeaders(application, TRUSTED)(scope, None, None)  # type: ignore[arg-type]
    hosts = [value.decode() for name, value in found[0]["headers"] if name == b"host"]
    assert len(hosts) == 1
    return found[0]["client"][0], found[0]["scheme"], hosts[0]


FOR, PROTO, HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"


@pytest.mark.parametrize(
    ("what", "client", "headers", "expected"),
    [
        ("nobody is believed unasked", "203.0.113.9",
         [(FOR, "1.1.1.1"), (PROTO, "https"), (HOST, "evil")], ("203.0.113.9", "http", "inside")),
        ("one proxy", "10.0.0.1",
         [(FOR, "203.0.113.9"), (PROTO, "https"), (HOST, "r.example:8443")],
         ("203.0.113.9", "https", "r.example:8443")),
        ("what the client wrote itself is left alone", "10.0.0.1",
         [(FOR, "127.0.0.1, 10.9.9.9, 203.0.113.9")], ("203.0.113.9", "http", "inside")),
        ("through our own proxies to the client", "10.0.0.1",
         [(FOR, "6.6.6.6, 203.0.113.9, 192.0.2.7, 10.1.1.1")], ("203.0.113.9", "http", "inside")),
        ("repeated fields are one list, in order", "10.0.0.1",
         [(FOR, "6.6.6.6"), (FOR, "203.0.113.9"), (FOR, "10.1.1.1")],
         ("203.0.113.9", "http", "inside")),
        ("as many schemes as hops: where the client was", "10.0.0.1",
         [(FOR, "203.0.113.9, 10.1.1.1"), (PROTO, "https, http"), (HOST, "r.example, inner")],
         ("203.0.113.9", "https", "r.example")),
        ("a client's own scheme does not count", "10.0.0.1",
         [(FOR, "6.6.6.6, 203.0.113.9"), (PROTO, "https, http")],
         ("203.0.113.9", "http", "inside")),
        ("one scheme for several hops", "10.0.0.1",
         [(FOR, "203.0.113.9, 10.1.1.1"), (PROTO, "https")], ("203.0.113.9", "https", "inside")),
        ("IPv6", "fd00::1", [(FOR, "2001:db8::9, fd00::2")], ("2001:db8::9", "http", "inside")),
        ("IPv4 on an IPv6 socket", "::ffff:10.0.0.1", [(FOR, "::ffff:203.0.113.9")],
         ("203.0.113.9", "http", "inside")),
        ("ports and brackets", "10.0.0.1", [(FOR, "203.0.113.9:1234, [fd00::2]:80")],
         ("203.0.113.9", "http", "inside")),
        ("all are ours: nobody said who", "10.0.0.1", [(FOR, "10.2.2.2, 10.1.1.1")],
         ("10.0.0.1", "http", "inside")),
        ("no address ends the walk", "10.0.0.1", [(FOR, "6.6.6.6, unknown, 10.1.1.1")],
         ("10.0.0.1", "http", "inside")),
        ("nothing said", "10.0.0.1", [], ("10.0.0.1", "http", "inside")),
        ("no scheme of ours", "10.0.0.1", [(PROTO, "javascript")], ("10.0.0.1", "http", "inside")),
        ("Forwarded is not read", "10.0.0.1", [("forwarded", "for=6.6.6.6;proto=https;host=evil")],
         ("10.0.0.1", "http", "inside")),
    ],
)  # fmt: skip
async def test_whose_word_counts(
    what: str, client: str, headers: list[tuple[str, str]], expected: tuple[str, str, str]
) -> None:
    assert await seen(client, *headers) == expected, what


@pytest.mark.parametrize("host", ['a"b', "a b", "a/b", "a@b", "é", "[::1", "x:port", "a\\b", ""])
async def test_attack_a_forwarded_host_that_breaks_out_of_a_header(host: str) -> None:
    assert (await seen("10.0.0.1", (HOST, host)))[2] == "inside"


@pytest.mark.parametrize(
    "address", ["1.1.1.1\u0085x", "<script>", "fe80::1%eth0", "1.1.1", "9" * 9000]
)
async def test_attack_an_address_that_is_text_for_the_log(address: str) -> None:
    assert (await seen("10.0.0.1", (FOR, address)))[0] == "10.0.0.1"


async def test_attack_a_very_long_list() -> None:
    assert (await seen("10.0.0.1", (FOR, "6.6.6.6," * 8000 + "203.0.113.9")))[0] == "203.0.113.9"
