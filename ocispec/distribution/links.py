"""Link headers, which page through lists. Spec: RFC 8288, 3."""

from __future__ import annotations

import re

from ocispec import grammar
from ocispec.errors import InvalidHeader

_MAX_HEADER = 8192

#   link-value ::= "<" URI-Reference ">" *( OWS ";" OWS [ link-param ] )
_TARGET = r"[ \t,]*<([!-;=?-~]*)>"
#   link-param ::= token BWS [ "=" BWS ( token / quoted-string ) ]
_PARAMETER = (
    rf"[ \t]*;[ \t]*(?:({grammar.TOKEN})[ \t]*"
    rf"(?:=[ \t]*(?:({grammar.QUOTED_STRING})|({grammar.UNQUOTED})))?)?"
)
_END = r"[ \t]*(?:,|\Z)"


def parse_link(header: str) -> dict[str, str]:
    """The URL of each relation, such as `next`; of a relation given twice the first.

    URLs are as sent, usually relative to the request's. Relations are in lower case.
    Raises: InvalidHeader
    """
    if len(header) > _MAX_HEADER:
        raise InvalidHeader(f"Link header has more than {_MAX_HEADER} characters")
    links: dict[str, str] = {}
    position = 0
    while re.compile(r"[ \t,]*\Z").match(header, position) is None:
        target = _expect(_TARGET, header, position)
        position = target.end()
        relations = None
        while parameter := re.compile(_PARAMETER).match(header, position):
            position = parameter.end()
            name, quoted, plain = parameter.groups()
            if name and name.lower() == "rel" and relations is None:  # RFC 8288: the first counts
                relations = grammar.unquote(quoted) if quoted else plain or ""
        position = _expect(_END, header, position).end()
        for relation in (relations or "").lower().split():
            links.setdefault(relation, target[1])
    return links


def format_next(url: str) -> str:
    """The Link header that says where the next page is.

    Raises: InvalidHeader if `url` is not a URL reference in printable ASCII.
    """
    if not re.fullmatch(r"[!-;=?-~]+", url):
        raise InvalidHeader(f"{url[:80]!a} cannot be linked to")
    return f'<{url}>; rel="next"'


def _expect(pattern: str, header: str, position: int) -> re.Match[str]:
    match = re.compile(pattern).match(header, position)
    if match is None:
        raise InvalidHeader(f"Link header cannot be read at {header[position:][:40]!a}")
    return match
