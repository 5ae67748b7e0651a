"""Ids and names of containers: making them, taking them, finding what the user means."""

from __future__ import annotations

import os

from runtime.errors import ContainerUnknown, EngineError, NameInUse
from runtime.paths import component

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.paths import Paths

ID_LENGTH = 64
SHORT_LENGTH = 12
_HEX = frozenset("0123456789abcdef")

_ADJECTIVES = """
able agile amber bold brave breezy bright brisk calm candid cheery civil clear clever cosmic
cozy crisp curious daring deft eager earnest easy fair fancy fleet fluent fond frank fresh
gentle glad golden grand happy hardy honest humble jolly keen kind lively loyal lucid lucky
mellow merry mild modest neat nimble noble patient placid plucky polite proud quick quiet ready
robust rustic serene sharp shiny silent silver sincere smooth snug solid sound spry stable
steady stout sturdy sunny swift tender tidy tranquil trusty vivid warm wise witty zesty
"""

_NOUNS = """
abbot albatross alder anchor apricot badger barge basil beacon beaver birch bison bobbin brook
cactus canoe caravel cedar chestnut clover comet condor coral cormorant cricket cypress dolphin
dragonfly dune egret elm ember falcon fennel fern finch fjord gannet gazelle ginger glacier
grove hamlet harbor hazel heron hickory ibex iris island ivy jasmine juniper kestrel lagoon
lantern larch lark lemur lichen linden lotus lynx magpie mallow maple marlin marten meadow
merlin mistral moss nettle nutmeg oak orchard osprey otter owl pebble pelican pine plover poplar
puffin quail quartz raven reef robin rowan saffron sage salmon sorrel sparrow spruce stork
sycamore tern thistle thyme tundra valley walnut warbler willow wren yarrow
"""

ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())


def new_id(random: Callable[[int], bytes] = os.urandom) -> str:
    """64 hexadecimal digits, never only decimal ones in the first 12: those would be a hostname
    that some programs take for a number."""
    while True:
        found = random(ID_LENGTH // 2).hex()
        if not found[:SHORT_LENGTH].isdigit():
            return found


def suggest_name(random: Callable[[int], bytes] = os.urandom) -> str:
    """Two words; with a few thousand of them taken, ask again."""
    first, second = (int.from_bytes(random(4), "big") for _ in range(2))
    return f"{ADJECTIVES[first % len(ADJECTIVES)]}_{NOUNS[second % len(NOUNS)]}"


def take_name(paths: Paths, name: str, container_id: str) -> None:
    """Give `name` to a container whose directory exists. Atomic: one of many callers gets it.

    Raises: NameInUse; EngineError if it is not a valid name.
    """
    if len(name) < 2:
        raise EngineError(
            f"invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    link = paths.name(component(name))
    while True:
        try:
            os.symlink(f"../containers/{container_id}", link)
            return
        except FileExistsError:
            holder = _holder(link)
        if holder is None:
            continue  # it was given up in between
        if os.path.isdir(paths.container(holder)):
            raise NameInUse(
                f'Conflict. The container name "/{name}" is already in use by container '
                f'"{holder}".',
                hint="remove (or rename) that container to be able to reuse that name",
            )
        release_name(paths, name, holder)  # left over by a crash


def take_any_name(paths: Paths, container_id: str) -> str:
    """A free name of two words, with a number behind it when those seem all taken."""
    for attempt in range(1000):
        name = suggest_name()
        if attempt >= 20:
            name += str(attempt % 10)
        try:
            take_name(paths, name, container_id)
            return name
        except NameInUse:
            continue
    raise EngineError("no free name found", hint="give one with --name")


def release_name(paths: Paths, name: str, container_id: str) -> None:
    """Give a name up if this container has it."""
    link = paths.name(name)
    if _holder(link) == container_id:
        try:
            os.unlink(link)
        except FileNotFoundError:
            pass


def names_of(paths: Paths, container_id: str) -> list[str]:
    """The names a container has, by looking at all of them; usually its record says it."""
    return [name for name in os.listdir(paths.names) if _holder(paths.name(name)) == container_id]


def _holder(link: str) -> str | None:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def find_id(paths: Paths, wanted: str) -> str:
    """The container a user means: a name, a whole id, or the beginning of exactly one id.

    A name is tried before a prefix, as docker does. Raises: ContainerUnknown.
    """
    unknown = ContainerUnknown(f"No such container: {wanted}", hint="see `pyreg ps -a`")
    try:
        holder = _holder(paths.name(wanted.removeprefix("/")))
    except EngineError:
        raise unknown from None
    if holder is not None and os.path.isdir(paths.container(holder)):
        return holder
    if not wanted or not set(wanted) <= _HEX or len(wanted) > ID_LENGTH:
        raise unknown
    matching = [found for found in all_ids(paths) if found.startswith(wanted)]
    if not matching:
        raise unknown
    if len(matching) > 1:
        raise ContainerUnknown(
            f"multiple containers found with prefix {wanted}", hint="give more digits of the id"
        )
    return matching[0]


def all_ids(paths: Paths) -> list[str]:
    """The ids of all containers, in no order; being removed is not being there."""
    try:
        found = os.listdir(paths.containers)
    except FileNotFoundError:
        return []
    return [name for name in found if len(name) == ID_LENGTH and set(name) <= _HEX]
