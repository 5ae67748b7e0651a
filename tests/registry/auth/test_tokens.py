"""Tokens are believed because of a signature of ours, and of nothing they say themselves."""

from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.scope import parse_scopes
from registry.auth import tokens as tokens_module
from registry.auth.tokens import Tokens, UnknownKey, new_signing_key
from registry.errors import Unauthenticated

NOW = 1_700_000_000
KEY = new_signing_key(NOW)
PRIVATE = load_pem_private_key(KEY.private_pem.encode(), None)
assert isinstance(PRIVATE, ec.EllipticCurvePrivateKey)
OTHER = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
CLAIMS = {
    "iss": "issuer",
    "sub": "omri",
    "aud": "service",
    "exp": NOW + 900,
    "nbf": NOW,
    "iat": NOW,
    "access": [{"type": "repository", "name": "a/b", "actions": ["pull"]}],
}


class Clock:
    now = float(NOW)

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock) -> Tokens:
    return Tokens([KEY], issuer="issuer", service="service", clock=clock)


def forge(key=PRIVATE, algorithm="ES256", *, header=None, **changed) -> str:
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": KEY.kid} | (header or {}))


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_what_is_issued_verifies_with_its_grants(tokens):
    issued = tokens.issue("omri", parse_scopes("repository:a/b:pull,push registry:catalog:*"))
    assert (issued.issued_at, issued.expires_in_s) == (NOW, 900)
    verified = tokens.verify(issued.text)
    assert verified.subject == "omri"
    assert verified.expires_at == NOW + 900
    assert verified.actions("repository", "a/b") == {"pull", "push"}
    assert verified.actions("registry", "catalog") == {"*"}
    assert verified.actions("repository", "a/c") == frozenset()


def test_what_is_issued_says_what_clients_may_look_for(tokens):
    issued = tokens.issue("omri", parse_scopes("repository:a/b:pull"))
    assert jwt.get_unverified_header(issued.text) == {
        "alg": "ES256",
        "typ": "JWT",
        "kid": KEY.kid,
    }
    claims = jwt.decode(issued.text, options={"verify_signature": False})
    assert claims.pop("jti")
    assert claims == CLAIMS


def test_an_anonymous_token_without_grants(tokens):
    verified = tokens.verify(tokens.issue("", ()).text)
    assert (verified.subject, dict(verified.grants)) == ("", {})


def test_never_shorter_than_a_minute(clock):
    short = Tokens([KEY], issuer="i", service="s", lifetime_s=1, clock=clock)
    assert short.issue("omri", ()).expires_in_s == 60


def test_a_well_made_token_passes_so_that_the_forgeries_fail_for_their_own_reason(tokens):
    assert tokens.verify(forge()).subject == "omri"


def public_pem() -> bytes:
    return PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def hs256_with_public_key() -> str:
    import hashlib
    import hmac

    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': KEY.kid})}.{part(CLAIMS)}"
    return f"{signed}.{part(hmac.digest(public_pem(), signed.encode(), hashlib.sha256))}"


def jwk_of(key) -> dict[str, str]:
    return json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))


def unsigned(header: object, claims: object = CLAIMS) -> str:
    return f"{part(header)}.{part(claims)}.{part(bytes(64))}"


def stripped() -> str:
    return forge().rpartition(".")[0] + "."


def swapped_claims() -> str:
    header, _, signature = forge().split(".")
    return f"{header}.{part(CLAIMS | {'sub': 'admin'})}.{signature}"


ATTACKS = {
    "CVE-2025-24976: own key embedded as jwk": lambda: forge(OTHER, header={"jwk": jwk_of(OTHER)}),
    "jwk of our own key": lambda: forge(header={"jwk": jwk_of(PRIVATE)}),
    "jku that leads to the attacker's keys": lambda: forge(OTHER, header={"jku": "http://[::1]/"}),
    "x5c chain": lambda: forge(OTHER, header={"x5c": ["MIIB"]}),
    "x5u": lambda: forge(OTHER, header={"x5u": "http://127.0.0.1:1/cert"}),
    "kid is a path": lambda: forge(OTHER, header={"kid": "../../../dev/null"}),
    "kid is an injection": lambda: forge(OTHER, header={"kid": "' OR 1=1 --"}),
    "kid is a number": lambda: unsigned({"alg": "ES256", "kid": 7}),
    "kid is a list": lambda: unsigned({"alg": "ES256", "kid": []}),
    "no kid": lambda: jwt.encode(CLAIMS, PRIVATE, algorithm="ES256"),
    "crit": lambda: forge(header={"crit": ["exp"]}),
    "alg none": lambda: jwt.encode(CLAIMS, None, algorithm="none", headers={"kid": KEY.kid}),
    "alg none, in capitals": lambda: unsigned({"alg": "NONE", "kid": KEY.kid}),
    "HS256 keyed with our public key": hs256_with_public_key,
    "RS256 of another key": lambda: forge(RSA, "RS256"),
    "ES384": lambda: forge(ec.generate_private_key(ec.SECP384R1()), "ES384"),
    "another key under our kid": lambda: forge(OTHER),
    "signature removed": stripped,
    "signature of zeros": lambda: forge().rpartition(".")[0] + "." + part(bytes(64)),
    "claims swapped under a good signature": swapped_claims,
    "for another service": lambda: forge(aud="other"),
    "for several services": lambda: forge(aud=["other", "another"]),
    "by another issuer": lambda: forge(iss="other"),
    "expired": lambda: forge(exp=NOW),
    "never expires": lambda: forge(exp=None),
    "expires at a text": lambda: forge(exp=str(NOW + 900)),
    "expires at true": lambda: forge(exp=True),
    "expires at infinity": lambda: forge(exp=float("inf")),
    "not valid yet": lambda: forge(nbf=NOW + 60),
    "no audience": lambda: forge(aud=None),
    "no subject": lambda: forge(sub=None),
    "access is a text": lambda: forge(access="repository:a/b:pull"),
    "access is missing": lambda: forge(access=None),
    "access of wrong shape": lambda: forge(access=[{"type": "repository"}]),
    "access with odd actions": lambda: forge(
        access=[{"type": "repository", "name": "a", "actions": [["pull"]]}]
    ),
    "encrypted": lambda: "a.b.c.d.e",
    "not a token": lambda: "omri:password",
    "empty": lambda: "",
    "not ASCII": lambda: "\xe9.\xfc.\xf6",
    "surrogates": lambda: "\udc80.\udc80.\udc80",
    "claims are a list": lambda: unsigned({"alg": "ES256", "kid": KEY.kid}, [1]),
    "header is a list": lambda: unsigned([1]),
    "huge": lambda: "a" * 10_000_000,
    "deep": lambda: unsigned(b"[" * 20_000),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused_and_not_remembered(tokens, attack):
    text = ATTACKS[attack]()
    for _ in range(2):
        with pytest.raises(Unauthenticated) as caught:
            tokens.verify(text)
    assert not text or text not in str(caught.value)
    assert len(tokens._remembered) == 0


@given(st.text(), st.text(), st.text())
def test_arbitrary_text_is_refused_in_one_way(a, b, c):
    tokens = Tokens([KEY], issuer="issuer", service="service")
    for text in (a, f"{a}.{b}.{c}", f"{part(a.encode('utf-8', 'replace'))}.{b}.{c}"):
        with pytest.raises(Unauthenticated):
            tokens.verify(text)


@given(
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "jwk"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(),
            st.lists(st.integers()),
            st.sampled_from(["ES256", KEY.kid, "JWT"]),
        ),
    )
)
def test_arbitrary_headers_are_refused_in_one_way(header):
    tokens = Tokens([KEY], issuer="issuer", service="service")
    with pytest.raises(Unauthenticated):
        tokens.verify(f"{part(header)}.{part(CLAIMS)}.{part(bytes(64))}")


# ---- what is remembered -------------------------------------------------------------------------


def test_a_remembered_token_is_not_verified_again_within_the_minute(tokens, clock, monkeypatch):
    text = tokens.issue("omri", ()).text
    verified = tokens.verify(text)
    monkeypatch.setattr(tokens, "_verify", lambda *_: pytest.fail("verified again"))
    clock.now += 59
    assert tokens.verify(text) is verified
    clock.now += 1
    with pytest.raises(pytest.fail.Exception):
        tokens.verify(text)


def test_a_remembered_token_expires_on_time(tokens, clock):
    text = tokens.issue("omri", ()).text
    clock.now += 899
    tokens.verify(text)
    clock.now += 1
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.verify(text)


def test_other_keys_end_what_was_remembered(tokens):
    text = tokens.issue("omri", ()).text
    tokens.verify(text)
    tokens.load([new_signing_key(NOW)])
    with pytest.raises(UnknownKey):
        tokens.verify(text)


def test_only_so_many_are_remembered_the_latest_used_longest(tokens, monkeypatch):
    monkeypatch.setattr(tokens_module, "_REMEMBERED", 3)
    texts = [tokens.issue("omri", ()).text for _ in range(4)]
    for text in (*texts[:3], texts[0], texts[3]):
        tokens.verify(text)
    assert list(tokens._remembered) == [texts[2], texts[0], texts[3]]
