"""Which repositories are known to have a blob, so that a push mounts it instead of sending it.

One file per blob, `sources/<hex>`: a `host/repository` a line, the latest last. It is advice: a
line that is wrong costs one request, a lost one costs sending the bytes. So nothing here is
flushed or locked; a line is appended in one write.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocispec.digest import Digest

MAX_BYTES = 8 << 10
MAX_NAMES = 16


class Sources:
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def of(self, digest: Digest) -> tuple[str, ...]:
        """The names, the latest first; empty when nothing is known."""
        try:
            with open(self._path(digest), encoding="utf-8", errors="replace") as file:
                lines = file.read(MAX_BYTES).splitlines()
        except OSError:
            return ()
        return tuple(dict.fromkeys(reversed(lines)))[:MAX_NAMES]

    def note(self, digest: Digest, names: Iterable[str]) -> None:
        """Add names that are not there yet."""
        known = self.of(digest)
        new = [name for name in names if name not in known]
        if not new or len(known) >= MAX_NAMES:
            return
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        with open(self._path(digest), "a", encoding="utf-8") as file:
            file.write("".join(f"{name}\n" for name in new))

    def forget(self, digest: Digest) -> None:
        try:
            os.unlink(self._path(digest))
        except FileNotFoundError:
            pass

    def _path(self, digest: Digest) -> str:
        return os.path.join(self._directory, f"{digest.algorithm}-{digest.encoded}")
