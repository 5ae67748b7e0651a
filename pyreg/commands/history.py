"""`pyreg history`, `undo`, `restore` and `release`: what a registry remembers of its tags.

They speak to the administration API of the registry that `--registry` names, or of this machine.
"""

from __future__ import annotations

from pyreg.administration import AT, FORMAT, QUIET, YES
from pyreg.cli import BOOL, NUMBER, TEXT, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from client.admin import Admin
    from pyreg.__main__ import Context
    from pyreg.cli import Options

DRY_RUN = Flag("dry-run", "", BOOL, "Only show what would be done")

COMMAND = Command(
    name="history",
    usage="[OPTIONS] REPOSITORY[:TAG]",
    summary="Show what changed in a repository's tags",
    flags=(
        Flag("remote", "", BOOL, "Ask the registry for the changes of tags"),
        Flag("limit", "n", NUMBER, "Most changes to show", default=50),
        FORMAT,
        QUIET,
        *AT,
    ),
    minimum=1,
    maximum=1,
)
UNDO = Command(
    name="undo",
    usage="[OPTIONS] REPOSITORY[:TAG]",
    summary="Take back the last change of a tag or repository, or a whole release",
    flags=(
        Flag("change", "", NUMBER, "Take back this change set, as the history shows it"),
        DRY_RUN,
        YES,
        *AT,
    ),
    minimum=0,
    maximum=1,
)
RESTORE = Command(
    name="restore",
    usage="[OPTIONS] REPOSITORY[:TAG|@DIGEST]",
    summary="Bring back a deleted tag, manifest or repository",
    flags=(Flag("list", "", BOOL, "List the deleted manifests"), DRY_RUN, YES, *AT),
    minimum=1,
    maximum=1,
)
APPLY = Command(
    name="release apply",
    usage="[OPTIONS] FILE | REPOSITORY:TAG=TAG|DIGEST...",
    summary="Move many tags in many repositories, all or none",
    flags=(
        Flag("note", "", TEXT, "What to call it in the history"),
        Flag("file", "f", TEXT, "Read the moves from a file, one a line"),
        DRY_RUN,
        YES,
        *AT,
    ),
    minimum=0,
    maximum=None,
    details="A move is REPOSITORY:TAG=TAG or REPOSITORY:TAG=DIGEST. A second word after it,\n"
    "'was=DIGEST' or 'was=absent', refuses the release if the tag is something else.",
)


def history(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, show_list, when

    if not options.flag("remote"):
        raise UsageError("the history of local images is not there yet; use --remote for tags")
    name, tag, _ = _target(options.arguments[0])
    limit = max(1, min(options.number("limit"), 1000))
    query = {"n": limit, **({"tag": tag} if tag else {})}
    with administration(options, context) as admin:
        found = admin.get(path_of("repositories", name, "_history"), **query)["items"]
    rows = [
        {
            "When": when(entry["at"]),
            "Tag": entry["tag"],
            "Old": _short(entry["old"]),
            "New": _short(entry["new"]),
            "Actor": entry["actor"] or "-",
            "Change": entry["change"] or "-",
            "What": " ".join(filter(None, (entry["kind"], entry["note"]))) or "push",
            "OldDigest": entry["old"],
            "NewDigest": entry["new"],
        }
        for entry in found
    ]
    headings = {key: key.upper() for key in ("When", "Tag", "Old", "New", "Actor", "Change")}
    show_list(options, context, rows, headings | {"What": "WHAT"}, name="NewDigest")
    return 0


def undo(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    change = options.number("change")
    if bool(change) == bool(options.arguments):
        raise UsageError("name a repository, or a change set with --change")
    if change:
        path, document = path_of("changes", str(change), "undo"), {}
    else:
        name, tag, digest = _target(options.arguments[0])
        if digest:
            raise UsageError("name a tag, not a digest")
        path, document = path_of("repositories", name, "_undo"), {"tag": tag}
    with administration(options, context) as admin:
        return _act(options, context, admin, path, document, "Take this back?")


def restore(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, when

    name, tag, digest = _target(options.arguments[0])
    with administration(options, context) as admin:
        if options.flag("list"):
            rows = [
                (i["digest"], i["deleted_by"] or "-", when(i["deleted_at"]), when(i["expires_at"]))
                for i in admin.items(path_of("repositories", name, "_trash"))
            ]
            context.console.table(("DIGEST", "DELETED BY", "DELETED", "GONE AFTER"), rows)
            return 0
        path = path_of("repositories", name, "_restore")
        return _act(options, context, admin, path, {"reference": digest or tag}, "Restore this?")


def release(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    lines: list[str] = []
    words = list(options.arguments)
    file = options.text("file")
    if not file and len(words) == 1 and "=" not in words[0]:
        file = words.pop()
    if file:
        with open(file, encoding="utf-8") as opened:
            lines = opened.read(1 << 20).splitlines()
    moves: list[dict[str, str]] = []
    for line in (*lines, *words):
        text = line.split("#", 1)[0].strip()
        if text.startswith("was=") and moves:
            moves[-1]["expected"] = text[4:]
        elif text:
            moves.append(_move(text))
    if not moves:
        raise UsageError("name at least one move, as team/app:stable=1.4")
    document = {"moves": moves, "note": options.text("note")}
    with administration(options, context) as admin:
        return _act(options, context, admin, "/releases", document, "Do this?")


def _act(
    options: Options,
    context: Context,
    admin: Admin,
    path: str,
    document: dict[str, Any],
    question: str,
) -> int:
    """Show what would happen, ask, do it."""
    from pyreg.administration import confirmed

    only_shown = options.flag("dry-run")
    if only_shown or not options.flag("yes"):
        _show(context, admin.post(path, {**document, "dry_run": True}))
        if only_shown or not confirmed(options, context, question):
            return 0 if only_shown else 1
    done = admin.post(path, document)
    if options.flag("yes"):
        _show(context, done)
    context.console.out(f"Change {done['change']}: pyreg undo --change {done['change']}")
    return 0


def _show(context: Context, act: dict[str, Any]) -> None:
    for name, digest in act["restored"]:
        context.console.out(f"{name}@{digest} comes back")
    for step in act["steps"]:
        old, new = _short(step["old"]), _short(step["new"])
        context.console.out(f"{step['repository']}:{step['tag']} {old} -> {new}")
    if not act["steps"] and not act["restored"]:
        context.console.out("Nothing changes")


def _move(text: str) -> dict[str, str]:
    move, *more = text.split()
    target, equals, to = move.partition("=")
    name, tag, digest = _target(target)
    if not equals or not tag or digest or len(more) > 1:
        raise UsageError(f"'{text}' is no move; write team/app:stable=1.4")
    found = {"repository": name, "tag": tag, "to": to}
    if more:
        key, _, value = more[0].partition("=")
        if key != "was":
            raise UsageError(f"'{more[0]}' is not known; write was=DIGEST or was=absent")
        found["expected"] = value
    return found


def _target(text: str) -> tuple[str, str, str]:
    """Repository, tag and digest; the latter two may be empty."""
    from ocispec.distribution.name import RepositoryName, Tag

    name, _, digest = text.partition("@")
    if digest:
        from ocispec.digest import Digest

        digest = str(Digest.parse(digest))
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        return RepositoryName.parse(head).text, Tag.parse(tag).text, digest
    return RepositoryName.parse(name).text, "", digest


def _short(digest: str | None) -> str:
    return digest.partition(":")[2][:12] if digest else "-"


run = history
