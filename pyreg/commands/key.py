"""`pyreg key`: the keys that sign the registry's access tokens."""

from __future__ import annotations

from pyreg.administration import AT, LISTED, QUIET, YES
from pyreg.cli import BOOL, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

DROP = Flag("drop", "", BOOL, "End every access token at once: a key may have been stolen")
HEADINGS = {
    "Kid": "KEY ID",
    "State": "STATE",
    "CreatedAt": "CREATED",
    "RetiredAt": "RETIRED",
    "VerifiesUntil": "VERIFIES UNTIL",
}

LIST = Command(
    name="key list", usage="[OPTIONS]", flags=LISTED, summary="List the signing keys",
)  # fmt: skip
ROTATE = Command(
    name="key rotate", usage="[OPTIONS]", flags=(DROP, YES, QUIET, *AT),
    summary="Sign with a new key; tokens that were given out stay valid",
    details="The keys before verify until the last of their tokens has ended. With --drop they "
    "are gone at once: everybody gets a new token from the login that they have.",
)  # fmt: skip


def list_(options: Options, context: Context) -> int:
    from pyreg.administration import administration, show_list, when

    with administration(options, context) as admin:
        found = sorted(admin.items("/keys"), key=lambda key: (key["state"], -key["created_at"]))
    rows = [
        {
            "Kid": key["kid"],
            "State": key["state"],
            "CreatedAt": when(key["created_at"]),
            "RetiredAt": when(key["retired_at"]),
            "VerifiesUntil": when(key["verifies_until"]),
        }
        for key in found
    ]
    show_list(options, context, rows, HEADINGS, name="Kid")
    return 0


def rotate(options: Options, context: Context) -> int:
    from pyreg.administration import administration, confirmed

    drop = options.flag("drop")
    if drop and not confirmed(options, context, "This ends every access token at once."):
        return 1
    with administration(options, context) as admin:
        key = admin.post("/keys/rotate", {"drop": drop})
    if not options.flag("quiet"):
        context.console.note(
            "Every access token has ended." if drop else "Tokens of the key before stay valid."
        )
    context.console.out(key["kid"])
    return 0


SUBCOMMANDS = {"list": (LIST, list_), "ls": (LIST, list_), "rotate": (ROTATE, rotate)}
