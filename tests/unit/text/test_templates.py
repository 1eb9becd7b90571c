"""Templates: what is substituted, what is refused, and that encodings bring each value to the other side whole."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runkeys._text.templates import NAME, NotTextError, TemplateError, TooLongError, parse

CEL = r"^([^{]|[{][^{]|[{][{][^}]+[}][}])*[{]?\Z"
"""The rule of the kind: coarser than the parser, so that it is cheap."""

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BYTES = st.binary(max_size=200)
BRACES = st.text('{} |:"ab-.\n\tjsonurl', max_size=60)


def rendered(template: str, **values: str | bytes) -> bytes:
    given = {name: value.encode() if isinstance(value, str) else value for name, value in values.items()}
    return parse(template).render(given, 1 << 20)


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("postgresql://{{ user }}:{{ pw }}@db/app", b'postgresql://a b:p@:"/%@db/app'),
        (
            "postgresql://{{ user | url }}:{{ pw | url }}@db/app",
            b"postgresql://a%20b:p%40%3A%22%2F%25@db/app",
        ),
        ("{{pw|json}}", b'"p@:\\"/%"'),
        ('{"auths":{"r":{"password":{{ pw | json }}}}}', b'{"auths":{"r":{"password":"p@:\\"/%"}}}'),
        ("{{ user:pw | base64 }}", base64.b64encode(b'a b:p@:"/%')),
        ("{{ user:pw }}", b'a b:p@:"/%'),
        ("machine db login {{\tuser }}\npassword {{ pw\t}}\n", b'machine db login a b\npassword p@:"/%\n'),
        ('{{ "{{" }} .Values.x }} {{ user }}', b"{{ .Values.x }} a b"),
        ("{{ user }}{", b"a b{"),
        ("{}{{ user }}}}", b"{}a b}}"),
        ("Grüße, {{ user }}", "Grüße, a b".encode()),
    ],
)
def test_values_stand_where_their_names_do(template: str, result: bytes) -> None:
    assert rendered(template, user="a b", pw='p@:"/%') == result


def test_a_value_is_not_read_as_a_template() -> None:
    assert rendered("{{ a }}", a="{{ b }}", b="x") == b"{{ b }}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("plain", "it refers to no entry"),
        ("", "it refers to no entry"),
        ('{{ "{{" }}', "it refers to no entry"),
        ("{{ a", "{{ in line 1 has no }}"),
        ("{{ a }}\n{{ b }", "{{ in line 2 has no }}"),
        ("{{}}", "names no entry"),
        ("{{{ a }}}", "three braces; put a space between"),
        ("{{- a }}", "cuts white space"),
        ("{{ .db_user }}", "write the name alone: {{ db_user }}"),
        ("{{ a | toJson }}", "which is json here; write | json"),
        ("{{ a | b64enc }}", "which is base64 here"),
        ("{{ a | urlquery }}", "which is url here"),
        ("{{ a | upper }}", "unknown encoding; there are: url, json, base64"),
        ("{{ a | }}", "unknown encoding"),
        ("{{ a | base64 | json }}", "several encodings"),
        ("{{ if a }}", "no conditions, loops"),
        ("{{ range .x }}", "no conditions, loops"),
        ("{{ a b }}", "is no reference"),
        ("{{ a::b }}", "is no reference"),
        ("{{ _x }}", "rename the entry"),
        ("{{ a {{ b }}", "is no reference"),
        ("{{ a\n}}", "is no reference"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(template: str, said: str) -> None:
    with pytest.raises(TemplateError) as error:
        parse(template)
    assert said in str(error.value)


def test_a_message_shows_little_of_a_template() -> None:
    with pytest.raises(TemplateError) as error:
        parse("{{ " + "x y" * 1000 + " }}")
    assert len(str(error.value)) < 400


@given(BRACES)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except TemplateError:
        return
    assert found.names
    assert all(re.fullmatch(NAME, name) for name in found.names)
    assert re.match(CEL, text), "the kind's rule refuses nothing that the parser takes"


@given(TEXT, TEXT)
def test_url_brings_user_and_password_through_a_url(user: str, password: str) -> None:
    made = urlsplit(
        rendered(
            "pg://{{ u | url }}:{{ p | url }}@db/{{ u | url }}?q=x{{ p | url }}", u=user, p=password
        ).decode()
    )
    assert made.hostname == "db"
    assert unquote_to_bytes(made.username or "") == user.encode()
    assert unquote_to_bytes(made.password or "") == password.encode()
    assert unquote_to_bytes(made.path) == b"/" + user.encode()
    assert parse_qs(made.query)["q"] == [f"x{password}"]


@given(BYTES)
def test_url_and_base64_take_any_bytes(value: bytes) -> None:
    assert unquote_to_bytes(rendered("{{ a | url }}", a=value)) == value
    assert base64.b64decode(rendered("{{ a | base64 }}", a=value)) == value


@given(TEXT, TEXT)
def test_json_is_a_json_text(user: str, password: str) -> None:
    docker = '{"auths": {"r": {"username": {{ u | json }}, "password": {{ p | json }}, "auth": "{{ u:p | base64 }}"}}}'
    made = json.loads(rendered(docker, u=user, p=password))["auths"]["r"]
    assert (made["username"], made["password"]) == (user, password)
    assert base64.b64decode(made["auth"]).decode() == f"{user}:{password}"


def test_json_of_what_is_no_text_names_the_entry_and_not_the_value() -> None:
    with pytest.raises(NotTextError) as error:
        rendered("{{ a:b | json }}", a="x", b=b"\xff")
    assert error.value.name == "b"
    assert error.value.__context__ is None


@pytest.mark.parametrize("encoding", ["", " | url", " | json", " | base64"])
def test_nothing_longer_than_allowed_is_put_together(encoding: str) -> None:
    template = parse(f"{{{{ a{encoding} }}}}" * 100)
    with pytest.raises(TooLongError):
        template.render({"a": b"%" * 1000}, 50_000)


@given(BYTES, st.integers(0, 400))
def test_the_limit_is_exact(value: bytes, most: int) -> None:
    template, whole = parse("x{{ a }}y{{ a | url }}"), rendered("x{{ a }}y{{ a | url }}", a=value)
    if len(whole) <= most:
        assert template.render({"a": value}, most) == whole
    else:
        with pytest.raises(TooLongError):
            template.render({"a": value}, most)
