"""The one table of encodings: what others write of a value is masked, is found by the leak scan, and is in the docs."""

from __future__ import annotations

import base64
import binascii
import csv
import html
import io
import json
import pprint
import quopri
import re
import shlex
import subprocess
import unicodedata
from collections.abc import Callable
from email.header import Header
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode
from xml.sax.saxutils import escape, quoteattr

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runkeys._text import encodings
from runkeys._text.parts import MOST, parts_of
from runkeys.masking import MASK, Masker
from testing.namespace import canary
from tests.e2e.leaks.canaries import Mint, Search

DOCS = Path(__file__).resolve().parents[2] / "docs"
SPECIAL = f"p/+ &<>='\"\\${canary()}`~é"
OTHER = f"漢🔑#!;|(){{}}[]*?:,@%{canary()}ü"
PLAIN = canary()


def bash(script: str) -> Callable[[str], str]:
    def write(text: str) -> str:
        done = subprocess.run(
            ["bash", "--norc", "-c", script, "bash", text],
            capture_output=True,
            check=True,
            timeout=180,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        )
        return (done.stdout + done.stderr).decode()

    return write


def as_csv(text: str) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=csv.QUOTE_ALL).writerow(["a", text])
    return out.getvalue()


def as_yaml(**settings: Any) -> Callable[[str], str]:
    return lambda text: yaml.safe_dump({"a": text}, width=10**6, **settings)


def docker(text: str) -> str:
    inner = base64.b64encode(f"user:{text}".encode()).decode()
    return json.dumps({"auths": {"registry": {"auth": inner}}})


def in_base64(inner: Callable[[str], str]) -> Callable[[str], str]:
    return lambda text: base64.b64encode(inner(text).encode()).decode()


WRITERS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "json": json.dumps,
    "json-utf8": lambda text: json.dumps({"a": [text]}, ensure_ascii=False),
    "json of PHP": lambda text: json.dumps(text).replace("/", "\\/"),
    "json twice": lambda text: json.dumps(json.dumps({"a": text})),
    "json twice, utf8": lambda text: json.dumps(json.dumps(text, ensure_ascii=False), ensure_ascii=False),
    "repr": repr,
    "repr of a dict": lambda text: str({"a": text}),
    "repr of bytes": lambda text: repr(text.encode()),
    "ascii": ascii,
    "pprint": lambda text: pprint.pformat([text], width=10**6),
    "backslashreplace": lambda text: text.encode("ascii", "backslashreplace").decode(),
    "url": lambda text: quote(text, safe=""),
    "url path": quote,
    "url form": quote_plus,
    "url query": lambda text: urlencode({"q": text}),
    "url, lower": lambda text: re.sub("%..", lambda found: found[0].lower(), quote(text, safe="")),
    "encodeURIComponent": lambda text: quote(text, safe="!'()*"),
    "encodeURI": lambda text: quote(text, safe="!#$&'()*+,/:;=?@"),
    "requests": lambda text: quote(text, safe="!#$%&'()*+,/:;=?@[]~"),
    "java.net.URLEncoder": lambda text: quote_plus(text, safe="*").replace("~", "%7E"),
    "html": html.escape,
    "xml": escape,
    "xml attribute": quoteattr,
    "xmlcharrefreplace": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "shlex": shlex.quote,
    "printf %q": bash('printf "%q" "$1"'),
    "bash @Q": bash('printf "%s" "${1@Q}"'),
    "bash -x": bash('set -x; : "$1"'),
    "bash declare": bash("x=$1; declare -p x"),
    "bash set": bash("secret=$1; set | grep ^secret="),
    "yaml": as_yaml(),
    "yaml, unicode": as_yaml(allow_unicode=True),
    "yaml, double": as_yaml(default_style='"'),
    "yaml, double, unicode": as_yaml(default_style='"', allow_unicode=True),
    "yaml, single": as_yaml(default_style="'", allow_unicode=True),
    "csv": as_csv,
    "sql": lambda text: text.replace("'", "''"),
    "regex": re.escape,
    "quoted-printable": lambda text: re.sub("=\n", "", quopri.encodestring(text.encode()).decode()),
    "quoted-printable, tabs": lambda text: re.sub(
        "=\n", "", quopri.encodestring(text.encode(), True).decode()
    ),
    "base64": in_base64(str),
    "base64 in the middle": in_base64(lambda text: f"ab{text}xyz"),
    "base64 of user and password": in_base64(lambda text: f"user:{text}"),
    "base64url": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64url, unpadded": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "base64 of json": in_base64(lambda text: json.dumps({"password": text})),
    "base64 of utf-16": lambda text: base64.b64encode(f"x{text}".encode("utf-16-le")).decode(),
    "docker": docker,
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "hex with colons": lambda text: binascii.hexlify(text.encode(), ":").decode(),
    "hex with spaces": lambda text: text.encode().hex(" ").upper(),
    "list of bytes": lambda text: str(list(text.encode())),
    "bytes of Go": lambda text: " ".join(map(str, text.encode())),
    "bytes of Go, %#v": lambda text: ", ".join(f"0x{byte:x}" for byte in text.encode()),
    "utf-16": lambda text: text.encode("utf-16-le").decode("utf-8", "surrogateescape"),
    "latin-1 of utf-8": lambda text: text.encode().decode("latin-1"),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
}


def left_of(value: str, write: Callable[[str], str]) -> str:
    """What can still be read of a value that somebody wrote, without what is there for another one as well."""
    written = write(value)
    masked = Masker([value.encode()]).mask(f"before {written} after")
    assert MASK in masked, masked
    return masked


@pytest.mark.parametrize("value", [SPECIAL, OTHER, PLAIN], ids=["special", "other", "plain"])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_others_write_of_a_value_is_masked(writer: str, value: str) -> None:
    masked = left_of(value, WRITERS[writer])

    hidden = WRITERS[writer](value)
    kept = masked.replace(MASK, "\0")
    readable = {hidden[at : at + 20] for at in range(len(hidden) - 19)}
    other = WRITERS[writer](value[0] + "x" * (len(value) - 1))  # what it writes around any value
    assert not [piece for piece in readable if piece in kept and piece not in other]


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a<b>&é/x", '"a\\u003cb\\u003e\\u0026é/x"'),  # Go: json.Marshal
        ("a/é'x", '"a\\/\\u00e9\'x"'),  # PHP: json_encode
        ("a\"é'<+x", '"a\\u0022\\u00E9\\u0027\\u003C\\u002Bx"'),  # .NET: JsonSerializer.Serialize
        ("a=b'<x", '"a\\u003db\\u0027\\u003cx"'),  # Java: Gson
        ('a"é\tb\\', '"a\\"é\\tb\\\\"'),  # Go: %q
        ('a"é\t🔑b', '"a\\"\\u00e9\\t\\U0001f511b"'),  # Go: %+q
        ('sé"x', '"s\\303\\251\\"x"'),  # git, with core.quotePath; protobuf
        ("pässe'x", "'p\\303\\244sse\\'x'"),  # protobuf's text format
        ("pä\x01x", "$'p\\303\\244\\001x'"),  # bash: %q in the locale C
        ("a b~*é!", "a+b%7E*%C3%A9%21"),  # Java: URLEncoder
        ("a b!'()*~é", "a%20b!'()*~%C3%A9"),  # JavaScript: encodeURIComponent
        ("a'b\\c", "'a\\'b\\\\c'"),  # fish, JavaScript, Ruby
        ("don't", "'don''t'"),  # SQL, YAML, PowerShell
        ('a"b', '"a""b"'),  # CSV, Visual Basic
        ('a$b"c', '"a`$b`"c"'),  # PowerShell
        ("a'b\"c", "a&#39;b&#34;c"),  # Go: html.EscapeString
        ("a'b<", "a&apos;b&lt;"),  # XML
        ("passé<x", "pass&eacute;&lt;x".replace("&lt;", "&lt;")),  # PHP: htmlentities
        ("geheim", "<Buffer 67 65 68 65 69 6d>"),  # Node
        ("geheim", "[103 101 104 101 105 109]"),  # Go: Println of []byte
        ("geheim", "[103,101,104,101,105,109]"),  # JavaScript: JSON of a Uint8Array's values
        ("geheim", "67-65-68-65-69-6D"),  # .NET: BitConverter
        ("geheim", "\\x67\\x65\\x68\\x65\\x69\\x6d"),
        ("a?b_c=é", "=?utf-8?q?a=3Fb=5Fc=3D=C3=A9?="),  # mail headers
    ],
)
def test_what_other_languages_write_is_masked(value: str, written: str) -> None:
    assert Masker([value.encode()]).mask(written) != written
    readable = re.sub(r"\W", "", value)[-2:]
    assert readable not in Masker([value.encode()]).mask(written).replace(MASK, "").replace("utf-8?q", "")


def test_the_samples_of_mail_headers_are_what_python_writes() -> None:
    assert Header("a?b_c=é", "utf-8").encode() in (
        "=?utf-8?b?YT9iX2M9w6k=?=",
        "=?utf-8?q?a=3Fb=5Fc=3D=C3=A9?=",
    )


@given(st.text(min_size=6, max_size=40).filter(lambda text: len(text.strip()) >= 6 and text.isprintable()))
def test_any_text_is_masked_in_every_form_of_the_table(text: str) -> None:
    text = text.strip()
    masker = Masker([text.encode(errors="surrogatepass")])
    for name, form in encodings.text_forms(text):
        assert form not in masker.mask(f"[{form}]") or form in MASK, name


@pytest.mark.parametrize("form", dict(encodings.text_forms("x")))
def test_the_leak_scan_finds_every_form(form: str) -> None:
    mint = Mint()
    awkward, plain = mint.awkward("awkward"), mint.plain("plain")
    search = Search(mint)
    for value in (awkward, plain):
        data = dict(encodings.text_forms(value.text))[form].encode()
        assert value in {hit.canary for hit in search.hits(b"x " + data + b" y")} or data != data.strip()


@pytest.mark.parametrize("form", dict(encodings.byte_forms(b"x" * 20)))
def test_the_leak_scan_finds_every_form_of_bytes(form: str) -> None:
    mint = Mint()
    plain = mint.plain("plain")
    data = dict(encodings.byte_forms(plain.text.encode())).get(form)
    assert data is not None
    assert plain in {hit.canary for hit in Search(mint).hits(b"x " + data + b" y")}


# parts of a value


DATABASE = {"host": "db.internal.example", "user": "app", "password": PLAIN, "port": 5432, "pins": [98765432]}


@pytest.mark.parametrize(
    "secret",
    [json.dumps(DATABASE), json.dumps(DATABASE, indent=4), json.dumps({"a": [{"b": DATABASE}]})],
    ids=["short", "indented", "nested"],
)
def test_parts_of_a_json_secret_are_masked(secret: str) -> None:
    masker = Masker([secret.encode()])
    for text in (
        PLAIN,
        quote(f"{PLAIN}"),
        base64.b64encode(f"app:{PLAIN}".encode()).decode(),
        "db.internal.example",
        "98765432",
    ):
        assert masker.mask(f"connecting with {text}") == "connecting with [redacted]" or MASK in masker.mask(
            text
        )
        assert PLAIN not in masker.mask(text)
    assert masker.mask("port 5432 of app") == "port 5432 of app"


@pytest.mark.parametrize(
    "dump",
    [
        json.dumps,
        lambda found: json.dumps(found, separators=(",", ":")),
        lambda found: json.dumps(found, indent=2),
        lambda found: json.dumps(found, sort_keys=True),
        str,
        yaml.safe_dump,
        lambda found: "\n".join(f"{key}={value}" for key, value in found.items()),
    ],
)
def test_a_json_secret_dumped_in_another_form_is_masked(dump: Callable[[object], str]) -> None:
    masked = Masker([json.dumps(DATABASE, indent=3).encode()]).mask(dump(DATABASE))

    assert PLAIN not in masked
    assert "98765432" not in masked


@pytest.mark.parametrize(
    ("secret", "part"),
    [
        ("postgres://app:p%40ss-word@db/x", "p@ss-word"),
        ("postgres://app:p%40ss-word@db/x", "p%40ss-word"),
        ("https://token-value@host/x", "token-value"),
        ("user: admin\npassword: hunter22\n", "hunter22"),
        ("export TOKEN='hunter22 x'\nA=b\n", "hunter22 x"),
        ("Server=db;Password=hunter22;Database=x", "hunter22"),
        ("admin:hunter22", "hunter22"),
        ('{"url": "amqp://u:hunter22@mq"}', "hunter22"),
        # what templates make
        ("machine db login reader password hunter22\nmachine x login y password z", "hunter22"),
        ("machine db\n  login reader\n  password hunter22\n", "reader"),
        ("default login anonymous password hunter22", "hunter22"),
        ("host=db user=app password=hunter22 dbname=x", "hunter22"),
        (r"host=db password='it\'s hunter22' user=app", "it's hunter22"),
        (json.dumps({"auths": {"r": {"auth": base64.b64encode(b"app:hunter22").decode()}}}), "hunter22"),
        (f"Authorization: Basic {base64.b64encode(b'app:hunter22').decode()}", "hunter22"),
        ('header = "Authorization: Bearer abc.hunter22"', "abc.hunter22"),
    ],
)
def test_what_a_program_takes_out_of_a_value_is_masked(secret: str, part: str) -> None:
    assert Masker([secret.encode()]).mask(f"uses {part}.") == "uses [redacted]."


def test_short_parts_and_names_are_left() -> None:
    masker = Masker([b'{"type": "x", "region": "eu-1", "key": "0123456789"}'])
    assert masker.mask("the type and region eu-1 have a key") == "the type and region eu-1 have a key"


def test_a_very_large_or_deep_document_costs_no_more() -> None:
    many = json.dumps([f"value-number-{number}" for number in range(5000)])
    assert len(parts_of(many)) == MOST
    assert parts_of("[" * 100_000) == []


# the documentation


def table() -> str:
    rows = [f"| {item.name} | {item.made_by.replace('|', chr(92) + '|')} |" for item in encodings.TABLE]
    return "\n".join(["| form | written by |", "|---|---|", *rows])


def test_the_docs_have_the_table() -> None:
    assert table() in (DOCS / "masking.md").read_text()


def test_the_docs_have_what_is_not_looked_for() -> None:
    rows = "\n".join(
        ["| not masked | because |", "|---|---|", *(f"| {a} | {b} |" for a, b in encodings.NOT_LOOKED_FOR)]
    )
    assert rows in (DOCS / "masking.md").read_text()
