"""pyreg push: send an image to the registry in its name."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.distribution.reference import Reference
    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from pyreg.remotes import Remotes

COMMAND = Command(
    name="push",
    usage="[OPTIONS] NAME[:TAG]",
    summary="Upload an image to a registry",
    flags=(
        Flag("all-tags", "a", BOOL, "Push all tags of an image to the repository"),
        Flag("quiet", "q", BOOL, "Suppress verbose output"),
    ),
    minimum=1,
    maximum=1,
)


def run(options: Options, context: Context) -> int:
    from ocispec.distribution.reference import Reference
    from pyreg.remotes import Remotes, local_store, reference

    env, console = context.environment, context.console
    wanted = reference(env, options.arguments[0])
    quiet = options.flag("quiet")
    if wanted.digest is not None:
        raise UsageError("cannot push a digest reference: name a tag")
    if options.flag("all-tags"):
        if wanted.tag is not None:
            raise UsageError("tag can't be used with --all-tags/-a")
        names = {name for image in local_store(env).images() for name in image.names}
        prefix = f"{wanted.registry}/{wanted.repository}:"
        references = [
            Reference.parse(name, default_registry=env.default_registry)
            for name in sorted(names)
            if name.startswith(prefix) and "@" not in name
        ]
        if not references:
            from client.errors import ImageNotFound

            raise ImageNotFound(
                prefix.removesuffix(":"), hint="see `pyreg images` for what is here"
            )
    else:
        if wanted.tag is None and not quiet:
            console.note("Using default tag: latest")
        references = [wanted.with_default_tag()]
    if not quiet:
        repository = f"{wanted.registry}/{wanted.repository}"
        console.note(f"The push refers to repository [{repository}]")
    with Remotes(env) as remotes:
        for each in references:
            _push(each, remotes, context, quiet)
    return 0


def _push(reference: Reference, remotes: Remotes, context: Context, quiet: bool) -> None:
    from client.errors import ImageNotFound
    from client.progress import Silence
    from client.push import push
    from pyreg.progress import display
    from pyreg.remotes import local_store

    console = context.console
    shown = None if quiet else display(console, context.environment.variables.get("TERM", ""))
    try:
        done = push(
            reference,
            local_store(context.environment),
            remotes.registry(reference.registry).repository(reference.repository),
            progress=shown or Silence(),
            parallel_blobs=remotes.options.parallel,
        )
    except ImageNotFound as error:
        raise ImageNotFound(
            str(reference), hint="give it this name first: pyreg tag SOURCE " + error.name
        ) from error
    finally:
        if shown is not None:
            shown.close()
    if done.left_out:
        console.note(
            "Not all platforms of this image are here; only the one that is was pushed, "
            "under a digest of its own."
        )
    if quiet:
        console.out(str(reference))
    else:
        target = done.target
        console.out(f"{reference.tag}: digest: {target.digest} size: {target.size}")
