"""What the administration API consists of: the words for one row of its table.

The table decides which handler runs, who may call it, how the request is read and what the OpenAPI
document says. There is no second place.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from registry.api.v1.parameters import PARAMETERS, Parameter

if TYPE_CHECKING:
    from registry.api.v1.call import Call

PREFIX = "/api/v1"


class Who(enum.Enum):
    """Who may call an endpoint that is about no single repository."""

    #: Also callers without credentials.
    ANYBODY = "anybody"
    #: Whoever is logged in; the handler gives each what is theirs.
    ACCOUNT = "account"
    #: The account that the path names as `{account}`, and administrators.
    OWN = "own"
    #: Accounts with the role admin.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class On:
    """Who may do `action` to the repository in the path: `pull`, `push`, `delete`, `admin`, …"""

    action: str


Handler = Callable[["Call"], Awaitable[Any]]


@dataclass(frozen=True)
class Endpoint:
    """One method on one path.

    path: below /api/v1; `{repository}` and the others are in `registry.api.v1.parameters`. What
        follows a repository begins with `_`, as no part of a repository's name does:
        `/repositories/{repository}/_tags`.
    answers: the dataclass of the answer, None for 204. With `paged` it is that of one item, and
        the handler returns a `Listing`.
    body: the dataclass of the request's JSON; None takes no body.
    query: the dataclass of the query's parameters (`n` and `last` come with `paged`).
    matches: whether the answer has an ETag; a PUT or DELETE of the same path then takes If-Match.
    """

    method: str
    path: str
    handler: Handler
    may: Who | On
    summary: str
    answers: type | None = None
    status: int = 200
    body: type | None = None
    query: type | None = None
    paged: bool = False
    matches: bool = False
    details: str = ""
    #: The largest body in bytes.
    limit: int = 256 * 1024

    def __post_init__(self) -> None:
        words = [name for name, _ in self._pieces() if name]
        unknown = [name for name in words if name not in PARAMETERS]
        if unknown:
            raise ValueError(f"{self.path}: unknown parameter {unknown[0]}")
        for name, after in self._pieces():
            if name == "repository" and after not in ("", "/") and not after.startswith("/_"):
                raise ValueError(f"{self.path}: what follows a repository must begin with _")
        if isinstance(self.may, On) and "repository" not in words:
            raise ValueError(f"{self.path}: there is no repository to be asked about")
        if self.may is Who.OWN and "account" not in words:
            raise ValueError(f"{self.path}: there is no account to be asked about")
        if self.answers is None and self.status == 200:
            object.__setattr__(self, "status", 204)

    def _pieces(self) -> list[tuple[str, str]]:
        """(parameter, literal after it); the first has no parameter."""
        parts = re.split(r"\{([a-z_]+)\}", self.path)
        return list(zip(["", *parts[1::2]], parts[0::2], strict=True))

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(PARAMETERS[name] for name, _ in self._pieces() if name)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Of a percent-decoded path below the prefix."""
        return re.compile(
            "".join(
                (PARAMETERS[name].group if name else "") + re.escape(after)
                for name, after in self._pieces()
            )
        )

    @cached_property
    def name(self) -> str:
        """What generated clients call it: the handler's name."""
        return self.handler.__name__.strip("_")


@dataclass(frozen=True, slots=True)
class Listing:
    """One page. `last` is what the next page comes after; empty if this is the end."""

    items: tuple[Any, ...]
    last: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with more to it than its value."""

    value: Any
    #: 0 is the endpoint's own.
    status: int = 0
    #: Of what the value was made from, without quotes; see `Endpoint.matches`.
    etag: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True)
class Table:
    """All endpoints, found by path."""

    endpoints: tuple[Endpoint, ...]
    _by_path: dict[str, dict[str, Endpoint]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names: set[str] = set()
        for endpoint in self.endpoints:
            methods = self._by_path.setdefault(endpoint.path, {})
            if endpoint.method in methods or endpoint.name in names:
                raise ValueError(f"{endpoint.method} {endpoint.path} is in the table twice")
            names.add(endpoint.name)
            methods[endpoint.method] = endpoint

    @property
    def paths(self) -> Iterable[tuple[str, dict[str, Endpoint]]]:
        return self._by_path.items()

    def find(self, path: str) -> tuple[dict[str, Endpoint], dict[str, str]] | None:
        """The endpoints of a percent-decoded path below the prefix, by method, and what its
        parameters are. Literal paths come before those with parameters."""
        literal = self._by_path.get(path)
        if literal is not None and "{" not in path:
            return literal, {}
        for methods in self._by_path.values():
            match = next(iter(methods.values())).pattern.fullmatch(path)
            if match is not None:
                return methods, match.groupdict()
        return None
