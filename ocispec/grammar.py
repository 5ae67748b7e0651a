"""The grammar of names, tags, digests and media types, each pattern under its production.

Patterns are plain text for `re.fullmatch(pattern, text)`: it compiles on first use and remembers,
so a program that never parses a reference does not pay for compiling one. Never match with `$`,
which also accepts a trailing newline. Every class is written out in ASCII: `\\d` and `\\w` would
accept digits and letters of all the world's scripts. No pattern can backtrack more than linearly
within the length its user checks first.
"""

from __future__ import annotations

# distribution-spec, "Pulling manifests":
#   <name> ::= [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
NAME_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
NAME = rf"{NAME_COMPONENT}(?:/{NAME_COMPONENT})*"
NAME_MAX = 255  # characters of the path, the registry's host not counted

# distribution-spec, "Pulling manifests":
#   <tag> ::= [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}
TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"

# image-spec descriptor.md, "Digests", with the lengths of "Registered algorithms":
#   digest    ::= algorithm ":" encoded
#   algorithm ::= "sha256" | "sha512"
#   encoded   ::= /[a-f0-9]{64}/ | /[a-f0-9]{128}/
DIGEST = r"sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}"
DIGEST_MAX = 7 + 128

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
