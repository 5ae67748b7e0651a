"""`pyreg undo`: see `pyreg.commands.history`."""

from __future__ import annotations

from pyreg.commands.history import UNDO as COMMAND
from pyreg.commands.history import undo as run

__all__ = ["COMMAND", "run"]
