"""One call of the administration API, as its handler sees it: checked and authorised already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

from ocispec.distribution.name import RepositoryName, Tag
from registry.api.v1.shapes import Text, Whole

if TYPE_CHECKING:
    from registry.api.exchange import Exchange
    from registry.api.services import Services
    from registry.auth.guard import Caller
    from registry.metadata.base import Access

T = TypeVar("T")

MAX_PAGE = 1000
DEFAULT_PAGE = 100


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page of a sorted listing: at most `n` items, those after `last`."""

    n: Annotated[int, Whole(1, MAX_PAGE, "most items of a page")] = DEFAULT_PAGE
    last: Annotated[str, Text(0, 512, description="the page begins after this")] = ""


@dataclass(frozen=True)
class Call:
    """What a handler works with.

    parameters: those of the path, each checked by its grammar.
    caller: who asks; `caller.subject` has name and role.
    """

    exchange: Exchange
    parameters: Mapping[str, str]
    caller: Caller
    #: Whether the caller administers the registry.
    is_admin: bool
    #: Whether this is a call in process, by whoever has the registry's files: no account.
    is_local: bool = False
    paging: Paging = Paging()
    #: Of the repository in the path, where the table says `On(...)`.
    _access: Access | None = None
    _body: object = None
    _query: object = None

    @property
    def services(self) -> Services:
        return self.exchange.services

    @property
    def actor(self) -> str:
        """The caller's account, for whoever writes down who did it."""
        return self.caller.subject.name

    @property
    def access(self) -> Access:
        """What the caller may do to the repository in the path, by their live policy."""
        assert self._access is not None, "the table does not say On(...) for this endpoint"
        return self._access

    @property
    def repository(self) -> RepositoryName:
        return RepositoryName.parse(self.parameters["repository"])

    @property
    def tag(self) -> Tag:
        return Tag.parse(self.parameters["tag"])

    def body(self, kind: type[T]) -> T:
        """The request's document; `kind` is the one in the table."""
        assert isinstance(self._body, kind)
        return self._body

    def query(self, kind: type[T]) -> T:
        """The query's parameters; `kind` is the one in the table."""
        assert isinstance(self._query, kind)
        return self._query

    def may_read(self, name: str) -> bool:
        """Whether the caller may pull from a repository of this name."""
        return self.is_admin or self.services.guard.may(self.caller, "pull", name)

    def if_match(self) -> tuple[str, ...] | None:
        """The entity tags of which one must be the present one; None if it does not matter.

        Spec: RFC 9110, 13.1.1; only strong ones can match.
        """
        given = self.exchange.header(b"if-match")
        if given is None or given.strip() == b"*":
            return None
        items = (item.strip() for item in given.decode("latin-1").split(","))
        return tuple(item[1:-1] for item in items if len(item) > 1 and item[0] == item[-1] == '"')
