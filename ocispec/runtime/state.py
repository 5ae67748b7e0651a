"""The state of a container as `state` and hooks report it.

Spec: runtime-spec runtime.md, "State".
"""

from __future__ import annotations

from ocispec.runtime.config import SPEC_VERSION
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CREATING = "creating"
CREATED = "created"
RUNNING = "running"
STOPPED = "stopped"


@value
class State:
    """What a caller may know about a container; `pid` is 0 unless it is created or running."""

    id: str
    status: str
    bundle: str  # absolute path
    pid: int = 0
    annotations: tuple[tuple[str, str], ...] = ()
    oci_version: str = SPEC_VERSION

    def to_json(self) -> dict[str, Any]:
        members: dict[str, Any] = {
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": self.status,
            "bundle": self.bundle,
        }
        if self.pid:
            members["pid"] = self.pid
        if self.annotations:
            members["annotations"] = dict(self.annotations)
        return members
