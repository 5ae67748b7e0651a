"""pyreg pull: download an image and make it ready to run."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.image.platform import Platform
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="pull",
    usage="[OPTIONS] NAME[:TAG|@DIGEST]",
    summary="Download an image from a registry",
    flags=(
        Flag("all-tags", "a", BOOL, "Download all tagged images in the repository"),
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


def _is_for(found: str, wanted: Platform) -> bool:
    """Is it the system and processor asked for? An older variant of it serves as well."""
    return found.split("/")[:2] == [wanted.os, wanted.architecture]
