"""Which machine a SQLite file belongs to at the moment.

SQLite's write-ahead log needs memory that all its users share, so all of them must run under one
kernel: any number of processes and containers of one machine, but not two machines on a network
file system, where the file would be damaged. Asking inside the database would already be using it,
so the answer lies beside it, in `metadata.db.host`:

    {"machine": boot id of the kernel, "host": its name, "since": seconds since 1970}

Every process touches the file now and then. Its age is measured with the file system's own clock,
so machines need not agree on the time. A holder that has not touched it for `EXPIRY_S` is taken to
be dead. The last process to close removes it. Locks (flock(2))
only tell the processes of one machine who is last.

A machine that crashed and started again finds its own old name there, under another boot id: it
waits until that lease is over instead of giving up.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from registry.errors import DatabaseHeld, DatabaseUnusable

log = logging.getLogger("pyreg.registry")

RENEW_S = 10.0
EXPIRY_S = 60.0

# Two that take over at once: both write, both wait, and the one who wrote last has it.
_SETTLE_S = 1.0
_MAX_BYTES = 4096


def machine() -> str:
    """Names the running kernel: the same in all containers of it, another after a restart.

    Raises: OSError. See proc(5), /proc/sys/kernel/random/boot_id.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


@dataclass(frozen=True, slots=True)
class Holder:
    machine: str
    host: str
    #: Seconds since 1970, by the holder's clock.
    since: int

    def to_bytes(self) -> bytes:
        fields = {"machine": self.machine, "host": self.host, "since": self.since}
        return json.dumps(fields).encode()

    @staticmethod
    def from_bytes(raw: bytes) -> Holder:
        """Anything unreadable is somebody unknown: better refused than shared."""
        try:
            fields = json.loads(raw)
            return Holder(
                str(fields["machine"]), str(fields["host"]), int(fields["since"]) % (1 << 33)
            )
        except (ValueError, TypeError, KeyError):
            return Holder("?", "unknown", 0)


class HostLease:
    """Held from its creation until `close`, and kept by a thread. Closing twice is harmless.

    Raises: DatabaseHeld if another machine has the database.
    """

    def __init__(
        self,
        database: Path,
        *,
        me: str = "",
        renew_s: float = RENEW_S,
        expiry_s: float = EXPIRY_S,
        settle_s: float = _SETTLE_S,
    ) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".host")
        self._renew_s, self._expiry_s, self._settle_s = renew_s, expiry_s, settle_s
        self._me = Holder(me or machine(), socket.gethostname()[:255], int(time.time()))
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._renewed = time.monotonic()
        self._lost: DatabaseHeld | None = None
        try:
            self._descriptor = self._acquire()
        except OSError as error:
            raise DatabaseUnusable(
                f"cannot write {self._path}: {error.strerror}",
                hint="the directory must exist and be writable by this user",
            ) from error
        self._thread = threading.Thread(target=self._keep, name="metadata-host", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Called before each change. Raises: DatabaseHeld if the lease was lost meanwhile.

        A machine that slept for longer than the lease finds out here before it writes.
        """
        if time.monotonic() - self._renewed > self._expiry_s / 2:
            self._renew()
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        with self._lock:
            if self._closing.is_set():
                return
            self._closing.set()
        self._thread.join()
        try:
            # Others of this machine hold it shared; alone, we leave nothing behind.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._lost is None and self._is_current(self._descriptor):
                self._path.unlink(missing_ok=True)
        except OSError:
            pass  # somebody goes on, or the file system has no locks: then it expires
        os.close(self._descriptor)

    def _acquire(self) -> int:
        waited = -1.0  # the age after which we waited last: one that is less was renewed
        while True:
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                self._write(replace=False)
                continue
            try:
                holder = Holder.from_bytes(os.read(descriptor, _MAX_BYTES))
                if holder.machine != self._me.machine:
                    age = self._age(os.fstat(descriptor).st_mtime)
                    if age < self._expiry_s and holder.host == self._me.host and age > waited:
                        if waited < 0:
                            log.warning("waiting until the lease from before the restart is over")
                        waited = age
                        time.sleep(min(1.0, self._expiry_s / 4))
                        continue
                    if age < self._expiry_s:
                        raise self._held(holder, age)
                    self._take_over(holder, age)
                    continue
                _share(descriptor)
                if self._is_current(descriptor):
                    os.utime(self._path)
                    kept, descriptor = descriptor, -1
                    return kept
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _take_over(self, holder: Holder, age: float) -> None:
        log.warning(
            "taking over the database from %s, silent for %d seconds", holder.host, int(age)
        )
        self._write(replace=True)
        time.sleep(self._settle_s)

    def _write(self, *, replace: bool) -> None:
        """Put our name there: over whoever is there, or only if nobody is."""
        temporary = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, self._me.to_bytes())
            os.fsync(descriptor)  # a network file system sends it only now
            if replace:
                os.rename(temporary, self._path)
                return
            try:
                os.link(temporary, self._path)
            except FileExistsError:
                pass  # somebody was faster; who, is read next
            except OSError:  # no hard links here: between two newcomers the later one wins
                os.rename(temporary, self._path)
                return
            os.unlink(temporary)
        finally:
            os.close(descriptor)

    def _age(self, touched: float) -> float:
        """Seconds since then by the clock that set it, which is the file server's."""
        probe = self._path.with_name(f"{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            return os.fstat(descriptor).st_mtime - touched
        finally:
            os.close(descriptor)
            os.unlink(probe)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still names the file that we have open."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _keep(self) -> None:
        while not self._closing.wait(self._renew_s):
            self._renew()

    def _renew(self) -> None:
        with self._lock:
            if self._closing.is_set() or self._lost is not None:
                return
            try:
                holder = Holder.from_bytes(self._path.read_bytes()[:_MAX_BYTES])
                if holder.machine == self._me.machine:
                    os.utime(self._path)
                    self._renewed = time.monotonic()
                    return
                self._lost = self._held(holder, 0.0)
                log.error("%s", self._lost)
            except FileNotFoundError:
                # Removed by hand, which hands it to whoever comes first.
                self._write(replace=False)
            except OSError as error:
                log.warning("cannot renew %s: %s", self._path, error.strerror)

    def _held(self, holder: Holder, age: float) -> DatabaseHeld:
        return DatabaseHeld(
            str(self._database),
            holder=holder.host,
            since=holder.since,
            seen_s=max(0, round(age)),
            expiry_s=int(self._expiry_s),
            lease=str(self._path),
        )


def _share(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    except OSError:
        pass  # no locks here: nobody will know who is last, and the lease is left to expire
