"""`--format` behaves as docker's for what people write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyreg.template import Template, TemplateError

VALUE = {
    "ID": "abc",
    "Config": {"Labels": {"a.b": "x", "c": "y"}, "Env": ["A=1", "B=2"], "Tty": False, "User": ""},
    "Size": 12,
    "None": None,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "abc"),
        ("{{ .Config.Env }}", "[A=1 B=2]"),
        ("{{json .Config.Env}}", '["A=1","B=2"]'),
        ("{{.Config.Env | json}}", '["A=1","B=2"]'),
        ('{{index .Config.Labels "a.b"}}', "x"),
        ("{{index .Config.Env 1}}", "B=2"),
        ("{{.Config.Labels}}", "map[a.b:x c:y]"),
        ("{{range .Config.Env}}<{{.}}>{{end}}", "<A=1><B=2>"),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("{{if .Config.Tty}}tty{{else}}no{{end}}", "no"),
        ("{{if .Config.Tty}}a{{else if .ID}}b{{else}}c{{end}}!", "b!"),
        ("{{if eq .ID `abc`}}same{{end}}", "same"),
        ("{{with .Config}}{{.Tty}} {{$.ID}}{{end}}", "false abc"),
        ('{{join .Config.Env ", "}}', "A=1, B=2"),
        ('{{(index .Config.Env 0) | upper | printf "%s/%v" .ID}}', "abc/A=1"),
        ("{{len .Config.Env}}", "2"),
        ("{{.ID}}\\t{{.Size}}", "abc\t12"),
        ("{{/* a comment */}}x", "x"),
        ("a {{- .ID -}} b", "aabcb"),
        ("{{.None}}", "<no value>"),
        ('{{ .ID | printf "%q" }}', '"abc"'),
    ],
)
def test_renders(template: str, text: str) -> None:
    assert Template(template).render(VALUE) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{.Nope}}",
        "{{",
        "{{if .ID}}x",
        "{{end}}",
        "{{nope .ID}}",
        "{{}}",
        "{{index .Config.Env 9}}",
    ],
)
def test_refuses_with_one_line(template: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template).render(VALUE)
    assert "\n" not in str(caught.value)


def test_table_names_its_fields() -> None:
    template = Template("table {{.ID}}\t{{.Config.User}}")
    assert template.is_table
    assert template.fields == ("ID", "User")


@given(st.text(alphabet='{}.|()" $-abcIDrangeifendlsjson`\\%', max_size=40))
def test_any_text_renders_or_is_refused(text: str) -> None:
    try:
        Template(text).render(VALUE)
    except TemplateError:
        pass
