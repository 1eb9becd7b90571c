r"""The texts in which a value may appear. The one table of the masker, the leak scan and the documentation. Pure.

Each form is the same whatever surrounds it. A form that depends on its surroundings (quotes that are chosen by the
whole text, base64 that begins in the middle of a group) is in the table once for each case.
"""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from html.entities import codepoint2name
from typing import NamedTuple
from urllib.parse import quote, quote_plus

Write = Callable[[str], str]


class Family(NamedTuple):
    """Forms of one kind.

    :ivar made_by: what writes them, for the documentation.
    :ivar text: forms of a text, by name. :ivar raw: forms of bytes, by name.
    :ivar least: minimum length of a value in bytes.
    """

    name: str
    made_by: str
    text: Mapping[str, Write] | None = None
    raw: Callable[[bytes], Iterator[tuple[str, bytes]]] | None = None
    least: int = 1


# text


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _json_utf8(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _u_escaped(text: str, which: str, upper: bool = False) -> str:
    r"""The text with characters as ``\uXXXX``: what is beyond 16 bits in two halves."""

    def escape(found: re.Match[str]) -> str:
        halves = found[0].encode("utf-16-be", "surrogatepass")
        digits = [halves[at : at + 2].hex() for at in range(0, len(halves), 2)]
        return "".join(f"\\u{item.upper() if upper else item}" for item in digits)

    return re.sub(which, escape, text)


def _upper(text: str) -> str:
    return re.sub(r"\\u[0-9a-f]{4}", lambda found: "\\u" + found[0][2:].upper(), text)


def _dotnet(text: str) -> str:
    escaped = _json_utf8(text.replace('"', "\0")).replace("\\u0000", '"')
    return _u_escaped(escaped, "[\"&'+<>`\x7f-\U0010ffff]", upper=True)


_GO = "[<>&\u2028\u2029]"

_JSON: dict[str, Write] = {
    "json": _json,
    "json-upper": lambda text: _upper(_json(text)),
    "json-utf8": _json_utf8,
    "json-slash": lambda text: _json(text).replace("/", "\\/"),
    "json-slash-utf8": lambda text: _json_utf8(text).replace("/", "\\/"),
    "json-go": lambda text: _u_escaped(_json_utf8(text), _GO),
    "json-gson": lambda text: _u_escaped(_json_utf8(text), "[<>&='\u2028\u2029]"),
    "json-dotnet": _dotnet,
}
_JSON_TWICE: dict[str, Write] = {
    "json-twice": lambda text: _json(_json(text)),
    "json-twice-utf8": lambda text: _json_utf8(_json_utf8(text)),
    "json-twice-go": lambda text: _u_escaped(_json_utf8(_u_escaped(_json_utf8(text), _GO)), _GO),
}


def _repr(text: str) -> str:
    # repr() escapes a single quote only where there are double ones too, perhaps outside of the value.
    return repr(text + "'\"")[1:-4]


def _repr_bytes(text: str) -> str:
    return repr(text.encode(errors="surrogatepass") + b"'\"")[2:-4]


_PYTHON: dict[str, Write] = {
    "repr": _repr,
    "repr-unquoted": lambda text: _repr(text).replace("\\'", "'"),
    "repr-bytes": _repr_bytes,
    "repr-bytes-unquoted": lambda text: _repr_bytes(text).replace("\\'", "'"),
    "ascii": lambda text: ascii(text + "'\"")[1:-4],
    "backslashreplace": lambda text: text.encode("ascii", "backslashreplace").decode(),
    "ascii-unquoted": lambda text: ascii(text + "'\"")[1:-4].replace("\\'", "'"),
}


def _percent(safe: str, *, plus: bool = False, tilde: bool = False, lower: bool = False) -> Write:
    def write(text: str) -> str:
        quoted = quote(text, safe=safe + (" " if plus else ""), errors="surrogatepass")
        if plus:
            quoted = quoted.replace(" ", "+")
        if tilde:
            quoted = quoted.replace("~", "%7E")
        return re.sub("%..", lambda found: found[0].lower(), quoted) if lower else quoted

    return write


_URL_PARTS = {
    "url": "",
    "url-path": "/",
    "url-js": "!'()*",
    "url-js-whole": "!#$&'()*+,/:;=?@",
    "url-whole": "!#$%&'()*+,/:;=?@[]",
    "url-go-path": "$&+:=@",
    "url-go-user": "$&+,;=",
}
_URL: dict[str, Write] = {
    **{name: _percent(safe) for name, safe in _URL_PARTS.items()},
    **{f"{name}-lower": _percent(safe, lower=True) for name, safe in _URL_PARTS.items()},
    "url-query": lambda text: quote_plus(text, errors="surrogatepass"),
    "url-query-lower": _percent("", plus=True, lower=True),
    "url-form": _percent("*", plus=True, tilde=True),
    "url-form-lower": _percent("*", plus=True, tilde=True, lower=True),
}


def _numeric(text: str, form: str = "&#{};") -> str:
    return "".join(item if ord(item) < 128 else form.format(ord(item)) for item in text)


def _named(text: str) -> str:
    return "".join(f"&{codepoint2name[ord(item)]};" if ord(item) in codepoint2name else item for item in text)


_HTML: dict[str, Write] = {
    "html": html.escape,
    "html-text": lambda text: html.escape(text, quote=False),
    "html-double": lambda text: html.escape(text, quote=False).replace('"', "&quot;"),
    "html-39": lambda text: html.escape(text).replace("&#x27;", "&#39;"),
    "html-go": lambda text: (
        html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;").replace("+", "&#43;")
    ),
    "html-go-text": lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
    "xml": lambda text: html.escape(text).replace("&#x27;", "&apos;"),
    "html-numeric": lambda text: _numeric(html.escape(text)),
    "xml-numeric": lambda text: _numeric(html.escape(text, quote=False)),
    "html-numeric-hex": lambda text: _numeric(html.escape(text), "&#x{:x};"),
    "html-named": lambda text: _named(text).replace("'", "&#039;"),
}

_CONTROL = {"\a": "a", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t", "\v": "v"}


def _c_like(text: str, *, quotes: str, other: str = "\\x{:02x}", ascii_only: str = "") -> str:
    """A string literal as C and its heirs write it."""
    parts = []
    for item in text:
        if item in quotes or item == "\\":
            parts.append(f"\\{item}")
        elif item in _CONTROL:
            parts.append(f"\\{_CONTROL[item]}")
        elif item < " " or item == "\x7f":
            parts.append(other.format(ord(item)))
        elif ascii_only and item > "\x7f":
            parts += [ascii_only.format(byte) for byte in item.encode(errors="surrogatepass")]
        else:
            parts.append(item)
    return "".join(parts)


def _go_ascii(text: str) -> str:
    return "".join(
        item if item < "\x80" else f"\\u{ord(item):04x}" if ord(item) < 0x10000 else f"\\U{ord(item):08x}"
        for item in _c_like(text, quotes='"')
    )


_SHELL_SPECIAL = re.compile(r"""[\s!"$&'()*,;<>?\[\\\]^`{|}]""")
_SHELL: dict[str, Write] = {
    "shell": lambda text: text.replace("'", "'\\''"),
    "shell-python": lambda text: text.replace("'", "'\"'\"'"),
    "shell-double": lambda text: re.sub(r'([\\"$`])', r"\\\1", text),
    "shell-backslash": lambda text: re.sub("^[#~]", r"\\\g<0>", _SHELL_SPECIAL.sub(r"\\\g<0>", text)),
    "shell-ansi": lambda text: _c_like(text, quotes="'", other="\\{:03o}").replace("\\033", "\\E"),
    "shell-ansi-octal": lambda text: _c_like(
        text, quotes="'", other="\\{:03o}", ascii_only="\\{:03o}"
    ).replace("\\033", "\\E"),
    "powershell": lambda text: re.sub(r'([`"$])', r"`\1", text),
}
_LITERALS: dict[str, Write] = {
    "doubled-single": lambda text: text.replace("'", "''"),
    "doubled-double": lambda text: text.replace('"', '""'),
    "single-quoted": lambda text: text.replace("\\", "\\\\").replace("'", "\\'"),
    "go": lambda text: _c_like(text, quotes='"'),
    "go-ascii": _go_ascii,
    "java": lambda text: _upper(_u_escaped(_c_like(text, quotes="\"'"), "[^\0-\x7f]")),
    "c-octal": lambda text: _c_like(text, quotes='"', other="\\{:03o}", ascii_only="\\{:03o}"),
    "c-octal-both": lambda text: _c_like(text, quotes="\"'", other="\\{:03o}", ascii_only="\\{:03o}"),
    "c-hex": lambda text: _c_like(text, quotes='"', ascii_only="\\x{:02x}"),
    "c-hex-upper": lambda text: _c_like(text, quotes='"', other="\\x{:02X}", ascii_only="\\x{:02X}"),
    "regex": re.escape,
}


def _yaml_double(text: str, *, ascii_only: bool) -> str:
    names = {
        '"': '"',
        "\\": "\\",
        "\0": "0",
        "\x1b": "e",
        "\x85": "N",
        "\xa0": "_",
        "\u2028": "L",
        "\u2029": "P",
    }
    names |= _CONTROL
    parts = []
    for item in text:
        if item in names:
            parts.append(f"\\{names[item]}")
        elif item < " " or (ascii_only and "\x7e" < item < "\u0100"):
            parts.append(f"\\x{ord(item):02X}")
        elif ascii_only and item > "\x7e":
            parts.append(f"\\u{ord(item):04X}" if ord(item) < 0x10000 else f"\\U{ord(item):08X}")
        else:
            parts.append(item)
    return "".join(parts)


_YAML: dict[str, Write] = {
    "yaml-double": lambda text: _yaml_double(text, ascii_only=True),
    "yaml-double-utf8": lambda text: _yaml_double(text, ascii_only=False),
    "yaml-double-utf8-16": lambda text: re.sub(
        "[\U00010000-\U0010ffff]",
        lambda found: f"\\U{ord(found[0]):08X}",
        _yaml_double(text, ascii_only=False),
    ),
}


def _quoted_printable(text: str, safe: str, space: str = " ") -> str:
    return "".join(
        space if byte == 32 else chr(byte) if 32 < byte < 127 and chr(byte) in safe else f"={byte:02X}"
        for byte in text.encode(errors="surrogatepass")
    )


_PRINTABLE = "".join(map(chr, range(33, 127)))
_MAIL: dict[str, Write] = {
    "quoted-printable": lambda text: _quoted_printable(text, _PRINTABLE.replace("=", "")),
    "quoted-printable-spaces": lambda text: _quoted_printable(text, _PRINTABLE.replace("=", ""), "=20"),
    "quoted-printable-header": lambda text: _quoted_printable(
        text, re.sub(r"[^A-Za-z0-9!*+/-]", "", _PRINTABLE), "_"
    ),
}
_UNICODE: dict[str, Write] = {
    "composed": lambda text: unicodedata.normalize("NFC", text),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
    "latin-1 of utf-8": lambda text: text.encode(errors="surrogatepass").decode("latin-1"),
    "windows-1252 of utf-8": lambda text: text.encode(errors="surrogatepass").decode("cp1252", "replace"),
}


# bytes


def _other_text(value: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        yield "bytes", value
        return
    # Without the zero at the end: of one order it is the end of the first character of what follows in the other.
    yield "utf-16", text.encode("utf-16-le").removesuffix(b"\0")
    yield "utf-16-be", text.encode("utf-16-be").removeprefix(b"\0")
    for name in ("latin-1", "cp1252"):
        try:
            yield name, text.encode(name)
        except UnicodeEncodeError:
            continue


_LONGEST_LIST = 4096
"""Bytes. A list takes several characters for each, and there are ten kinds."""


def _hexadecimal(value: bytes) -> Iterator[tuple[str, bytes]]:
    yield "hex", value.hex().encode()
    yield "HEX", value.hex().upper().encode()


def _lists(value: bytes) -> Iterator[tuple[str, bytes]]:
    if len(value) > _LONGEST_LIST:
        return
    for name, sign in (("colons", ":"), ("spaces", " "), ("hyphens", "-")):
        yield f"hex-{name}", value.hex(sign).encode()
        yield f"HEX-{name}", value.hex(sign).upper().encode()
    yield "hex-escapes", b"".join(b"\\x%02x" % byte for byte in value)
    yield "hex-numbers", b", ".join(b"0x%x" % byte for byte in value)
    yield "hex-numbers-padded", b", ".join(b"0x%02x" % byte for byte in value)
    for name, sign in (("commas", ", "), ("compact", ","), ("spaces", " ")):
        yield f"decimal-{name}", sign.join(map(str, value)).encode()


def base64_forms(value: bytes, of: str = "") -> Iterator[tuple[str, bytes]]:
    """The characters that depend on the value alone, for each of the three places at which it may begin."""
    for skip in range(3):
        begin, end = -(-8 * skip // 6), 8 * (skip + len(value)) // 6
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            yield f"{name}{of}+{skip}", encode(b"\0" * skip + value)[begin:end]


def _base64_of_others(value: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield from base64_forms(text.encode("utf-16-le"), " of utf-16")
    for name in ("json", "json-utf8", "json-go"):
        inner = _JSON[name](text).encode(errors="surrogatepass")
        if inner != value:
            yield from base64_forms(inner, f" of {name}")


TABLE = (
    Family("as it is", "everything", {"raw": str}),
    Family(
        "JSON",
        "Python, JavaScript, Java, Ruby, Rust; PHP (`\\/`); Go and Gson (`\\u003c`); .NET (`\\u0022`); with characters"
        " beyond ASCII as they are or as `\\u00e9`, in lower and upper case",
        _JSON,
    ),
    Family("JSON in JSON", "structured logs that hold a JSON text", _JSON_TWICE),
    Family("Python", "`repr` of texts and bytes, `ascii`, in either quotes; `backslashreplace`", _PYTHON),
    Family(
        "URLs",
        "percent signs as Python, JavaScript, Go, Java and browsers write them in paths, queries, forms and user names,"
        " in lower and upper case",
        _URL,
    ),
    Family(
        "HTML and XML", "entities as Python, Go, PHP and XML write them: named, decimal, hexadecimal", _HTML
    ),
    Family(
        "shells",
        "`'…'\\''…'` (bash, zsh, `set -x`), `'\"'\"'` (Python), double quotes, backslashes (`printf %q`), `$'…'`,"
        " PowerShell",
        _SHELL,
    ),
    Family(
        "string literals",
        "Go (`%q`, `%+q`), Java, JavaScript, C with octal or hexadecimal escapes (git, protobuf), doubled quotes (SQL,"
        " CSV, YAML), regular expressions",
        _LITERALS,
    ),
    Family("YAML", "double quotes; single ones are doubled quotes", _YAML),
    Family("mail", "quoted-printable, in bodies and headers", _MAIL),
    Family(
        "other Unicode",
        "composed and decomposed characters; UTF-8 that was read as Latin-1 or Windows-1252",
        _UNICODE,
    ),
    Family("other character sets", "UTF-16 in both orders, Latin-1, Windows-1252", raw=_other_text),
    Family("hexadecimal", "digits in lower and upper case", raw=_hexadecimal),
    Family(
        "bytes as lists",
        "digits with colons, spaces or hyphens; `\\x68\\x65`; `0x68, 0x65`; decimal numbers, as Go and Python print"
        f" bytes; of values of {_LONGEST_LIST} bytes at most",
        raw=_lists,
        least=6,
    ),
    Family(
        "base64",
        "standard and URL-safe, with and without `=`, also within longer encoded data",
        raw=base64_forms,
        least=8,
    ),
    Family(
        "base64 of JSON or UTF-16",
        "Docker's configuration, PowerShell's `-EncodedCommand`",
        raw=_base64_of_others,
        least=8,
    ),
)
"""Every encoding that is looked for."""

NOT_LOOKED_FOR = (
    ("texts that were cut, reversed, or whose case was changed", "they are no encoding of the whole value"),
    (
        "text that was wrapped into lines, except base64 in lines of 64 or 76",
        "where lines end depends on what is before",
    ),
    ("dumps such as `hexdump -C`", "the lines depend on what is before"),
    (
        "base32, base85, uuencode, Punycode",
        "what Runkeys runs does not write them; half a table of rare forms would cost each line",
    ),
    (
        "two encodings, one in the other, but for JSON in JSON, and JSON or UTF-16 in base64",
        "there is no end of them",
    ),
    ("what is compressed, encrypted or hashed", "it cannot be recognised"),
)
"""What is not, and why."""


def text_forms(text: str) -> Iterator[tuple[str, str]]:
    """All forms of a text, with their names."""
    for family in TABLE:
        for name, write in (family.text or {}).items():
            yield name, write(text)


def byte_forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    """All forms of bytes, with their names."""
    for family in TABLE:
        if family.raw is not None and len(value) >= family.least:
            yield from family.raw(value)
