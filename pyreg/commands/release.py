"""`pyreg release`: see `pyreg.commands.history`."""

from __future__ import annotations

from pyreg.commands.history import APPLY, release

SUBCOMMANDS = {"apply": (APPLY, release)}
