"""pyreg pull: download an image and make it ready to run."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.distribution.reference import Reference
    from ocispec.image.platform import Platform
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="pull",
    usage="[OPTIONS] NAME[:TAG|@DIGEST]",
    summary="Download an image from a registry",
    flags=(
        Flag("all-tags", "a", BOOL, "Download all tagged images in the repository"),
        Flag("as-of", "", help="What the tag was then, as 2026-11-01T12:00", metavar="TIME"),
        Flag("platform", "", help="Image of another platform, such as linux/arm64"),
        Flag("quiet", "q", BOOL, "Suppress verbose output"),
    ),
    minimum=1,
    maximum=1,
)


def run(options: Options, context: Context) -> int:
    from ocispec.distribution.name import Tag
    from ocispec.value import replace
    from pyreg.pulling import pull_image, wanted_platform
    from pyreg.remotes import Remotes, reference

    console, env = context.console, context.environment
    quiet = options.flag("quiet")
    wanted = reference(env, options.arguments[0])
    platform = wanted_platform(options.text("platform"))
    if options.text("as-of"):
        wanted = _as_of(wanted.with_default_tag(), options, context)
    with Remotes(env) as remotes:
        if options.flag("all-tags"):
            if wanted.tag or wanted.digest:
                raise UsageError("tag can't be used with --all-tags/-a")
            tags = remotes.registry(wanted.registry).repository(wanted.repository).tags()
            references = [replace(wanted, tag=Tag.parse(tag)) for tag in tags]
        else:
            if wanted.tag is None and wanted.digest is None and not quiet:
                console.note("Using default tag: latest")
            references = [wanted.with_default_tag()]
        for each in references:
            done = pull_image(each, remotes, context, platform=platform, quiet=quiet)
            name = each.familiar(env.default_registry)
            found = done.image.platform
            if options.text("platform") and not _is_for(found, platform):
                console.warn(f"{name} exists for {found} only, not for {platform}")
            if not quiet:
                state = "Downloaded newer image for" if done.is_new else "Image is up to date for"
                console.out(f"Digest: {done.target.digest}")
                console.out(f"Status: {state} {name}")
            console.out(str(each))
    return 0


def _as_of(wanted: Reference, options: Options, context: Context) -> Reference:
    """The same repository by the digest that the tag had; the registry's history knows it."""
    from datetime import datetime

    from client.admin import Admin, HttpCarrier, path_of
    from client.errors import NotFound
    from ocispec.digest import Digest
    from ocispec.distribution.reference import Reference
    from pyreg.remotes import Remotes

    if wanted.digest is not None or options.flag("all-tags"):
        raise UsageError("--as-of goes with a tag")
    try:
        at = int(datetime.fromisoformat(options.text("as-of")).timestamp())
    except (ValueError, OverflowError):
        raise UsageError("--as-of takes a time such as 2026-11-01T12:00") from None
    with Remotes(context.environment) as remotes:
        admin = Admin(HttpCarrier(remotes.registry(wanted.registry)))
        tag = str(wanted.tag)
        path = path_of("repositories", str(wanted.repository), "_tags", tag, "as-of")
        found = admin.get(path, at=at)
    digest = str(Digest.parse(found["digest"]))
    if found["place"] != "here":
        error = NotFound(f"{wanted} was {digest} then, which was deleted since")
        if found["place"] == "trash":
            error.hint = f"bring it back: pyreg restore {wanted.repository}@{digest}"
        raise error
    return Reference(
        registry=wanted.registry, repository=wanted.repository, digest=Digest.parse(digest)
    )


def _is_for(found: str, wanted: Platform) -> bool:
    """Is it the system and processor asked for? An older variant of it serves as well."""
    return found.split("/")[:2] == [wanted.os, wanted.architecture]
