from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import InvalidDocument
from ocispec.jsondoc import MAX_DEPTH, MAX_ITEMS, MAX_PROBLEMS, Fields, canonical, parse_object
from tests.ocispec.strategies import json_values, texts

LIMIT = 8 * 1024 * 1024


def nested(depth: int, opening: str = '{"a":', closing: str = "}", core: str = "1") -> bytes:
    return (opening * depth + core + closing * depth).encode()


@pytest.mark.parametrize(
    ("raw", "message", "description"),
    [
        (b"", "not JSON", "empty"),
        (b"[]", "not a JSON object", "a list"),
        (b'"text"', "not a JSON object", "a text"),
        (b"{} {}", "not JSON", "two documents"),
        (b'{"a":1,}', "not JSON", "a comma too many"),
        (b'{"a":1,"a":2}', "occurs twice", "a name twice"),
        (b'{"b":{"a":1,"\\u0061":2}}', "occurs twice", "a name twice, once escaped"),
        (b'{"a":NaN}', "NaN", "not a number"),
        (b'{"a":-Infinity}', "Infinity", "not finite"),
        (b'{"a":1e999}', "too large", "overflows to infinity"),
        (b'{"a":' + b"9" * 50 + b"}", "digits", "huge integer"),
        (b'{"a":0.' + b"9" * 5000 + b"}", "too long", "endless fraction"),
        (b'{"a":"\xff"}', "not UTF-8", "bytes that are not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8", "a surrogate in UTF-8"),
        (b'{"a":"\\ud800"}', "surrogate", "half of a pair as a value"),
        (b'{"\\udfff":1}', "surrogate", "half of a pair as a name"),
        (b'{"a":["\\ud800"]}', "surrogate", "half of a pair in a list"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8", "UTF-16, which json.loads would guess"),
        (b"\xef\xbb\xbf{}", "not JSON", "byte order mark"),
        (b'{"a":"\n"}', "not JSON", "control character in a text"),
        (b"{'a':1}", "not JSON", "single quotes"),
        (nested(MAX_DEPTH + 1), "nested deeper", "one level too deep"),
        (nested(500), "nested deeper", "deeper than we walk, not than Python does"),
        (nested(200_000), "nested deeper", "objects deeper than Python's recursion"),
        (b'{"a":' + nested(200_000, "[", "]") + b"}", "nested deeper", "lists as deep"),
        (b'{"a":' + b"[" * 200_000, "nested deeper|not JSON", "deep and never closed"),
        (b'{"a":[' + b"[]," * MAX_ITEMS + b"1]}", "items", "memory bomb of small lists"),
    ],
)
def test_refused(raw: bytes, message: str, description: str) -> None:
    with pytest.raises(InvalidDocument, match=message) as caught:
        parse_object(raw, limit=LIMIT)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b' {"a": 1} \n', {"a": 1}),
        (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
        (b'{"a":9223372036854775808}', {"a": 2**63}),
        (b'{"a":1,"A":2}', {"a": 1, "A": 2}),
        (b"{}", {}),
    ],
)
def test_accepted(raw: bytes, expected: object) -> None:
    assert parse_object(raw, limit=LIMIT) == expected


def test_depth_counts_the_outermost_object() -> None:
    assert parse_object(b"{}", limit=10, depth=1) == {}
    with pytest.raises(InvalidDocument, match="deeper than 1"):
        parse_object(b'{"a":{}}', limit=10, depth=1)
    parse_object(nested(MAX_DEPTH), limit=LIMIT)


def test_size_is_checked_before_anything_else() -> None:
    assert parse_object(b'{"a":1}', limit=7)
    with pytest.raises(InvalidDocument, match="manifest has 7 bytes, the limit is 6"):
        parse_object(b'{"a":1}', limit=6, what="manifest")


def test_items_are_not_counted_inside_texts() -> None:
    text = 'a,[{\\",' * 200_000
    document = {"text": text, "list": [1, 2]}
    assert parse_object(json.dumps(document).encode(), limit=LIMIT) == document


def test_counting_items_takes_no_time_on_strings_without_end() -> None:
    start = time.perf_counter()
    for raw in (b'{"a":"' + b'\\",' * 1_000_000, b'",' * 1_000_000, b'"' + b"\\" * 999_999 + b",["):
        with pytest.raises(InvalidDocument):
            parse_object(raw, limit=LIMIT)
    assert time.perf_counter() - start < 5


def test_many_names_with_one_twice_is_not_quadratic() -> None:
    names = [f'"{i}":1' for i in range(200_000)]
    raw = ("{" + ",".join([*names, names[-1]]) + "}").encode()
    start = time.perf_counter()
    with pytest.raises(InvalidDocument, match="'199999' occurs twice"):
        parse_object(raw, limit=LIMIT)
    assert time.perf_counter() - start < 5


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    try:
        assert isinstance(parse_object(raw, limit=100), dict)
    except InvalidDocument:
        pass


@given(st.text('{}[]",:0123456789.eE+-\\u tfnNaI', max_size=60))
def test_nearly_json_is_an_object_or_refused(text: str) -> None:
    try:
        document = parse_object(text.encode(), limit=1000)
    except InvalidDocument:
        return
    assert json.loads(text) == document


@given(st.dictionaries(texts, json_values, max_size=4))
def test_what_json_writes_reads_the_same(document: dict[str, object]) -> None:
    try:
        parsed = parse_object(json.dumps(document).encode(), limit=LIMIT)
    except InvalidDocument as error:
        assert "NaN" in str(error) or "Infinity" in str(error) or "digits" in str(error)
    else:
        assert parsed == document
        assert parse_object(canonical(document), limit=LIMIT) == document


DOCUMENT = {
    "text": "t",
    "number": 5,
    "yes": True,
    "list": ["a", "b"],
    "mixed": ["a", 1],
    "map": {"k": "v"},
    "mixed_map": {"k": 1},
    "object": {"inner": 7},
    "objects": [{"inner": 7}, 3],
    "nothing": None,
    "nul": "a\0b",
}


def test_fields_of_the_right_type() -> None:
    fields = Fields(DOCUMENT)
    assert fields.text("text", required=True) == "t"
    assert fields.integer("number") == 5
    assert fields.boolean("yes") is True
    assert fields.texts("list") == ("a", "b")
    assert fields.text_map("map") == {"k": "v"}
    assert fields.keys("map") == ("k",)
    child = fields.child("object")
    assert child is not None and child.integer("inner") == 7
    assert fields.has("nothing") and not fields.has("absent")
    fields.check("document")


@pytest.mark.parametrize("name", ["nothing", "absent"])
def test_absent_and_null_read_as_empty(name: str) -> None:
    fields = Fields(DOCUMENT)
    assert fields.text(name) == ""
    assert fields.integer(name) == 0
    assert fields.boolean(name) is False
    assert fields.texts(name) == ()
    assert fields.optional_texts(name) is None
    assert fields.text_map(name) == {}
    assert fields.keys(name) == ()
    assert fields.child(name) is None
    assert fields.children(name) == ()
    fields.check("document")


def test_every_problem_is_named() -> None:
    fields = Fields(DOCUMENT)
    fields.text("number")
    fields.text("absent", required=True)
    fields.integer("yes")  # true is not 1
    fields.integer("number", maximum=4)
    fields.boolean("number")
    fields.texts("mixed")
    fields.texts("text")
    fields.text_map("mixed_map")
    fields.child("list")
    for child in fields.children("objects"):
        child.text("inner")
    fields.text("nul")
    with pytest.raises(InvalidDocument, match="invalid document: number is not a text;") as caught:
        fields.check("document")
    assert caught.value.problems == (
        "number is not a text",
        "absent is missing",
        "yes is not a whole number",
        "number is 5, not between 0 and 4",
        "number is not true or false",
        "mixed[1] is not a text",
        "text is not a list of texts",
        "mixed_map.k is not a text",
        "list is not an object",
        "objects[1] is not an object",
        "objects[0].inner is not a text",
        "nul contains a NUL character",
    )


def test_the_list_of_problems_is_bounded() -> None:
    fields = Fields({"list": [1] * 1000})
    fields.texts("list")
    assert len(fields.problems) == MAX_PROBLEMS


def test_problems_show_no_terminal_escapes() -> None:
    fields = Fields({"map": {"\x1b[2J": 1}})
    fields.text_map("map")
    assert fields.problems[0].isprintable()


def test_names_that_go_would_read_as_another() -> None:
    fields = Fields({"Layers": [], "layers": [], "annotationſ": 1, "other": 1})
    fields.refuse_lookalikes(("layers", "annotations"))
    assert len(fields.problems) == 2
    assert "could be read as 'layers'" in fields.problems[0]
