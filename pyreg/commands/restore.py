"""`pyreg restore`: see `pyreg.commands.history`."""

from __future__ import annotations

from pyreg.commands.history import RESTORE as COMMAND
from pyreg.commands.history import restore as run

__all__ = ["COMMAND", "run"]
