"""`--format`: the part of Go's text/template that people write after docker commands.

`{{.Field.Inner}}`, `{{json .}}`, `{{index .Map "key"}}`, `{{range .List}}…{{else}}…{{end}}`,
`{{if .X}}…{{else if .Y}}…{{else}}…{{end}}`, `{{with .X}}…{{end}}`, pipes, `$`, and the functions
join, split, lower, upper, title, truncate, len, println, printf, eq, ne, not, and, or.
`table TEMPLATE` asks for headings. A template has no access to anything but the value given.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    # ("text", str) | ("print", expression) | (kind, expression, body, otherwise)
    Node: TypeAlias = tuple[Any, ...]

MAX_LENGTH = 16 * 1024


class TemplateError(Exception):
    """A `--format` that cannot be parsed or applied."""

    exit_status = 1
    hint = "Templates are as in docker: --format '{{.ID}}: {{json .Labels}}'."


class Template:
    """A parsed template; `render` may be called for many values."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise TemplateError(f"template is longer than {MAX_LENGTH} characters")
        self.is_table = text.startswith("table ")
        text = text.removeprefix("table ").replace("\\t", "\t").replace("\\n", "\n")
        self._tokens = _split(text)
        self._nodes, end = self._parse(0, ())
        assert end == len(self._tokens)

    @property
    def fields(self) -> tuple[str, ...]:
        """The last names of the printed fields, for a table's headings."""
        found = (node[1] for node in self._nodes if node[0] == "print")
        names = (re.findall(r"\.([A-Za-z_]\w*)", expression) for expression in found)
        return tuple(name[-1] for name in names if name)

    def render(self, value: Any) -> str:
        """The text for one value (mappings, sequences, strings, numbers, booleans)."""
        out: list[str] = []
        self._run(self._nodes, value, value, out)
        return "".join(out)

    def _parse(self, at: int, stops: tuple[str, ...]) -> tuple[list[Node], int]:
        nodes: list[Node] = []
        while at < len(self._tokens):
            is_action, token = self._tokens[at]
            if not is_action:
                nodes.append(("text", token))
                at += 1
                continue
            word = token.split(maxsplit=1)[0] if token else ""
            if word in stops:
                return nodes, at
            if word in ("range", "if", "with"):
                node, at = self._parse_block(word, token[len(word) :].strip(), at)
                nodes.append(node)
                continue
            if word in ("end", "else", "define", "template", "block"):
                raise TemplateError(f"unexpected {{{{{token}}}}} in template")
            if not token.startswith("/*"):
                nodes.append(("print", token))
            at += 1
        if stops:
            raise TemplateError("unexpected end of template: {{end}} is missing")
        return nodes, at

    def _parse_block(self, kind: str, expression: str, at: int) -> tuple[Node, int]:
        body, at = self._parse(at + 1, ("end", "else"))
        otherwise: list[Node] = []
        token = self._tokens[at][1]
        if token.startswith("else if "):
            inner, at = self._parse_block("if", token.removeprefix("else if ").strip(), at)
            return (kind, expression, body, [inner]), at  # one {{end}} closes both
        if token == "else":
            otherwise, at = self._parse(at + 1, ("end",))
        return (kind, expression, body, otherwise), at + 1

    def _run(self, nodes: Sequence[Node], dot: Any, top: Any, out: list[str]) -> None:
        for node in nodes:
            kind = node[0]
            if kind == "text":
                out.append(node[1])
            elif kind == "print":
                out.append(_shown(_evaluate(node[1], dot, top)))
            else:
                _, expression, body, otherwise = node
                found = _evaluate(expression, dot, top)
                if not found:
                    self._run(otherwise, dot, top, out)
                elif kind == "range":
                    for item in found.values() if isinstance(found, dict) else found:
                        self._run(body, item, top, out)
                else:
                    self._run(body, found if kind == "with" else dot, top, out)


def _split(text: str) -> list[tuple[bool, str]]:
    """Literal text and actions in turn; `{{-` and `-}}` trim the blanks beside them."""
    tokens: list[tuple[bool, str]] = []
    at = 0
    for match in re.finditer(r"\{\{(- )?(.*?)( -)?\}\}", text, re.DOTALL):
        literal = text[at : match.start()]
        if tokens and tokens[-1][1].endswith("\0"):
            tokens[-1] = (True, tokens[-1][1][:-1])
            literal = literal.lstrip()
        tokens.append((False, literal.rstrip() if match[1] else literal))
        tokens.append((True, match[2].strip() + ("\0" if match[3] else "")))
        at = match.end()
    literal = text[at:]
    if tokens and tokens[-1][1].endswith("\0"):
        tokens[-1] = (True, tokens[-1][1][:-1])
        literal = literal.lstrip()
    if "{{" in literal:
        raise TemplateError("template has {{ without }}")
    tokens.append((False, literal))
    return [token for token in tokens if token[0] or token[1]]


_WORDS = re.compile(r'\s*("(?:[^"\\]|\\.)*"|`[^`]*`|\(|\)|\||[^\s()|"`]+)')


def _evaluate(expression: str, dot: Any, top: Any) -> Any:
    words = _WORDS.findall(expression)
    if "".join(words) != re.sub(r'\s+(?=(?:[^"`]|"[^"]*"|`[^`]*`)*$)', "", expression):
        raise TemplateError(f"cannot read {{{{{expression}}}}}")
    found, at = _pipeline(words, 0, dot, top)
    if at != len(words):
        raise TemplateError(f"cannot read {{{{{expression}}}}}")
    return found


def _pipeline(words: list[str], at: int, dot: Any, top: Any) -> tuple[Any, int]:
    found: list[Any] = []
    while True:
        operands: list[Any] = []
        name = ""
        start = at
        while at < len(words) and words[at] not in ("|", ")"):
            word = words[at]
            if word == "(":
                item, at = _pipeline(words, at + 1, dot, top)
                if at >= len(words):
                    raise TemplateError("unclosed parenthesis in template")
                operands.append(item)
            elif at == start and word in FUNCTIONS:
                name = word
            else:
                operands.append(_operand(word, dot, top))
            at += 1
        operands += found
        if name:
            found = [_call(name, operands)]
        elif len(operands) == 1:
            found = operands
        else:
            raise TemplateError("a template action needs one value")
        if at < len(words) and words[at] == "|":
            at += 1
            continue
        return found[0], at


def _operand(word: str, dot: Any, top: Any) -> Any:
    if word[0] in '"`':
        return re.sub(r"\\(.)", r"\1", word[1:-1]) if word[0] == '"' else word[1:-1]
    if re.fullmatch(r"-?\d{1,18}", word):
        return int(word)
    if word in ("true", "false"):
        return word == "true"
    if word == "nil":
        return None
    if word.startswith("$"):
        dot, word = top, word[1:] or "."
    if not word.startswith("."):
        raise TemplateError(f'function "{word}" not defined')
    for name in word.split("."):
        if not name:
            continue
        if isinstance(dot, dict) and name in dot:
            dot = dot[name]
        else:
            raise TemplateError(f"template: can't evaluate field {name}")
    return dot


def _call(name: str, operands: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*operands)
    except TemplateError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise TemplateError(f"template: {name}: {error}") from error


def _json(item: Any) -> str:
    import json

    return json.dumps(item, separators=(",", ":"), ensure_ascii=False)


def _index(item: Any, *keys: Any) -> Any:
    for key in keys:
        item = item.get(key, "") if isinstance(item, dict) else item[key]
    return item


def _printf(pattern: str, *items: Any) -> str:
    return re.sub(r"%[vq]", "%s", pattern) % tuple(
        f'"{item}"' if verb == "q" else _shown(item) if verb in "vs" else item
        for verb, item in zip(re.findall(r"%[-+ 0-9.]*([a-z])", pattern), items, strict=True)
    )


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "index": _index,
    "join": lambda items, separator: separator.join(str(item) for item in items or ()),
    "split": lambda text, separator: text.split(separator),
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "truncate": lambda text, length: text[:length],
    "len": len,
    "print": lambda *items: "".join(_shown(item) for item in items),
    "println": lambda *items: " ".join(_shown(item) for item in items) + "\n",
    "printf": _printf,
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": lambda first, second: first != second,
    "not": lambda item: not item,
    "and": lambda *items: next((item for item in items if not item), items[-1]),
    "or": lambda *items: next((item for item in items if item), items[-1]),
}


def _shown(item: Any) -> str:
    """A value as Go prints it: `true`, `[a b]`, `map[k:v]`, `<nil>`."""
    if item is None:
        return "<no value>"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, dict):
        return "map[" + " ".join(f"{key}:{_shown(item[key])}" for key in sorted(item)) + "]"
    if isinstance(item, (list, tuple)):
        return "[" + " ".join(_shown(each) for each in item) + "]"
    return str(item)
