"""Devices that wait for a person to confirm their login: RFC 8628, by hashes of both codes."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update

from registry.errors import AccountUnknown, TooManyRequests
from registry.metadata.base import Account
from registry.metadata.tables import account
from registry.metadata.tables_tokens import device_login
from registry.metadata.transaction import Operations, Transaction, reads, writes

PENDING = "pending"
APPROVED = "approved"
DENIED = "denied"
SLOW_DOWN = "slow_down"
EXPIRED = "expired"

INTERVAL_S = 5
# More at once is somebody filling the database.
MAX_WAITING = 10_000
# For a device that asks once more after its time, to be told so.
_KEEP_S = 600


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """What a person is shown before confirming."""

    client: str
    address: str
    created_at: int


class SqlDevices(Operations):
    @writes
    def begin(
        self,
        tx: Transaction,
        device_hash: str,
        user_hash: str,
        *,
        client: str,
        address: str,
        lifetime_s: int,
    ) -> None:
        """Raises: TooManyRequests."""
        tx.connection.execute(
            delete(device_login).where(device_login.c.expires_at <= tx.now - _KEEP_S)
        )
        count = select(func.count()).select_from(device_login)
        if tx.connection.execute(count).scalar_one() >= MAX_WAITING:
            raise TooManyRequests("too many devices wait for a login", after_s=60)
        tx.connection.execute(
            insert(device_login).values(
                device_hash=device_hash,
                user_hash=user_hash,
                client=client,
                address=address,
                state=PENDING,
                account_id=None,
                interval_s=INTERVAL_S,
                created_at=tx.now,
                polled_at=None,
                expires_at=tx.now + lifetime_s,
            )
        )

    @reads
    def waiting(self, tx: Transaction, user_hash: str) -> DeviceLogin | None:
        """The device that shows this user code; None if it is over, or was decided."""
        row = tx.connection.execute(
            select(device_login).where(
                device_login.c.user_hash == user_hash,
                device_login.c.state == PENDING,
                device_login.c.expires_at > tx.now,
            )
        ).first()
        return None if row is None else DeviceLogin(row.client, row.address, row.created_at)

    @writes
    def decide(self, tx: Transaction, user_hash: str, account_: str, approved: bool) -> bool:
        """A person's word, once; False if nobody waits for it. Raises: AccountUnknown."""
        found = select(account.c.id).where(account.c.name == account_)
        owner = tx.connection.execute(found).scalar()
        if owner is None:
            raise AccountUnknown(account_)
        changed = tx.connection.execute(
            update(device_login)
            .where(
                device_login.c.user_hash == user_hash,
                device_login.c.state == PENDING,
                device_login.c.expires_at > tx.now,
            )
            .values(state=APPROVED if approved else DENIED, account_id=owner)
        )
        return bool(changed.rowcount)

    @writes
    def poll(self, tx: Transaction, device_hash: str) -> tuple[str, Account | None]:
        """How it stands; an account only with APPROVED, and that only once."""
        mine = device_login.c.device_hash == device_hash
        query = select(device_login).where(mine).with_for_update()
        row = tx.connection.execute(query).first()
        if row is None or row.expires_at <= tx.now:
            return EXPIRED, None
        if row.state == PENDING:
            is_early = row.polled_at is not None and tx.now - row.polled_at < row.interval_s
            longer = min(row.interval_s + 5, 60) if is_early else row.interval_s
            tx.connection.execute(
                update(device_login).where(mine).values(polled_at=tx.now, interval_s=longer)
            )
            return (SLOW_DOWN if is_early else PENDING), None
        tx.connection.execute(delete(device_login).where(mine))
        if row.state != APPROVED:
            return DENIED, None
        holder = tx.connection.execute(
            select(account).where(account.c.id == row.account_id, account.c.disabled.is_(False))
        ).first()
        if holder is None:
            return DENIED, None
        return APPROVED, Account(
            holder.name, holder.password_hash, holder.role, False, holder.created_at, holder.kind
        )
