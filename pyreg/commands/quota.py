"""`pyreg quota`: how many bytes and tags a namespace of the registry may hold."""

from __future__ import annotations

from pyreg.administration import AT, LISTED, YES
from pyreg.cli import NUMBER, TEXT, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

HEADINGS = {
    "Name": "NAMESPACE",
    "Bytes": "BYTES",
    "BytesLimit": "OF",
    "Reserved": "RESERVED",
    "Tags": "TAGS",
    "TagsLimit": "OF",
    "Repositories": "REPOSITORIES",
}

LIST = Command(
    name="quota list", usage="[OPTIONS]", flags=LISTED,
    summary="List the quotas, with what is used of them",
)  # fmt: skip
SET = Command(
    name="quota set", usage="[OPTIONS] NAMESPACE", minimum=1, maximum=1,
    flags=(
        Flag("bytes", "", TEXT, "What its repositories may hold in all, as 50GB or 10GiB"),
        Flag("tags", "", NUMBER, "How many tags they may have in all"),
        *AT,
    ),
    summary="Limit a namespace: the repository of that name, and all below",
)  # fmt: skip
REMOVE = Command(
    name="quota remove", usage="[OPTIONS] NAMESPACE...", flags=(YES, *AT),
    minimum=1, maximum=None, summary="Let namespaces grow again",
)  # fmt: skip
RECOUNT = Command(
    name="quota recount", usage="[OPTIONS] NAMESPACE...", flags=AT,
    minimum=1, maximum=None, summary="Count anew what namespaces hold",
)  # fmt: skip

_UNITS = {
    "": 1, "B": 1,
    "K": 10**3, "KB": 10**3, "M": 10**6, "MB": 10**6, "G": 10**9, "GB": 10**9,
    "T": 10**12, "TB": 10**12,
    "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}  # fmt: skip


def list_(options: Options, context: Context) -> int:
    from pyreg import human
    from pyreg.administration import administration, show_list

    def size(count: int | None) -> str:
        return "-" if count is None else human.size(count)

    with administration(options, context) as admin:
        rows = [
            {
                "Name": quota["namespace"],
                "Bytes": size(quota["bytes_used"]),
                "BytesLimit": size(quota["bytes_limit"]),
                "Reserved": size(quota["bytes_reserved"]),
                "Tags": str(quota["tags_used"]),
                "TagsLimit": "-" if quota["tags_limit"] is None else str(quota["tags_limit"]),
                "Repositories": str(quota["repositories"]),
            }
            for quota in admin.items("/quotas")
        ]
    show_list(options, context, rows, HEADINGS)
    return 0


def set_(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    namespace = options.arguments[0]
    wanted, tags = options.text("bytes"), options.number("tags")
    if not wanted and not tags:
        raise UsageError("say --bytes SIZE, --tags NUMBER, or both")
    document = {}
    if wanted:
        document["bytes_limit"] = _bytes(wanted)
    if tags:
        document["tags_limit"] = tags
    with administration(options, context) as admin:
        quota = admin.put(path_of("quotas", *namespace.split("/")), document)
    used = f"{quota['bytes_used']} bytes and {quota['tags_used']} tags"
    context.console.out(f"Limited {namespace}: {used} in {quota['repositories']} repositories now")
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, confirmed

    with administration(options, context) as admin:
        for namespace in options.arguments:
            if not confirmed(options, context, f"Remove the quota of {namespace}?"):
                return 1
            admin.delete(path_of("quotas", *namespace.split("/")))
            context.console.out(f"Removed the quota of {namespace}")
    return 0


def recount(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for namespace in options.arguments:
            quota = admin.post(path_of("quotas", *namespace.split("/"), "_recount"))
            context.console.out(
                f"{namespace}: {quota['bytes_used']} bytes, {quota['tags_used']} tags"
            )
    return 0


def _bytes(text: str) -> int:
    number = text.rstrip("BKMGTIbkmgti ")
    factor = _UNITS.get(text[len(number) :].strip().upper())
    try:
        count = int(float(number) * (factor or 0))
    except (ValueError, OverflowError):
        count = 0
    if count <= 0 or count >= 1 << 53:
        raise UsageError(f"{text!r} is no size: write it as 50GB or 10GiB")
    return count


SUBCOMMANDS = {
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "set": (SET, set_),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
    "recount": (RECOUNT, recount),
}
