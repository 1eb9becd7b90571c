"""Runs a service: ``python -m runkeys.runtime src.program:run``.

The type of each parameter decides its source. A ``SecretValue`` comes from the variable ``SECRET_<NAME>``, or from the
variable or file that the run defines. A ``DataPool`` comes from the folder ``datapool/<name>``. Any other parameter
comes from the JSON document ``input/<name>.json``, which is checked against the type. The function's return value is
written to ``output/output.json``. If the function raises an error, a problem document (RFC 9457) is written instead,
and the exit code is 1.

The folders are below ``/var/runtime``; `runkeys._task.environment.folder` says how to move them. Secret values are
masked in the service's output and logs, in its return value, and in error texts.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

from runkeys import masking
from runkeys._task import environment
from runkeys._task.secret_value import SecretValue
from runkeys._task.signature import Function, Kind, Parameter, load, parameters_of
from runkeys.names import secret_variable

ENTRYPOINT_VARIABLE = "ENTRYPOINT"
OUTPUT = "output.json"
_PROBLEM = frozenset({"type", "status", "title", "detail", "instance"})


class HandlerError(Exception):
    """Raised by a service to report a failure with its own title and details.

    :param title: short title of the problem.
    :param detail: what happened in this case. Default: the title.
    :param extensions: further members of the problem document.
    :raises ValueError: ``extensions`` has a standard member: type, status, title, detail or instance.
    """

    def __init__(
        self, title: str, detail: str | None = None, extensions: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(title)
        taken = sorted(_PROBLEM & set(extensions or {}))
        if taken:
            raise ValueError(f"extensions cannot set {', '.join(taken)}; choose other names")
        self.title = title
        self.detail = title if detail is None else detail
        self.extensions = dict(extensions or {})


def arguments_for(function: Function) -> dict[str, Any]:
    """Return the arguments for the function, by parameter, from this process's environment and files.

    :raises ValueError: an argument is missing or does not fit; the message names the parameter and its source.
    """
    found: dict[str, Any] = {}
    for parameter in parameters_of(function):
        value = _value_of(parameter)
        if value is not _MISSING:
            found[parameter.name] = value
        elif parameter.default is inspect.Parameter.empty:
            if not parameter.optional:
                raise ValueError(_what_is_missing(parameter))
            found[parameter.name] = None
    return found


def call(function: Function) -> Any:
    """Call a service with the arguments of this process, and return its result. An awaitable result is awaited."""
    result = function(**arguments_for(function))
    if not inspect.isawaitable(result):
        return result
    import asyncio

    return asyncio.run(_awaited(result))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the service named on the command line or in the variable ENTRYPOINT. Return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    entrypoint = words[0] if words else os.environ.get(ENTRYPOINT_VARIABLE, "")
    if len(words) > 1 or not entrypoint or entrypoint.startswith("-"):
        usage = "usage: python -m runkeys.runtime MODULE:FUNCTION, for example src.program:run"
        print(usage, file=sys.stderr)  # noqa: T201
        return 2
    masking.install()
    try:
        result = call(load(entrypoint))
        if result is not None:
            _write(result)
    except Exception as error:  # noqa: BLE001 -- any error of a service becomes a problem document
        traceback.print_exc()
        return _failed(error)
    except SystemExit as error:
        if error.code not in (None, 0):
            _failed(error)
        raise
    return 0


class _Missing:
    pass


_MISSING = _Missing()


def _value_of(parameter: Parameter) -> Any:
    match parameter.kind:
        case Kind.SECRET:
            value = environment.secret(parameter.name)
            return _MISSING if value is None else parameter.type(value)
        case Kind.POOL:
            pool = environment.folder("datapool") / parameter.name
            return parameter.type(str(pool)) if pool.is_dir() else _MISSING
        case Kind.INPUT:
            place = _input_file(parameter.name)
            return _MISSING if place is None else _checked(parameter, place)


def _input_file(name: str) -> Path | None:
    folder = environment.folder("input")
    return next((place for place in (folder / f"{name}.json", folder / name) if place.is_file()), None)


def _checked(parameter: Parameter, place: Path) -> Any:
    """Return the file's document after checking it. Errors name the file and the field, but not the value."""
    try:
        document = json.loads(place.read_bytes())
    except ValueError as error:
        raise ValueError(f"parameter {parameter.name}: {place} is not a JSON document: {error}") from None
    if parameter.type is Any:
        return document
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(parameter.type).validate_python(document)
    except ValidationError as error:
        found = "; ".join(
            ".".join(str(part) for part in item["loc"]) + (": " if item["loc"] else "") + item["msg"]
            for item in error.errors(include_input=False, include_url=False, include_context=False)
        )
    raise ValueError(f"parameter {parameter.name}: {place} does not match the type of the parameter: {found}")


def _what_is_missing(parameter: Parameter) -> str:
    name = parameter.name
    if parameter.kind is Kind.POOL:
        return f"parameter {name}: there is no folder {environment.folder('datapool') / name}; list it under dataPools"
    if parameter.kind is Kind.INPUT:
        return f"parameter {name}: there is no file {environment.folder('input') / f'{name}.json'}; list it under input"
    task = environment.task()
    where = f"variable {secret_variable(name)} is not set"
    if task is None:
        return f"parameter {name}: {where}; it must hold this secret"
    has = ", ".join(sorted(task.secrets)) or "none"
    return f"parameter {name}: {where}: task {task.name} did not get a secret {name!r}; it has: {has}"


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _write(result: Any) -> None:
    _write_document(_without_values(_plain(result)))


def _plain(result: Any) -> Any:
    """Convert models, dataclasses and other types that pydantic knows to JSON."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(result, fallback=_fallback, serialize_unknown=False)


def _fallback(value: Any) -> Any:
    if isinstance(value, SecretValue) or type(value).__name__ == "SecretValue":
        return str(value)
    raise TypeError(f"the service returned a {type(value).__name__}, which cannot be written as JSON")


def _without_values(node: Any) -> Any:
    """Mask secret values: the result is kept in the run's status, which must not contain secrets."""
    if isinstance(node, str):
        return masking.masked(node)
    if isinstance(node, dict):
        return {masking.masked(str(key)): _without_values(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_values(value) for value in node]
    return node


def _failed(error: BaseException) -> int:
    if isinstance(error, HandlerError) or type(error).__name__ == "HandlerError":
        title, detail = getattr(error, "title", str(error)), getattr(error, "detail", str(error))
        more = dict(getattr(error, "extensions", {}))
    else:
        title, more = type(error).__name__, {}
        detail = str(error) or title
    problem = {"type": "about:blank", "status": 500, "title": title, "detail": detail, **more}
    try:
        _write(problem)
    except (OSError, TypeError, ValueError) as trouble:
        print(f"the problem cannot be written: {trouble}", file=sys.stderr)  # noqa: T201
    return 1


def _write_document(document: Any) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    folder = environment.folder("output")
    folder.mkdir(parents=True, exist_ok=True)
    # In place: the kubelet reads this very file, and a rename onto it would be refused.
    (folder / OUTPUT).write_text(text)


if __name__ == "__main__":
    sys.exit(main())
