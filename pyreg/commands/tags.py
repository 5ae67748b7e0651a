"""pyreg tags: the tags of a repository, asked from its registry."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="tags",
    usage="[OPTIONS] NAME",
    summary="List the tags of a repository in its registry",
    flags=(Flag("digests", "", BOOL, "Show what each tag points at (one request a tag)"),),
    minimum=1,
    maximum=1,
)


def run(options: Options, context: Context) -> int:
    from ocispec.distribution.name import Tag
    from pyreg.remotes import Remotes, reference

    wanted = reference(context.environment, options.arguments[0])
    if wanted.tag is not None or wanted.digest is not None:
        raise UsageError("name a repository, without a tag or digest")
    with Remotes(context.environment) as remotes:
        repository = remotes.registry(wanted.registry).repository(wanted.repository)
        for tag in repository.tags():
            Tag.parse(tag)  # it goes to a terminal: nothing but a tag
            if options.flag("digests"):
                context.console.out(f"{tag} {repository.head(tag)}")
            else:
                context.console.out(tag)
    return 0
