"""Bytes that no honest client sends: mutations of good requests, and the classics by name.

`hidden` is a request that stands where one reading of the bytes sees a body and another a second
request. If it is ever answered, a proxy in front could be made to disagree with us about who asked
what: request smuggling.
"""

from __future__ import annotations

import random

from tests.security.serving import AUTHORIZATION, DIGEST, PREY, request

MARK = "smuggled"
HIDDEN = request("GET", f"/v2/{MARK}/tags/list")
_HEAD = f"Host: x\r\nAuthorization: {AUTHORIZATION}\r\n".encode()
_PUT = f"PUT /v2/{PREY}/manifests/v1 HTTP/1.1\r\n".encode() + _HEAD
_PATCH = f"PATCH /v2/{PREY}/blobs/uploads/x HTTP/1.1\r\n".encode() + _HEAD
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


def _length(count: object) -> bytes:
    return f"Content-Length: {count}\r\n".encode()


ENDED = b"0\r\n\r\n"
ALL = len(ENDED) + len(HIDDEN)

# Each must be refused, or its hidden request taken as the body that it is.
SMUGGLING: dict[str, bytes] = {
    "length and chunked": _PUT + _length(ALL) + _CHUNKED + b"\r\n" + ENDED + HIDDEN,
    "chunked and length": _PUT + _CHUNKED + _length(ALL) + b"\r\n" + ENDED + HIDDEN,
    "chunked and no length": _PUT + _length(0) + _CHUNKED + b"\r\n" + ENDED + HIDDEN,
    "lengths that differ": _PUT + _length(0) + _length(len(HIDDEN)) + b"\r\n" + HIDDEN,
    "lengths in a list": _PUT + _length(f"0, {len(HIDDEN)}") + b"\r\n" + HIDDEN,
    "lengths that agree": _PUT + _length(0) + _length(0) + b"\r\n" + HIDDEN,
    "length with a sign": _PUT + _length("+0") + b"\r\n" + HIDDEN,
    "negative length": _PUT + _length(-1) + b"\r\n" + HIDDEN,
    "length in hexadecimal": _PUT + _length("0x0") + b"\r\n" + HIDDEN,
    "length with an underscore": _PUT + _length("0_0") + b"\r\n" + HIDDEN,
    "length in other digits": _PUT + b"Content-Length: \xd9\xa0\r\n\r\n" + HIDDEN,
    "empty length": _PUT + _length("") + b"\r\n" + HIDDEN,
    "length beyond 64 bits": _PUT + _length(2**64) + b"\r\n" + HIDDEN,
    "length far beyond": _PUT + _length("9" * 400) + b"\r\n" + HIDDEN,
    "blank before the colon": _PUT + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "chunked, blank before the colon": _PUT
    + b"Transfer-Encoding : chunked\r\n"
    + _length(ALL)
    + b"\r\n"
    + ENDED
    + HIDDEN,
    "coding that is not the last": _PUT
    + b"Transfer-Encoding: chunked, identity\r\n\r\n"
    + ENDED
    + HIDDEN,
    "coding of another name": _PUT + b"Transfer-Encoding: xchunked\r\n\r\n" + ENDED + HIDDEN,
    "coding with a tab": _PUT
    + b"Transfer-Encoding:\tchunked\x0b\r\n"
    + _length(ALL)
    + b"\r\n"
    + ENDED
    + HIDDEN,
    "coding with a quote": _PUT + b'Transfer-Encoding: "chunked"\r\n\r\n' + ENDED + HIDDEN,
    "two codings": _PUT + _CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + ENDED + HIDDEN,
    "folded coding": _PUT + b"Transfer-Encoding:\r\n chunked\r\n" + _length(ALL) + b"\r\n" + ENDED
    # whatever the fold means, the length says that all of it is the body
    + HIDDEN,
    "folded line first": _PUT.replace(b"Host: x", b" X: y\r\nHost: x") + b"\r\n" + HIDDEN,
    "bare line feeds": (_PUT + _length(0)).replace(b"\r\n", b"\n") + b"\n" + HIDDEN,
    "bare returns": (_PUT + _length(0)).replace(b"\r\n", b"\r") + b"\r" + HIDDEN,
    "head that ends by line feeds": _PUT + _length(70_000) + b"\n" + HIDDEN,
    "line feed in a value": _PUT + b"X: a\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "return in a value": _PUT + b"X: a\rContent-Length: 0\r\n\r\n" + HIDDEN,
    "NUL in a value": _PUT + b"X: a\x00b\r\n" + _length(0) + b"\r\n" + HIDDEN,
    "name with a blank": _PUT + b"X Y: a\r\n" + _length(0) + b"\r\n" + HIDDEN,
    "name with a NUL": _PUT + b"X\x00: a\r\n" + _length(0) + b"\r\n" + HIDDEN,
    "no name": _PUT + b": a\r\n" + _length(0) + b"\r\n" + HIDDEN,
    "no colon": _PUT + b"nonsense\r\n" + _length(0) + b"\r\n" + HIDDEN,
    "chunk size that overflows": _PUT + _CHUNKED + b"\r\n1" + b"0" * 16 + b"\r\n" + HIDDEN,
    "chunk size of ten thousand digits": _PUT + _CHUNKED + b"\r\n" + b"0" * 10_000 + HIDDEN,
    "chunk size with a sign": _PUT + _CHUNKED + b"\r\n-1\r\n" + HIDDEN,
    "chunk size with 0x": _PUT + _CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN,
    "chunk size with a blank": _PUT + _CHUNKED + b"\r\n 0\r\n\r\n" + HIDDEN,
    "chunk that ends early": _PUT + _CHUNKED + b"\r\n2\r\nabc\r\n" + ENDED + HIDDEN,
    "chunk that ends by a line feed": _PUT + _CHUNKED + b"\r\n2\nab\r\n" + ENDED + HIDDEN,
    "chunk data that ends by a line feed": _PUT + _CHUNKED + b"\r\n2\r\nab\n" + ENDED + HIDDEN,
    "extension with a line feed": _PUT + _CHUNKED + b"\r\n2;a\nab\r\n" + ENDED + HIDDEN,
    "extension with a NUL": _PUT + _CHUNKED + b"\r\n0;\x00\r\n\r\n" + HIDDEN,
    "extension without an end": _PUT + _CHUNKED + b"\r\n2;" + b"a" * 100_000 + HIDDEN,
    "trailer without a colon": _PUT + _CHUNKED + b"\r\n0\r\nnonsense\r\n\r\n" + HIDDEN,
    "trailer without an end": _PUT + _CHUNKED + b"\r\n0\r\n" + b"A: b\r\n" * 20_000 + HIDDEN,
    "the same to an upload": _PATCH + _length(ALL) + _CHUNKED + b"\r\n" + ENDED + HIDDEN,
    "upload, lengths that differ": _PATCH
    + _length(70_000)
    + _length(0)
    + b"\r\n"
    + HIDDEN,
    "HTTP/1.0 and chunked": (_PUT + _CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0")
    + _length(ALL)
    + b"\r\n"
    + ENDED
    + HIDDEN,
    "HTTP/1.0 and only chunked": (_PUT + _CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0")
    + b"\r\n"
    + ENDED
    + HIDDEN,
    "HTTP/0.9": b"GET /v2/\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/1.2": _PUT.replace(b"HTTP/1.1", b"HTTP/1.2") + _length(0) + b"\r\n" + HIDDEN,
    "HTTP/1.10": _PUT.replace(b"HTTP/1.1", b"HTTP/1.10") + _length(0) + b"\r\n" + HIDDEN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + HIDDEN,
    "upgrade": _PUT + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + _length(len(HIDDEN)) + b"\r\n"
    + HIDDEN,
    "body of a GET": request("GET", "/v2/", f"Content-Length: {len(HIDDEN)}") + HIDDEN,
    "body of a HEAD": request("HEAD", "/v2/", f"Content-Length: {len(HIDDEN)}") + HIDDEN,
    "body of a DELETE": request("DELETE", "/v2/", f"Content-Length: {len(HIDDEN)}") + HIDDEN,
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\n" + _HEAD + _length(0) + b"\r\n" + HIDDEN,
}  # fmt: skip

TARGETS = (
    "*",
    "http://evil.example/v2/_catalog",
    "https://x:99999/v2/",
    "//v2/_catalog",
    "/v2/_catalog",
    "/v2/./_catalog",
    "/v2/%2e%2e/%2e%2e/etc/passwd",
    "/v2/..%2f..%2f..%2fetc%2fpasswd/manifests/x",
    "/v2/%5c..%5c/manifests/x",
    "/v2/%00/manifests/%00",
    "/v2/%c0%ae%c0%ae%c0%af/manifests/v1",
    "/v2/%e0%80%ae/blobs/" + DIGEST,
    "/v2/%f0%9f%92%a9/manifests/v1",
    "/v2/%ed%a0%80/manifests/v1",
    "/v2/%/manifests/v1",
    "/v2/%zz/manifests/v1",
    f"/v2/{PREY}/blobs/{DIGEST}",
    f"/v2/{PREY}/blobs/sha256:{'A' * 64}",
    f"/v2/{PREY}/blobs/sha256:%2e%2e%2f",
    f"/v2/{PREY}/blobs/sha256:{'a' * 100_000}",
    f"/v2/{PREY}/blobs/uploads/",
    f"/v2/{PREY}/blobs/uploads/?digest={DIGEST}",
    f"/v2/{PREY}/blobs/uploads/?mount={DIGEST}&from=..%2f..",
    f"/v2/{PREY}/blobs/uploads/?digest-algorithm=md5",
    f"/v2/{PREY}/blobs/uploads/00000000-0000-4000-8000-000000000000?digest={DIGEST}",
    f"/v2/{PREY}/blobs/uploads/..%2f..%2fmetadata.db",
    f"/v2/{PREY}/manifests/v1",
    f"/v2/{PREY}/manifests/{DIGEST}?tag=a&tag=../b&tag=%00",
    f"/v2/{PREY}/tags/list?n=99999999999999999999&last=%00%ff%0d%0aX:%20y",
    f"/v2/{PREY}/referrers/{DIGEST}?artifactType=%0d%0aX:%20y&n=1",
    "/v2/_catalog?" + "n=1&" * 1000,
    "/v2/_oci/ext/discover",
    "/v1/search?q=%ff%00&n=-1",
    "/token?scope=repository:x:pull&service=%00&client_id=" + "a" * 9000,
    "/token",
    "/livez",
    "/readyz",
    "/metrics",
    "/.%2e/.%2e/etc/passwd",
    "/v2?x=\xff",
)
METHODS = (
    "GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND",
    "PURGE", "get", "G\x00T", "X" * 300,
)  # fmt: skip
HEADERS = (
    "Range: bytes=0-0,5-9,1-",
    "Range: bytes=99999999999999999999-",
    "Range: bytes=-0",
    "Range: lines=1",
    "If-Range: x",
    "If-None-Match: " + 'W/"a",' * 500,
    "Content-Range: 0-99999999999999999999",
    "Content-Range: bytes 5-1/x",
    "Content-Type: \xff\xfe",
    "Content-Type: " + "a" * 5000,
    "Accept: " + "a/b," * 5000,
    "Authorization: Bearer a.b.c",
    "Authorization: Bearer " + "A" * 50_000,
    "Authorization: Basic \xff",
    "Authorization: ",
    "X-Forwarded-For: " + "1," * 5000,
    'X-Forwarded-Host: evil"',
    "Host: y",
    'Host: "\\',
    "Expect: 100-continue",
    "Expect: nonsense",
    "Connection: close, keep-alive",
    "Upgrade: websocket",
    "Transfer-Encoding: chunked",
    "Content-Length: 3",
    "X-Many: y\r\n" * 2000 + "X: y",
    "Docker-Content-Digest: ../../x",
)
BODIES = (
    b"",
    b"abc",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}',
    b'{"schemaVersion":1e400}',
    b'{"layers":[],"manifests":[]}',
    b"\xff\xfe\x00",
    b"grant_type=password&username=%ff&password=%00",
    b"grant_type=refresh_token&refresh_token=" + b"a" * 70_000,
)


def mutated(moment: random.Random) -> bytes:
    """A request that may be anything: an unusual one, then a few random changes to its bytes."""
    headers = [moment.choice(HEADERS) for _ in range(moment.choice((0, 0, 1, 1, 2, 5)))]
    path, method = moment.choice(TARGETS), moment.choice(METHODS)
    body = moment.choice(BODIES)
    raw = request(method, path, *headers, body=body, login=moment.random() < 0.8)
    for _ in range(moment.choice((0, 0, 1, 2, 8))):
        raw = _changed(moment, raw)
    if moment.random() < 0.2:
        raw += mutated(moment)
    return raw


def _changed(moment: random.Random, raw: bytes) -> bytes:
    # Mostly in the head, where it matters.
    place = moment.randrange(min(len(raw), 400) or 1)
    match moment.randrange(6):
        case 0:
            return raw[:place] + moment.randbytes(1) + raw[place + 1 :]
        case 1:
            return (
                raw[:place] + moment.choice((b"\r", b"\n", b"\0", b" ", b"%", b":")) + raw[place:]
            )
        case 2:
            return raw[:place] + raw[place + moment.randrange(20) :]
        case 3:
            return raw[:place] + raw[place : place + 30] * moment.choice((2, 50)) + raw[place:]
        case 4:
            return raw[: moment.randrange(len(raw) + 1)]
        case _:
            return raw[:place] + moment.randbytes(moment.randrange(40)) + raw[place:]
