"""Names of Prefect 1: secrets, which are looked up locally first, and the key-value store.

::

    from runkeys.compat.prefect import Flow, PrefectSecret, Secret, task

A secret is looked up in this order: the secrets of `context`; the variable ``PREFECT__CONTEXT__SECRETS__<NAME>``;
``[context.secrets]`` in the local config file; `runkeys.secrets.get`, which uses the task's secrets in a pod and the
cluster on a laptop. The last step is left out if ``use_local_secrets`` is set, in ``[cloud]`` of that file or with the
variable ``PREFECT__CLOUD__USE_LOCAL_SECRETS``. The config file is ``$PREFECT__USER_CONFIG_PATH``, else
``~/.prefect/config.toml``. Text of the variable and the file is cast as Prefect casts it: ``true`` and ``false``, then
Python literals, then JSON. References to other variables (``$NAME``) in it are not replaced.

A `Flow` runs its tasks one after the other in this process. Retries, schedules, mapping, results, states and agents are
not supported. Use a WorkflowRun's own features for these.
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import json
import os
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self, overload

from runkeys import masking, secrets
from runkeys._task import environment
from runkeys._text.text_files import decode
from runkeys.config import ConfigFileNotFoundError, ConfigNameNotFoundError
from runkeys.kv import delete_key, get_key_value, list_keys, set_key_value
from runkeys.problems import NotFound

__all__ = [
    "EnvVarSecret",
    "Flow",
    "Parameter",
    "PrefectSecret",
    "Secret",
    "context",
    "delete_key",
    "get_key_value",
    "list_keys",
    "set_key_value",
    "task",
]

_VARIABLE = "PREFECT__CONTEXT__SECRETS__"
_ABSENT: Any = object()
_WITHOUT_EFFECT = frozenset({"checkpoint", "log_stdout", "slug", "tags", "task_run_name"})
"""Options of a Prefect task that change neither what it does nor what it returns."""

_context: ContextVar[Mapping[str, Any]] = ContextVar("context", default={})  # noqa: B039 -- never changed
_building: ContextVar[Flow | None] = ContextVar("building", default=None)


class Secret:
    """A secret by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def exists(self) -> bool:
        """Return whether there is a secret with this name. Its value is not read from the cluster."""
        if self._locally() is not _ABSENT or environment.has_secret(self.name):
            return True
        if _local_only():
            return False
        try:
            return self.name in secrets.list() or self.name in secrets.list_shared()
        except (ConfigNameNotFoundError, ConfigFileNotFoundError):
            return False

    def get(self) -> Any:
        """Return the value. A value that is JSON is decoded.

        :raises ValueError: a flow is being built; or the secret is not found locally, and ``use_local_secrets`` is set
            or no cluster is configured.
        :raises KeyError: the secret is found neither locally nor in the cluster or task.
        """
        if _building.get() is not None:
            raise ValueError(
                f"secret {self.name!r} can be read while a flow runs, not while it is built; pass"
                f" PrefectSecret({self.name!r}) to the task as an argument"
            )
        found = self._locally()
        if found is _ABSENT:
            found = self._elsewhere()
        if not isinstance(found, str):
            return found
        masking.remember(found)
        try:
            return json.loads(found)
        except (ValueError, RecursionError):
            return found

    def _locally(self) -> Any:
        known = _context.get()
        if self.name in known:
            return known[self.name]
        variable = os.environ.get(f"{_VARIABLE}{self.name}")
        if variable is not None:
            return _cast(variable)
        listed = _section(_section(_settings(), "context"), "secrets")
        return _cast(listed[self.name]) if self.name in listed else _ABSENT

    def _elsewhere(self) -> str:
        if _local_only():
            raise ValueError(
                f"local secret {self.name!r} was not found, and use_local_secrets says not to look elsewhere"
            )
        try:
            return secrets.get(self.name)
        except (ConfigNameNotFoundError, ConfigFileNotFoundError) as error:
            problem: Exception = ValueError(
                f"local secret {self.name!r} was not found, and no cluster: {error}"
            )
        except NotFound as error:
            problem = KeyError(str(error))
        raise problem


class _Later(ABC):
    """A step whose value is known when the flow runs."""

    def __init__(self) -> None:
        flow = _building.get()
        if flow is not None:
            flow.steps.append(self)

    @abstractmethod
    def value(self, known: Mapping[_Later, Any]) -> Any:
        """Return the step's value, given the values of the steps before it."""


class PrefectSecret(_Later):
    """A secret as an argument of a task. Its value is read when the flow runs.

    :param name: name of the secret, or a step that gives it, such as a `Parameter`. Default: the name given to `run`.
    :param options: options of a Prefect task that change nothing here, such as ``tags``.
    """

    def __init__(self, name: str | _Later | None = None, **options: Any) -> None:
        _check_options(options)
        super().__init__()
        self.name = name

    def run(self, name: str | None = None) -> Any:
        """Return the value now, of the secret ``name`` if it is given."""
        return Secret(_named(self, name, self.name)).get()

    def value(self, known: Mapping[_Later, Any]) -> Any:
        """Return the value of the secret."""
        return self.run(_resolved(self.name, known))

    def __repr__(self) -> str:
        return f"PrefectSecret({self.name!r})"


class EnvVarSecret(_Later):
    """A secret from an environment variable, by the variable's full name.

    :param name: name of the variable, or a step that gives it. Default: the name given to `run`.
    :param cast: function that converts the text.
    :param raise_if_missing: True raises an error if the variable is not set. Otherwise its value is None.
    :param options: options of a Prefect task that change nothing here, such as ``tags``.
    """

    def __init__(
        self,
        name: str | _Later | None = None,
        cast: Callable[[str], Any] | None = None,
        raise_if_missing: bool = False,
        **options: Any,
    ) -> None:
        _check_options(options)
        super().__init__()
        self.name, self.raise_if_missing, self.cast = name, raise_if_missing, cast

    def run(self, name: str | None = None) -> Any:
        """Return the value now, of the variable ``name`` if it is given.

        :raises ValueError: the variable is not set and ``raise_if_missing`` is True; or ``cast`` refuses its text.
        """
        variable = _named(self, name, self.name)
        value = os.environ.get(variable)
        if value is None:
            if self.raise_if_missing:
                raise ValueError(f"the variable {variable} is not set")
            return None
        masking.remember(value)
        if self.cast is None:
            return value
        try:
            return self.cast(value)
        except (TypeError, ValueError):
            pass  # its message may hold the value
        raise ValueError(f"the variable {variable} holds a value that {_name(self.cast)} does not accept")

    def value(self, known: Mapping[_Later, Any]) -> Any:
        """Return the value of the variable."""
        return self.run(_resolved(self.name, known))


class Parameter(_Later):
    """A parameter of a flow. Its value is given when the flow runs.

    :param default: value if none is given. Without a default the parameter is required.
    :param required: False: the value is None if none is given.
    """

    def __init__(
        self, name: str, default: Any = _ABSENT, required: bool | None = None, **options: Any
    ) -> None:
        _check_options(options)
        super().__init__()
        self.name = name
        self.required = default is _ABSENT if required is None else required
        self.default = None if default is _ABSENT else default

    def value(self, known: Mapping[_Later, Any]) -> Any:
        """Return the value that the flow was run with."""
        return known[self]


class Flow:
    """Tasks in the order in which they were called in the flow's ``with`` block.

    :ivar steps: tasks, parameters and secrets, in order.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.steps: list[_Later] = []

    def __enter__(self) -> Self:
        self._token = _building.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _building.reset(self._token)

    def run(self, **parameters: Any) -> dict[str, Any]:
        """Run all tasks in this process, one after the other. Return their results by task name.

        Of a task that is called several times, the first result is under its name, the others under ``name-2``,
        ``name-3`` and so on, in the order of the calls.

        :raises ValueError: the flow has no parameter with one of these names, or a required parameter is not given.
        """
        known: dict[_Later, Any] = {}
        unknown = set(parameters) - {step.name for step in self.steps if isinstance(step, Parameter)}
        if unknown:
            raise ValueError(f"flow {self.name} has no parameter {', '.join(sorted(unknown))}")
        needed = {step.name for step in self.steps if isinstance(step, Parameter) and step.required}
        if needed - set(parameters):
            lacking = ", ".join(sorted(needed - set(parameters)))
            raise ValueError(
                f"flow {self.name} needs the parameter {lacking}: give it to run(), or give it a default"
            )
        for step in self.steps:
            if isinstance(step, Parameter):
                known[step] = parameters.get(step.name, step.default)
            else:
                known[step] = step.value(known)
        results: dict[str, Any] = {}
        for step in self.steps:
            if isinstance(step, _Call):
                names = itertools.chain(
                    [step.name], (f"{step.name}-{number}" for number in itertools.count(2))
                )
                results[next(name for name in names if name not in results)] = known[step]
        return results


class _Call(_Later):
    def __init__(self, name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.name, self._function, self._arguments = name, function, arguments

    def value(self, known: Mapping[_Later, Any]) -> Any:
        bound = inspect.signature(self._function).bind_partial()
        bound.arguments.update({name: _resolved(item, known) for name, item in self._arguments.items()})
        return self._function(*bound.args, **bound.kwargs)


@overload
def task(function: Callable[..., Any]) -> Callable[..., Any]: ...
@overload
def task(
    *, name: str | None = None, **options: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...
def task(function: Callable[..., Any] | None = None, *, name: str | None = None, **options: Any) -> Any:
    """Make a function a task. In a flow's ``with`` block a call adds a step to the flow, elsewhere it runs at once.

    Arguments that are secrets or results of tasks are replaced by their values when the task runs, also inside of
    lists, tuples, sets and dictionaries. ``.run`` of a task is the function itself.

    :param name: name of the task. Default: the function's name.
    :param options: options of a Prefect task that change nothing here, such as ``tags``.
    :raises TypeError: an option is not supported; the message says what to use.
    """
    _check_options(options)
    if function is None:
        return functools.partial(task, name=name, **options)

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        bound = inspect.signature(function).bind(*arguments, **named)
        if _building.get() is not None:
            return _Call(name or _name(function), function, dict(bound.arguments))
        bound.arguments.update({key: _resolved(item, {}) for key, item in bound.arguments.items()})
        return function(*bound.args, **bound.kwargs)

    called.run = function  # type: ignore[attr-defined]
    return called


@contextmanager
def context(*, secrets: Mapping[str, Any]) -> Iterator[None]:
    """Set secrets by name within a ``with`` block. They take precedence over all other sources. For tests."""
    token = _context.set({**_context.get(), **secrets})
    try:
        yield
    finally:
        _context.reset(token)


def _resolved(item: Any, known: Mapping[_Later, Any]) -> Any:
    if isinstance(item, _Later):
        return known[item] if item in known else item.value(known)
    # Subclasses, such as named tuples, have constructors of their own.
    if type(item) in (list, tuple, set):
        return type(item)(_resolved(part, known) for part in item)
    if type(item) is dict:
        return {_resolved(key, known): _resolved(value, known) for key, value in item.items()}
    return item


def _named(step: _Later, given: str | None, own: str | _Later | None) -> str:
    """Return the name of a secret: the one of this call, else the step's own."""
    name = given if given is not None else own
    if name is None:
        raise ValueError(f"{type(step).__name__} needs a name: give it to the constructor, or to run()")
    if not isinstance(name, str):
        raise ValueError("the name of this secret is known when the flow runs")  # noqa: TRY004
    return name


def _check_options(options: Mapping[str, Any]) -> None:
    absent = sorted(set(options) - _WITHOUT_EFFECT)
    if absent:
        raise TypeError(
            f"{', '.join(absent)} is an option of Prefect's tasks that does not exist here; a task of a WorkflowRun has"
            " backoffLimit for retries, activeDeadlineSeconds and dependsOn"
        )


def _cast(value: Any) -> Any:
    """Return text of the configuration as Prefect casts it."""
    if not isinstance(value, str):
        return value
    masking.remember(value)
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def _settings() -> dict[str, Any]:
    path = Path(os.environ.get("PREFECT__USER_CONFIG_PATH") or "~/.prefect/config.toml").expanduser()
    try:
        return tomllib.loads(decode(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError):
        pass  # the message of the parser may show a line with a secret
    raise ValueError(f"{path} is not TOML; correct it, or move it away")


def _section(settings: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _local_only() -> bool:
    told = os.environ.get("PREFECT__CLOUD__USE_LOCAL_SECRETS")
    if told is not None:
        return told.strip().lower() in ("1", "true", "yes")
    return _section(_settings(), "cloud").get("use_local_secrets") is True


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
