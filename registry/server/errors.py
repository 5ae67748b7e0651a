"""How a request body can end other than by its last byte.

BodyError                 base, a RegistryError
├── ClientGone            the connection was closed or broke
├── ClientStalled         no byte came for the idle limit
├── MalformedBody         chunked framing is broken: answer 400 and close
└── BodyTooLarge          a sink refused more than its limit
"""

from __future__ import annotations

from registry.errors import RegistryError


class BodyError(RegistryError):
    """The bytes that the sink got before stay with the sink."""


class ClientGone(BodyError):
    """Nobody is there to be answered."""

    def __init__(self) -> None:
        super().__init__("the client closed the connection in the middle of the body")


class ClientStalled(BodyError):
    def __init__(self, idle_s: float) -> None:
        super().__init__(f"the client sent nothing for {idle_s:g} seconds")


class MalformedBody(BodyError):
    pass


class BodyTooLarge(BodyError):
    """`limit` in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")
        self.limit = limit
