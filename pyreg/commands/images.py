"""pyreg images: what is on this machine."""

from __future__ import annotations

from pyreg.cli import BOOL, LIST, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from client.local import LocalStore
    from client.localimage import LocalImage
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="images",
    usage="[OPTIONS] [REPOSITORY[:TAG]]",
    summary="List images",
    flags=(
        Flag("all", "a", BOOL, "Show all images (there are no hidden ones)"),
        Flag("digests", "", BOOL, "Show digests"),
        Flag("filter", "f", LIST, "Filter output: reference, dangling, label, before, since"),
        Flag("format", "", help="'table', 'table TEMPLATE', 'json', or a Go template"),
        Flag("no-trunc", "", BOOL, "Don't truncate output"),
        Flag("quiet", "q", BOOL, "Only show image IDs"),
    ),
    maximum=1,
)
HEADINGS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Platform": "PLATFORM",
    "VirtualSize": "VIRTUAL SIZE",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}
NONE = "<none>"


def run(options: Options, context: Context) -> int:
    from pyreg.listing import show
    from pyreg.remotes import local_store

    store = local_store(context.environment)
    keep = _filters(options.texts("filter"), store)
    images = [image for image in store.images() if all(test(image) for test in keep)]
    pattern = options.arguments[0] if options.arguments else ""
    patterns = [f.partition("=")[2] for f in options.texts("filter") if f.startswith("reference=")]
    rows = [
        row
        for image in images
        for full, row in _rows(image, context, options.flag("no-trunc"), options.flag("digests"))
        if _fits(full, row, pattern)
        and (not patterns or any(_fits(full, row, each) for each in patterns))
    ]
    if options.flag("quiet"):
        for each in dict.fromkeys(row["ID"] for row in rows):
            context.console.out(each)
        return 0
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if options.flag("digests"):
        columns.insert(2, "Digest")
    show(context.console, rows, columns=columns, headings=HEADINGS, template=options.text("format"))
    return 0


def _rows(
    image: LocalImage, context: Context, whole: bool, digests: bool
) -> list[tuple[str, dict[str, Any]]]:
    """A row a tag, each with the repository's full name.

    Names by digest alone only where digests are asked for or nothing else is.
    """
    import time

    from ocispec.distribution.reference import Reference
    from pyreg import human

    default = context.environment.default_registry
    known = dict(name.split("@") for name in image.repo_digests)
    names = [Reference.parse(name, default_registry=default) for name in image.names]
    tagged = [name for name in names if name.tag is not None]
    shown = [*tagged, *(n for n in names if n.tag is None and (digests or not tagged))]
    created = human.parse_time(image.created)
    size = human.size(image.size)
    rows = []
    wanted: list[Reference | None] = [*shown] or [None]
    for name in wanted:
        repository = f"{name.registry}/{name.repository}" if name else ""
        familiar = name.familiar(default) if name else ""
        familiar = familiar.partition("@")[0]
        if name is not None and name.tag is not None:
            familiar = familiar.rpartition(":")[0]
        row = {
            "Repository": familiar or NONE,
            "Tag": str(name.tag) if name and name.tag else NONE,
            "Digest": known.get(repository, NONE),
            "ID": str(image.id) if whole else image.id.encoded[:12],
            "CreatedSince": human.ago(created, time.time()),
            "CreatedAt": _moment(created),
            "Size": size,
            "VirtualSize": size,
            "Platform": image.platform,
            "Containers": "N/A",
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
        }
        rows.append((repository, row))
    return rows


def _moment(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(seconds)) if seconds else "N/A"


def _fits(full: str, row: dict[str, Any], pattern: str) -> bool:
    """Does `repository`, `repository:tag` or a glob of either mean this row?

    The repository may be written with or without the default registry.
    """
    from fnmatch import fnmatchcase

    if not pattern:
        return True
    tag, digest = row["Tag"], row["Digest"]
    return any(
        fnmatchcase(text, pattern)
        for name in (row["Repository"], full)
        for text in (name, f"{name}:{tag}", f"{name}@{digest}")
    )


def _filters(texts: tuple[str, ...], store: LocalStore) -> list[Callable[[LocalImage], bool]]:
    tests: list[Callable[[LocalImage], bool]] = []
    for text in texts:
        name, equals, wanted = text.partition("=")
        if not equals:
            raise UsageError(f"invalid filter '{text}': write name=value")
        if name == "dangling":
            if wanted.lower() not in ("true", "false", "1", "0"):
                raise UsageError(f"invalid filter 'dangling={wanted}'")
            tests.append(_dangling(wanted.lower() in ("true", "1")))
        elif name == "label":
            tests.append(_labelled(wanted))
        elif name in ("before", "since"):
            tests.append(_created(store.resolve(wanted).created, earlier=name == "before"))
        elif name != "reference":
            raise UsageError(f"invalid filter '{name}'")
    return tests


def _dangling(wanted: bool) -> Callable[[LocalImage], bool]:
    return lambda image: wanted is all("@" in name for name in image.names)


def _labelled(text: str) -> Callable[[LocalImage], bool]:
    key, equals, wanted = text.partition("=")

    def test(image: LocalImage) -> bool:
        labels = image.config.labels
        return key in labels and (not equals or labels[key] == wanted)

    return test


def _created(moment: str, *, earlier: bool) -> Callable[[LocalImage], bool]:
    return lambda image: image.created < moment if earlier else image.created > moment
