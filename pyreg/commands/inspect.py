"""pyreg inspect: everything known about an object, as JSON in docker's shape."""

from __future__ import annotations

from pyreg.cli import Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyreg.__main__ import Context
    from pyreg.cli import Options

    # The document of a name, or None if there is no such object.
    Inspector = Callable[[str, Context], dict[str, Any] | None]

COMMAND = Command(
    name="inspect",
    usage="[OPTIONS] NAME|ID [NAME|ID...]",
    summary="Return low-level information on images",
    flags=(
        Flag("format", "f", help="'json', or a Go template"),
        Flag("type", "", help="Only objects of this type: image"),
    ),
    minimum=1,
    maximum=None,
)


def run(options: Options, context: Context) -> int:
    import json

    console = context.console
    kind = options.text("type")
    if kind and kind not in INSPECTORS:
        raise UsageError(f'"{kind}" is not a known type: {", ".join(INSPECTORS)}')
    inspectors = [INSPECTORS[kind]] if kind else list(INSPECTORS.values())
    documents = []
    status = 0
    for name in options.arguments:
        found = next((d for look in inspectors if (d := look(name, context)) is not None), None)
        if found is None:
            console.error(f"No such {kind or 'object'}: {name}")
            status = 1
        else:
            documents.append(found)
    template = options.text("format")
    if template in ("", "json"):
        indent = 4 if not template else None
        separators = (",", ": ") if not template else (",", ":")
        text = json.dumps(documents, indent=indent, separators=separators, ensure_ascii=False)
        console.out(text)
        return status
    from pyreg.template import Template

    parsed = Template(template)
    for document in documents:
        console.out(parsed.render(document))
    return status


def inspect_image(name: str, context: Context) -> dict[str, Any] | None:
    from ocispec.errors import SpecError
    from pyreg.image_document import image_document
    from pyreg.remotes import local_store

    try:
        image = local_store(context.environment).find(name)
    except SpecError:
        return None  # not even a name: perhaps an object of another type
    return None if image is None else image_document(image, context.environment.default_registry)


# In the order they are asked.
INSPECTORS: dict[str, Inspector] = {"image": inspect_image}
