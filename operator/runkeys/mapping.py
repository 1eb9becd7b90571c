"""``$secrets``: values that a user provides with a run's input, and the tasks that get them. Pure.

The mapping ``{ "ibm_token": secret_value("ibm_api_token") }`` of a task means that its secret parameter ``ibm_token``
gets the field ``ibm_api_token`` of ``$secrets``. It is the same as ``secrets: [{name: ibm_token, input:
ibm_api_token}]``.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from runkeys.problems import Invalid

if TYPE_CHECKING:
    from runkeys.sealing import PublicKey

SECRETS = "$secrets"

_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPACE = " \t\r\n"
_FORM = '{ "parameter": secret_value("field of $secrets") }'


def parse_mapping(text: str, task: str = "") -> dict[str, str]:
    """Parse a mapping. Return the field of ``$secrets`` for each parameter of the task.

    :param task: name of the task, for messages.
    :raises Invalid: the mapping has another form. The message does not repeat a literal in place of
        ``secret_value(…)``, because it may be the secret itself.
    """
    return _Reader(
        text, f"the mapping of secrets of task {task}" if task else "the mapping of secrets"
    ).read()


def task_secrets(mapping: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a mapping in the form of a task's ``secrets`` in a WorkflowRun."""
    return [{"name": parameter, "input": field} for parameter, field in mapping.items()]


def split_secrets(document: Mapping[str, Any], at: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """Return a copy of the input document without ``$secrets``, and the secrets by field.

    :param at: path of the document, for messages, such as ``spec.input.``.
    :raises Invalid: ``$secrets`` is not an object of texts, or it is not at the top level.
    """
    rest = copy.deepcopy({key: value for key, value in document.items() if key != SECRETS})
    nested = next(_nested(rest, ""), None)
    if nested is not None:
        raise Invalid(
            f"{at}{nested}: {SECRETS} is allowed only at the top of the input; move it there. Others may have"
            " seen its values: consider replacing them"
        )
    given = document.get(SECRETS, {})
    if not isinstance(given, Mapping):
        raise Invalid(
            f'{at}{SECRETS}: must be an object of strings, e.g. {{"ibm_api_token": "…"}}, not {_kind(given)}'
        )
    for field, value in given.items():
        if not isinstance(field, str) or not field:
            raise Invalid(f"{at}{SECRETS}: the name of a field is empty or not a string")
        if not isinstance(value, str):
            raise Invalid(f"{at}{SECRETS}.{field}: must be a string, not {_kind(value)}; write it in quotes")
        if not all(_is_utf8(text) for text in (field, value)):
            raise Invalid(f"{at}{SECRETS}.{field}: is not text that UTF-8 can encode")
    return rest, dict(given)


def add_mapping(manifest: dict[str, Any], text: str) -> None:
    """Add a mapping to its task in a manifest. The manifest is changed.

    :param text: a mapping if there is only one task; else the task's name, ``=`` and the mapping.
    :raises Invalid: there is no such task, the mapping has another form, or it names a field that is not given.
    """
    tasks = (manifest.get("spec") or {}).get("tasks") or []
    names = [str(item.get("name")) for item in tasks]
    name, equals, rest = text.partition("=")
    if text.lstrip().startswith("{") or not equals:
        if len(names) != 1:
            raise Invalid(
                f"a mapping of secrets needs the name of its task in front, TASK={_FORM}; the tasks are:"
                f" {', '.join(names)}"
            )
        name, rest = names[0], text
    found = next((item for item in tasks if item.get("name") == name.strip()), None)
    if found is None:
        raise Invalid(
            f"a mapping of secrets is for task {name.strip()!r}, but the tasks are: {', '.join(names) or 'none'}"
        )
    mapping = parse_mapping(rest, str(found["name"]))
    given = (manifest["spec"].get("input") or {}).get(SECRETS) or {}
    check_mapping(mapping, [*given, *(manifest["spec"].get("sealedInput") or {})], str(found["name"]))
    found["secrets"] = [*(found.get("secrets") or []), *task_secrets(mapping)]


def check_mapping(mapping: Mapping[str, str], fields: Iterable[str], task: str) -> None:
    """Check that all fields of a mapping are given.

    :param fields: names of the fields of ``$secrets``.
    :raises Invalid: a field is missing; the message names task, parameter and field.
    """
    there = sorted(fields)
    for parameter, field in mapping.items():
        if field not in there:
            raise Invalid(
                f"task {task}, secret {parameter!r}: {SECRETS} has no field {field!r}; it has:"
                f" {', '.join(there) or 'none'}"
            )


def unused_fields(mappings: Iterable[Mapping[str, str]], fields: Iterable[str]) -> list[str]:
    """Return the fields that no task gets. They are most likely a mistake, but do no harm."""
    used = {field for mapping in mappings for field in mapping.values()}
    return sorted(set(fields) - used)


def seal_secrets(
    given: Mapping[str, str], namespace: str, requester: str, key: PublicKey, at: str = ""
) -> dict[str, str]:
    """Seal the fields of ``$secrets`` for ``spec.sealedInput``. They open only in this user's runs in this namespace.

    :param requester: username, as the API server knows it.
    :param at: path of the document, for messages.
    :raises Invalid: a value cannot be sealed: it is too large or not valid Unicode.
    """
    from runkeys import sealing

    sealed = {}
    for field, value in given.items():
        problem = "" if _is_utf8(field) and _is_utf8(value) else "is not text that UTF-8 can encode"
        if not problem:
            try:
                sealed[field] = sealing.seal(
                    value.encode(), sealing.RunInput(namespace, requester, field), key
                )
            except sealing.SealError as error:
                problem = str(error)
        if problem:
            raise Invalid(f"{at}{SECRETS}.{field}: {problem}")
    return sealed


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _nested(node: Any, path: str) -> Iterator[str]:
    items = (
        node.items()
        if isinstance(node, Mapping)
        else enumerate(node)
        if isinstance(node, list | tuple)
        else ()
    )
    for key, value in items:
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and SECRETS in value:
            yield here
        yield from _nested(value, here)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


class _Reader:
    """Parser for ``"{" [ STRING ":" "secret_value" "(" STRING ")" { "," … } ] "}"``."""

    def __init__(self, text: str, what: str) -> None:
        self._text, self._what, self._at = text, what, 0

    def read(self) -> dict[str, str]:
        found: dict[str, str] = {}
        self._expect("{")
        if self._peek() == "}":
            self._at += 1
        else:
            self._entry(found)
            while self._peek() == ",":
                self._at += 1
                self._entry(found)
            self._expect("}")
        if self._peek():
            raise self._wrong("nothing may follow the closing }")
        return found

    def _entry(self, found: dict[str, str]) -> None:
        parameter = self._string("the name of a parameter in double quotes")
        self._expect(":")
        self._peek()
        word = _WORD.match(self._text, self._at)
        if word is None or word[0] != "secret_value":
            # Not shown: it may be a value that somebody wrote here.
            raise self._wrong(f'after {parameter!r} comes secret_value("…"), never the value itself')
        self._at = word.end()
        self._expect("(")
        field = self._string("the name of a field in double quotes")
        self._expect(")")
        if parameter in found:
            raise self._wrong(f"{parameter!r} is given twice")
        found[parameter] = field

    def _peek(self) -> str:
        while self._at < len(self._text) and self._text[self._at] in _SPACE:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _expect(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._wrong(f"expected {sign}")
        self._at += 1

    def _string(self, what: str) -> str:
        self._peek()
        token = _STRING.match(self._text, self._at)
        try:
            text = json.loads(token[0]) if token is not None else ""
        except ValueError:
            text = ""
        if token is None or not text:
            raise self._wrong(f"expected {what}")
        self._at = token.end()
        return str(text)

    def _wrong(self, message: str) -> Invalid:
        return Invalid(f"{self._what}, character {self._at + 1}: {message}. The form is {_FORM}")
