"""The parameters of a service's ``run`` function, and the source of each."""

from __future__ import annotations

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from runkeys._task.secret_value import SecretValue
from runkeys.datapool import DataPool

Function = Callable[..., Any]


class Kind(Enum):
    """Where a parameter comes from."""

    INPUT = "input"
    SECRET = "secret"
    POOL = "datapool"


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    :ivar type: of an input what it is checked against; of a secret or data pool the class that is handed over.
    :ivar optional: whether it may be None.
    :ivar default: ``inspect.Parameter.empty`` if there is none.
    """

    name: str
    kind: Kind
    type: Any
    optional: bool
    default: Any

    @property
    def required(self) -> bool:
        """Whether the service cannot run without it."""
        return not self.optional and self.default is inspect.Parameter.empty


def load(entrypoint: str, folder: Path | None = None) -> Function:
    """Import the function ``package.module:function``.

    :param folder: where to look first. Default: the current one.
    :raises ValueError: it is written in another way, or there is no such module or function.
    """
    module_name, colon, name = entrypoint.partition(":")
    if not (colon and module_name and name):
        raise ValueError(
            f"the entry point {entrypoint!r} must be module:function, for example src.program:run"
        )
    place = str(folder or Path.cwd())
    if place not in sys.path:
        sys.path.insert(0, place)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parents = [module_name[:at] for at, sign in enumerate(module_name) if sign == "."]
        if error.name not in (module_name, *parents):
            raise  # something that the service itself imports
        raise ValueError(
            f"there is no module {module_name} in {place} or elsewhere on Python's search path"
        ) from None
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"module {module_name} has no function {name}")  # noqa: TRY004
    return found  # type: ignore[no-any-return]


def parameters_of(function: Function) -> list[Parameter]:
    """Its parameters in order.

    :raises ValueError: it takes positional-only parameters, or any number of them; a data pool stands in a union with
        something else.
    """
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ValueError(
            f"a type in the signature of {_name(function)} is not known in its module: {error}; import it there, and"
            " not only for type checkers"
        ) from None
    found = []
    for item in inspect.signature(function).parameters.values():
        if item.kind in (item.VAR_KEYWORD, item.VAR_POSITIONAL, item.POSITIONAL_ONLY):
            raise ValueError(
                f"{_name(function)}: parameter {item.name} must be an ordinary parameter with a name"
            )
        found.append(_parameter(item, hints.get(item.name, Any)))
    return found


def _parameter(item: inspect.Parameter, hint: Any) -> Parameter:
    members, optional = _members(hint)
    for kind, base in ((Kind.SECRET, _secret_type), (Kind.POOL, _pool_type)):
        wanted = [base(member) for member in members]
        found = next((member for member in wanted if member is not None), None)
        if found is not None and kind is Kind.POOL and len(members) > 1:
            raise ValueError(
                f"parameter {item.name}: a data pool cannot be combined with another type; write {found.__name__}"
                " alone, or with None"
            )
        if found is not None:  # a secret in a union is a secret: its value never comes from the input
            return Parameter(item.name, kind, found, optional, item.default)
    return Parameter(item.name, Kind.INPUT, hint, optional, item.default)


def _members(hint: Any) -> tuple[list[Any], bool]:
    """The types of a union, without None and what `Annotated` adds; and whether None is one of them."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) not in (Union, types.UnionType):
        return ([] if hint is type(None) else [hint]), hint in (None, type(None))
    members: list[Any] = []
    optional = False
    for member in get_args(hint):
        inner, none = _members(member)
        members += inner
        optional = optional or none
    return members, optional


def _secret_type(hint: Any) -> Any:
    """The class if it is one of secrets: ours, or that of the qhub library, which a service may import instead."""
    return _class_of(hint, SecretValue, "qhub.commons.secret", "SecretValue")


def _pool_type(hint: Any) -> Any:
    return _class_of(hint, DataPool, "qhub.commons.datapool", "DataPool")


def _class_of(hint: Any, ours: type, module: str, name: str) -> Any:
    if not isinstance(hint, type):
        return None
    theirs = getattr(sys.modules.get(module), name, None)
    bases = (ours, theirs) if isinstance(theirs, type) else (ours,)
    return hint if issubclass(hint, bases) else None


def _name(function: Function) -> str:
    return str(getattr(function, "__qualname__", function))
