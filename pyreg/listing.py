"""Lists as docker prints them: a table, JSON lines, or a template for every row."""

from __future__ import annotations

from pyreg.console import format_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pyreg.console import Console


def show(
    console: Console,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str],
    headings: Mapping[str, str],
    template: str = "",
) -> None:
    """Print rows by `--format`: empty or `table` for the given columns, `json`, or a template.

    `headings` gives the title of every field a template may name.

    Raises: TemplateError
    """
    if template in ("", "table"):
        console.raw(
            format_table(
                [headings[name] for name in columns],
                [[str(row[name]) for name in columns] for row in rows],
            )
        )
        return
    if template == "json":
        import json

        for row in rows:
            console.out(json.dumps(row, separators=(",", ":"), ensure_ascii=False))
        return
    from pyreg.template import Template

    parsed = Template(template)
    if not parsed.is_table:
        for row in rows:
            console.out(parsed.render(dict(row)))
        return
    titles = [headings.get(name, name.upper()) for name in parsed.fields]
    cells = [parsed.render(dict(row)).split("\t") for row in rows]
    width = max([len(titles), *(len(line) for line in cells)])
    console.raw(
        format_table(
            titles + [""] * (width - len(titles)),
            [line + [""] * (width - len(line)) for line in cells],
        )
    )
