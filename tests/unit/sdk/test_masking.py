"""What a process prints and logs holds no value that it has read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runkeys.masking import MASK, Masker
from testing.namespace import canary
from tests.unit.sdk.conftest import Service

FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 for addresses": lambda v: base64.urlsafe_b64encode(v.encode()).decode(),
    "URL": lambda v: quote(v, safe=""),
    "form": quote_plus,
    "JSON": json.dumps,
    "JSON with letters": lambda v: json.dumps(v, ensure_ascii=False),
    "repr": repr,
    "hex": lambda v: v.encode().hex(),
    "URL of base64 user and password": lambda v: base64.b64encode(f"user:{v}".encode()).decode(),
    "base64 in the middle": lambda v: base64.b64encode(f"ab{v}xyz".encode()).decode(),
}


def pieces_of(value: str) -> list[str]:
    """Parts of a value that must not be readable anywhere: enough to find it by."""
    return [value[at : at + 12] for at in range(0, max(1, len(value) - 12), 6)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "value",
    [f"p/+ &{canary()}", f"ümläut\"'\\{canary()}", canary()],
    ids=["special", "not ASCII", "plain"],
)
def test_a_value_is_masked_in_every_form(form: str, value: str) -> None:
    masker = Masker([value.encode()])
    masked = masker.mask(f"before {FORMS[form](value)} after")
    assert MASK in masked
    assert FORMS[form](value) not in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    hidden = FORMS[form](value)
    left = masked.replace(MASK, "")
    assert len(left) <= len("before  after") + 12, "hardly anything of it is left"
    assert not any(piece in left for piece in pieces_of(hidden.strip("\"'")))


def test_each_line_of_a_value_with_several_is_masked() -> None:
    lines = [canary() for _ in range(3)]
    masker = Masker(["\n".join(lines).encode()])
    for line in lines:
        assert masker.mask(f"> {line}") == f"> {MASK}"
    assert not any(line in masker.mask(json.dumps("\n".join(lines))) for line in lines)


@pytest.mark.parametrize("encode", [base64.encodebytes, lambda raw: wrapped(raw, 64)])
def test_base64_in_lines_is_masked(encode: Callable[[bytes], bytes]) -> None:
    value = "".join(canary() for _ in range(8)).encode()
    text = encode(value).decode()
    masked = Masker([value]).mask(text)
    assert [line for line in masked.splitlines() if line != MASK] == []


def wrapped(raw: bytes, width: int) -> bytes:
    text = base64.b64encode(raw).decode()
    return "\n".join(text[at : at + width] for at in range(0, len(text), width)).encode()


def test_short_values_are_left() -> None:
    assert Masker([b"ab", b""]).mask("ab abc") == "ab abc"


@settings(deadline=None)
@given(
    values=st.lists(st.text("abA=\n", min_size=3, max_size=8), min_size=1, max_size=3),
    text=st.text("abAx\n", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_it_does_not_matter_how_a_text_is_cut_into_writes(
    values: list[str], text: str, cuts: list[int]
) -> None:
    """Whatever is masked in one write is masked when it comes in several."""
    masker = Masker([value.encode() for value in values])
    raw, held, shown = text.encode(), b"", b""
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    for begin, end in pairwise(places):
        out, held = masker.split(held + raw[begin:end])
        shown += out
        assert b"\n" not in held
    shown += masker.mask_bytes(held)
    assert not any(found in shown.decode() for found in whole_values(values))


def whole_values(values: list[str]) -> list[str]:
    lines = {line.strip() for value in values for line in value.splitlines()}
    return [line for line in lines if len(line) >= 3]


PRINTS = """
import logging, os, sys, time
from runkeys import masking, secrets
kept = logging.StreamHandler(sys.stderr)
logging.getLogger("early").addHandler(kept)
masking.install()
masking.install()
value = secrets.get("t")
"""


def printed(service: Service, code: str, value: str, **variables: str) -> str:
    ended = service.python("-c", PRINTS + code, SECRET_T=value, **variables)
    assert ended.code == 0, ended.err
    return ended.out + ended.err


@pytest.mark.parametrize(
    "code",
    [
        "print(value)",
        "print('x', value, 'y', file=sys.stderr)",
        "for sign in value: sys.stdout.write(sign); sys.stdout.flush()",
        "half = len(value) // 2; print(value[:half], end='', flush=True); print(value[half:])",
        "sys.stdout.buffer.write(value.encode())",
        "half = len(value) // 2; sys.stdout.write(value[:half]); sys.stdout.buffer.write(value[half:].encode())",
        "logging.getLogger('early').error('%s', value)",
        "logging.basicConfig(); logging.error({'token': value})",
        "logging.basicConfig(); logging.error('x %s', value, stack_info=True)",
        "import base64; print(base64.b64encode(value.encode()).decode())",
        "os.set_blocking(1, True); print(value, end='')",
    ],
)
def test_a_process_shows_no_value(service: Service, code: str) -> None:
    value = canary()
    text = printed(service, code, value)
    assert MASK in text
    assert not any(piece in text for piece in pieces_of(value))


@pytest.mark.parametrize(
    "code",
    [
        "print(Secret('t').get()['password'])",
        "print(json.dumps(Secret('t').get(), indent=2))",
        "print(Secret('t').get())",
        "print(yaml.safe_dump(Secret('t').get()))",
        "logging.error('%s', Secret('t').get()['more'][0]['url'])",
    ],
)
def test_a_process_shows_no_part_of_a_json_secret(service: Service, code: str) -> None:
    value, url = canary(), f"postgres://app:{canary()}@db"
    secret = json.dumps({"password": value, "more": [{"url": url}]}, indent=4)
    head = "import json, yaml\nfrom runkeys.compat.prefect import Secret\n"
    text = printed(service, head + code, secret)
    assert MASK in text
    assert not any(piece in text for piece in (*pieces_of(value), url))


def test_the_text_of_an_exception_is_masked_in_a_log_file(service: Service) -> None:
    value = canary()
    printed(
        service,
        "logging.basicConfig(filename='log')\n"
        "try: raise ValueError(f'bad {value}')\n"
        "except ValueError: logging.exception('failed')",
        value,
    )
    logged = (service.folder / "log").read_text()
    assert "ValueError: bad [redacted]" in logged
    assert value not in logged


def test_what_is_no_value_comes_out_whole_and_in_order(service: Service) -> None:
    value = canary()
    beginning = value[:10]
    text = printed(
        service, f"print({beginning!r}, end=''); print(); print('a' * 3, end=''); print({beginning!r})", value
    )
    assert text == f"{beginning}\naaa{beginning}\n"


def test_the_end_that_was_held_back_comes_out_at_last(service: Service) -> None:
    value = canary()
    assert printed(service, f"print({value[:10]!r}, end='', flush=True)", value) == value[:10]


def test_a_forked_process_does_not_print_it_again(service: Service) -> None:
    value = canary()
    code = f"print({value[:10]!r}, end='', flush=True)\npid = os.fork()\nif pid: os.waitpid(pid, 0)\n"
    assert printed(service, code, value) == value[:10]


def test_a_task_masks_what_it_has_read_by_itself(service: Service) -> None:
    value = canary()
    code = "from runkeys import secrets; value = secrets.get('t'); print(value)"
    task = {"RUNKEYS_TASK": "fit", "RUNKEYS_SECRETS": '{"t":"SECRET_T"}', "SECRET_T": value}
    assert service.python("-c", code, **task).out == f"{MASK}\n"
    assert service.python("-c", code, SECRET_T=value).out == f"{value}\n", (
        "on a laptop people see what they print"
    )


def test_it_can_be_switched_off(service: Service) -> None:
    value = canary()
    assert printed(service, "print(value)", value, RUNKEYS_MASKING="off") == f"{value}\n"
