"""WWW-Authenticate: how a registry wants to be logged into. Spec: RFC 9110, 11; RFC 6750, 3."""

from __future__ import annotations

import re

from ocispec import grammar
from ocispec.errors import InvalidHeader
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_HEADER = 16 * 1024
_MAX_CHALLENGES = 16
_MAX_PARAMETERS = 32

#   challenge  ::= auth-scheme [ 1*SP ( token68 / [ auth-param *( OWS "," OWS auth-param ) ] ) ]
_SCHEME = rf"[ \t,]*({grammar.TOKEN})(?=[ \t,]|\Z)"
#   token68    ::= 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_TOKEN68 = r"[ \t]+([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|\Z)"
#   auth-param ::= token BWS "=" BWS ( token / quoted-string )
_PARAMETER = (
    rf"[ \t,]*({grammar.TOKEN})[ \t]*=[ \t]*"
    rf"(?:({grammar.QUOTED_STRING})|({grammar.UNQUOTED}))[ \t]*(?=,|\Z)"
)
_END = r"[ \t,]*\Z"


@value
class Challenge:
    """One way to log in.

    scheme: from `parse_challenges` always with one capital, `Bearer` or `Basic`.
    parameters: by lower-case name, unquoted, in the order sent; treat as immutable.
    token: what follows the scheme in place of parameters, or "" (`Negotiate YII=`).

    The constructor does not check; `format` does.
    """

    scheme: str
    parameters: Mapping[str, str] = {}
    token: str = ""

    def format(self) -> str:
        """The text of the header. Raises: InvalidHeader for what a header cannot carry."""
        if not re.fullmatch(grammar.TOKEN, self.scheme):
            raise InvalidHeader(f"{self.scheme[:40]!a} is not an authentication scheme")
        if self.token:
            return f"{self.scheme} {self.token}"
        pairs = (f"{name}={_quote(text)}" for name, text in self.parameters.items())
        return f"{self.scheme} {','.join(pairs)}".rstrip()

    def __str__(self) -> str:
        return self.format()

    def __hash__(self) -> int:
        return hash((self.scheme, self.token, *self.parameters.items()))


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of one WWW-Authenticate header, in order; join several headers with commas.

    Values without quotes are accepted although they hold more than a token, such as a URL.
    Raises: InvalidHeader if it cannot be read, is too long, or gives a parameter twice.
    """
    if len(header) > _MAX_HEADER:
        raise InvalidHeader(f"WWW-Authenticate has more than {_MAX_HEADER} characters")
    challenges: list[Challenge] = []
    position = 0
    while re.compile(_END).match(header, position) is None:
        if len(challenges) == _MAX_CHALLENGES:
            raise InvalidHeader(f"WWW-Authenticate has more than {_MAX_CHALLENGES} challenges")
        challenge, position = _parse_one(header, position)
        challenges.append(challenge)
    return tuple(challenges)


def _parse_one(header: str, position: int) -> tuple[Challenge, int]:
    match = re.compile(_SCHEME).match(header, position)
    if match is None:
        shown = ascii(header[position:][:40])
        raise InvalidHeader(f"WWW-Authenticate cannot be read at {shown}")
    scheme, position = match[1].capitalize(), match.end()
    if match := re.compile(_TOKEN68).match(header, position):
        return Challenge(scheme, token=match[1]), match.end()
    parameters: dict[str, str] = {}
    while match := re.compile(_PARAMETER).match(header, position):
        name = match[1].lower()
        if name in parameters:
            raise InvalidHeader(f"WWW-Authenticate gives {name!r} twice")
        if len(parameters) == _MAX_PARAMETERS:
            raise InvalidHeader(f"WWW-Authenticate has more than {_MAX_PARAMETERS} parameters")
        parameters[name] = grammar.unquote(match[2]) if match[2] else match[3]
        position = match.end()
    return Challenge(scheme, parameters), position


def _quote(text: str) -> str:
    if not re.fullmatch(grammar.QUOTABLE, text):
        raise InvalidHeader(f"{text[:40]!a} cannot stand in a header")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
