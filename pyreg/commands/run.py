"""pyreg run: a new container from an image, pulled when it is not here."""

from __future__ import annotations

import os
import sys

from pyreg.cli import BOOL, LIST, NUMBER, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from client.localimage import LocalImage
    from ocispec.image.config import ImageConfig
    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from runtime.container.options import RunOptions
    from runtime.engine import Engine


def _explain(flag: str) -> str:
    from pyreg.unsupported import run_flag

    return run_flag(flag)


COMMAND = Command(
    name="run",
    usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    summary="Create and run a new container from an image",
    details=(
        "Without --network a container has the loopback interface only.\n"
        "A container in the foreground ends with this command; use --detach for one that stays."
    ),
    flags=(
        Flag("add-host", "", LIST, "Add a custom host-to-IP mapping (host:ip)"),
        Flag("cap-add", "", LIST, "Add Linux capabilities"),
        Flag("cap-drop", "", LIST, "Drop Linux capabilities"),
        Flag("cidfile", "", help="Write the container ID to the file", metavar="FILE"),
        Flag("cpu-shares", "c", NUMBER, "CPU shares (relative weight)"),
        Flag("cpus", "", help="Number of CPUs", metavar="decimal"),
        Flag("detach", "d", BOOL, "Run container in background and print container ID"),
        Flag("entrypoint", "", help="Overwrite the default ENTRYPOINT of the image"),
        Flag("env", "e", LIST, "Set environment variables"),
        Flag("env-file", "", LIST, "Read in a file of environment variables", metavar="FILE"),
        Flag("hostname", "h", help="Container host name"),
        Flag("interactive", "i", BOOL, "Keep STDIN open"),
        Flag("label", "l", LIST, "Set meta data on a container"),
        Flag("memory", "m", help="Memory limit", metavar="bytes"),
        Flag("memory-swap", "", help="Memory plus swap; '-1' for unlimited", metavar="bytes"),
        Flag("name", "", help="Assign a name to the container"),
        Flag("network", "", help="Connect a container to a network: none (default) or host"),
        Flag("net", "", help="The same as --network"),
        Flag("pids-limit", "", NUMBER, "Limit the number of processes (-1 for unlimited)"),
        Flag("platform", "", help="Set platform if the image has several"),
        Flag("privileged", "", BOOL, "Give all capabilities and devices to this container"),
        Flag(
            "pull",
            "",
            help='Pull image before running ("always", "missing", "never")',
            default="missing",
        ),
        Flag("quiet", "q", BOOL, "Suppress the pull output"),
        Flag("read-only", "", BOOL, "Mount the container's root filesystem as read only"),
        Flag("rm", "", BOOL, "Remove the container and its anonymous volumes when it exits"),
        Flag("security-opt", "", LIST, "no-new-privileges, seccomp=unconfined"),
        Flag("shm-size", "", help="Size of /dev/shm", metavar="bytes"),
        Flag("sig-proxy", "", BOOL, "Proxy received signals to the process", default=True),
        Flag("stop-signal", "", help="Signal to stop the container"),
        Flag("tmpfs", "", LIST, "Mount a tmpfs directory"),
        Flag("tty", "t", BOOL, "Allocate a pseudo-TTY"),
        Flag("ulimit", "", LIST, "Ulimit options (name=soft[:hard])"),
        Flag("user", "u", help="Username or UID (format: <name|uid>[:<group|gid>])"),
        Flag("volume", "v", LIST, "Bind mount a volume"),
        Flag("workdir", "w", help="Working directory inside the container"),
    ),
    minimum=1,
    maximum=None,
    interspersed=False,
    explain=_explain,
)


def run(options: Options, context: Context) -> int:
    from runtime.engine import Engine
    from runtime.paths import Paths

    env = context.environment
    wanted = run_options(options, context)
    engine = Engine(Paths(env.root, env.run), rootless=os.geteuid() != 0, warn=context.console.warn)
    cidfile = options.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise UsageError(
            f"container ID file found, make sure the other container isn't running "
            f"or delete {cidfile}"
        )
    name = options.arguments[0]
    image, config = ready_image(name, options, context, engine)
    prepared = engine.create(config, wanted, image_name=name, image_id=str(image.id))
    if cidfile:
        with open(cidfile, "x", encoding="ascii") as file:
            file.write(prepared.id)
    if wanted.detach:
        engine.run_detached(prepared)
        context.console.out(prepared.id)
        return 0
    context.console.stdout.flush()
    return engine.run(
        prepared,
        stdin=0 if wanted.interactive else None,
        stdout=1,
        stderr=2,
        pass_signals=options.flag("sig-proxy"),
    )


def ready_image(
    name: str, options: Options, context: Context, engine: Engine
) -> tuple[LocalImage, ImageConfig]:
    """The image, pulled and unpacked as needed, in a process of its own: what forks a container
    stays small, and nothing the client imports is there when it does."""
    from client.errors import ImageNotFound
    from ocispec.image.platform import Platform
    from pyreg.remotes import local_store

    policy = options.text("pull")
    if policy not in ("always", "missing", "never"):
        raise UsageError(
            f'invalid pull option: "{policy}"; must be one of "always", "missing" or "never"'
        )
    store = local_store(context.environment)
    image = None if policy == "always" else store.find(name)
    asked = options.text("platform")
    if (
        image is not None
        and asked
        and not Platform.parse(asked).matches(Platform.parse(image.platform))
    ):
        image = None
    if image is None:
        if policy == "never":
            raise ImageNotFound(name, hint="pull it first, or use --pull missing")
        if policy == "missing" and not options.flag("quiet"):
            context.console.note(f"Unable to find image '{_tagged(name, context)}' locally")
        _in_helper(lambda: _pull(name, asked, options.flag("quiet"), context))
        image = store.resolve(name)
    found, config = image, image.config
    if not all(engine.layers.has(diff_id) for diff_id in config.diff_ids):
        _in_helper(lambda: _unpack(found, context, engine))
    return found, config


def _tagged(name: str, context: Context) -> str:
    from pyreg.remotes import reference

    default = context.environment.default_registry
    return reference(context.environment, name).with_default_tag().familiar(default)


def _pull(name: str, platform: str, quiet: bool, context: Context) -> int:
    from pyreg.pulling import pull_image, wanted_platform
    from pyreg.remotes import Remotes, reference

    wanted = reference(context.environment, name).with_default_tag()
    with Remotes(context.environment) as remotes:
        done = pull_image(wanted, remotes, context, platform=wanted_platform(platform), quiet=quiet)
    if not quiet:
        shown = wanted.familiar(context.environment.default_registry)
        context.console.note(f"Digest: {done.target.digest}")
        context.console.note(f"Status: Downloaded newer image for {shown}")
    return 0


def _unpack(image: LocalImage, context: Context, engine: Engine) -> int:
    from pyreg.pulling import left_out_note
    from pyreg.remotes import local_store
    from runtime.images.pull import ensure_layers

    def note(what: str) -> None:
        context.console.note(left_out_note(what))

    layout = local_store(context.environment).layout
    ensure_layers(image, layout, engine.layers, rootless=engine.rootless, on_left_out=note)
    return 0


def _in_helper(work: Callable[[], int]) -> None:
    """Run `work` in a forked process; its failure, which it has explained itself, is ours."""
    from pyreg.__main__ import explain
    from pyreg.console import Console

    pid = os.fork()
    if pid == 0:
        status = 125
        try:
            status = work()
        except KeyboardInterrupt:
            status = 130
        except Exception as error:
            status = explain(error, Console(), 125) and 125
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise SystemExit(status if status > 0 else 125)


def run_options(options: Options, context: Context) -> RunOptions:
    """What the words mean. Raises: UsageError, EngineError."""
    from runtime.cgroups.limits import Limits
    from runtime.container import options as o
    from runtime.container.environment import parse_env_file, read_variables

    variables = context.environment.variables
    entries: list[str] = []
    for path in options.texts("env-file"):
        entries += parse_env_file(_read(path), path)
    entries += options.texts("env")
    no_new_privileges, unconfined = _security(options.texts("security-opt"))
    on_terminal = options.flag("tty") and options.flag("interactive")
    if on_terminal and not options.flag("detach") and not os.isatty(0):
        raise UsageError("the input device is not a TTY")
    stop_signal = options.text("stop-signal")
    if stop_signal and not o.is_signal(stop_signal):
        raise UsageError(f"invalid signal: {stop_signal}")
    network = options.text("network") or options.text("net") or "none"
    memory = options.text("memory")
    swap = options.text("memory-swap")
    cpus = options.text("cpus")
    memory_bytes = o.parse_bytes(memory) if memory else 0
    if 0 < memory_bytes < o.SMALLEST_MEMORY:
        raise UsageError("the minimum memory limit allowed is 6MB")
    limits = Limits(
        memory=memory_bytes,
        memory_swap=-1 if swap == "-1" else o.parse_bytes(swap) if swap else 0,
        cpu_quota=Limits.of_cpus(_decimal(cpus)) if cpus else 0,
        cpu_shares=options.number("cpu-shares"),
        pids=options.number("pids-limit"),
    )
    return o.RunOptions(
        command=options.arguments[1:],
        entrypoint=options.text("entrypoint") if options.given("entrypoint") else None,
        env=read_variables(entries, variables),
        user=options.text("user"),
        working_directory=options.text("workdir"),
        hostname=options.text("hostname"),
        name=options.text("name"),
        network=network,
        volumes=tuple(
            o.parse_volume(text, directory=os.getcwd()) for text in options.texts("volume")
        ),
        tmpfs=tuple(o.parse_tmpfs(text) for text in options.texts("tmpfs")),
        read_only=options.flag("read-only"),
        privileged=options.flag("privileged"),
        no_new_privileges=no_new_privileges,
        seccomp_unconfined=unconfined,
        cap_add=options.texts("cap-add"),
        cap_drop=options.texts("cap-drop"),
        ulimits=tuple(o.parse_ulimit(text) for text in options.texts("ulimit")),
        shm_bytes=o.parse_bytes(options.text("shm-size")) if options.text("shm-size") else 0,
        extra_hosts=tuple(o.parse_extra_host(text) for text in options.texts("add-host")),
        labels=tuple(o.parse_label(text) for text in options.texts("label")),
        stop_signal=stop_signal,
        limits=limits,
        tty=options.flag("tty"),
        interactive=options.flag("interactive"),
        detach=options.flag("detach"),
        auto_remove=options.flag("rm"),
    )


def _security(words: tuple[str, ...]) -> tuple[bool, bool]:
    no_new_privileges = unconfined = False
    for word in words:
        if word in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"):
            no_new_privileges = True
        elif word in ("seccomp=unconfined", "seccomp:unconfined"):
            unconfined = True
        elif word not in ("no-new-privileges=false", "no-new-privileges:false", "seccomp=builtin"):
            raise UsageError(f"invalid --security-opt: {word!r}")
    return no_new_privileges, unconfined


def _decimal(text: str) -> float:
    if not text.replace(".", "", 1).isdigit():
        raise UsageError(f'invalid argument "{text}" for "--cpus" flag: not a decimal number')
    return float(text)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise UsageError(f"open {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: it is not UTF-8") from error
