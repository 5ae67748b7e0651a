"""The grammar of names, tags, digests and media types, each pattern under its production.

Patterns are plain text for `re.fullmatch(pattern, text)`: it compiles on first use and remembers,
so a program that never parses a reference does not pay for compiling one. Never match with `$`,
which also accepts a trailing newline. Every class is written out in ASCII: `\\d` and `\\w` would
accept digits and letters of all the world's scripts. No pattern can backtrack more than linearly
within the length its user checks first.
"""

from __future__ import annotations

import re

# distribution-spec, "Pulling manifests":
#   <name> ::= [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
NAME_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
NAME = rf"{NAME_COMPONENT}(?:/{NAME_COMPONENT})*"
NAME_MAX = 255  # characters of the path, the registry's host not counted

# distribution-spec, "Pulling manifests":
#   <tag> ::= [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"

# image-spec descriptor.md, "Digests":  digest ::= algorithm ":" encoded
# and "Registered algorithms":          encoded ::= /[a-f0-9]{64}/ of sha256, {128} of sha512
ENCODED = r"[a-f0-9]+"
DIGEST_MAX = len("sha512:") + 128

# The name Docker refuses because it reads as a full image id:
#   identifier ::= /[a-f0-9]{64}/
IDENTIFIER = r"[a-f0-9]{64}"

# Where a registry is, as in Docker's references, in lower case:
#   host             ::= (domain | "[" IPv6 "]") [":" port]
#   domain           ::= domain-component ["." domain-component]*
#   domain-component ::= [a-z0-9] | [a-z0-9][a-z0-9-]*[a-z0-9]
DOMAIN_COMPONENT = r"[a-z0-9]+(?:-+[a-z0-9]+)*"
DOMAIN = rf"{DOMAIN_COMPONENT}(?:\.{DOMAIN_COMPONENT})*"
HOST = rf"(?:{DOMAIN}|\[[a-f0-9:]{{2,39}}\])(?::[0-9]{{1,5}})?"
HOST_MAX = 255 + 6  # a DNS name and a port

# RFC 6838, 4.2 "Naming Requirements":
#   type-name, subtype-name ::= restricted-name ::= /[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/
RESTRICTED_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
MEDIA_TYPE = rf"{RESTRICTED_NAME}/{RESTRICTED_NAME}"
#   … in a header or descriptor, parameters may follow; we only ask that they are printable
MEDIA_TYPE_PARAMETERS = r"[ \t]*(?:;[\t\x20-\x7e]*)?"
MEDIA_TYPE_MAX = 1024

# RFC 9110, 5.6.2:  token ::= 1*tchar
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"

# RFC 9110, 5.6.4:
#   quoted-string ::= DQUOTE *( qdtext / quoted-pair ) DQUOTE
#   qdtext        ::= HTAB / SP / %x21 / %x23-5B / %x5D-7E / obs-text
#   quoted-pair   ::= "\" ( HTAB / SP / VCHAR / obs-text )
QUOTED_STRING = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
#   … and the text that can be written as one
QUOTABLE = r"[\t\x20-\x7e\x80-\xff]*"
#   … and what peers write where a token should stand, such as a URL; not starting with "="
UNQUOTED = r"(?!=)[!#-+\--:<-~]+"


def unquote(quoted: str) -> str:
    """The text of a QUOTED_STRING."""
    return re.sub(r"\\(.)", r"\1", quoted[1:-1])
