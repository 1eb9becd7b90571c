"""Names of Prefect 1: secrets, which are looked up locally first, and the key-value store.

::

    from runkeys.compat.prefect import Flow, PrefectSecret, Secret, task

A secret is looked up in this order: the secrets of `context`; ``[context.secrets]`` in the local config file; the
variable ``PREFECT__CONTEXT__SECRETS__<NAME>``; `runkeys.secrets.get`, which uses the task's secrets in a pod and the
cluster on a laptop. The last step is left out if ``use_local_secrets`` is set, in ``[cloud]`` of that file or with the
variable ``PREFECT__CLOUD__USE_LOCAL_SECRETS``. The config file is ``$PREFECT__USER_CONFIG_PATH``, else
``~/.prefect/config.toml``.

A `Flow` runs its tasks one after the other in this process. Retries, schedules, mapping and agents are not supported.
Use a WorkflowRun's own features for these.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import tomllib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

from runkeys import masking, secrets
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
_context: ContextVar[Mapping[str, Any]] = ContextVar("context", default={})  # noqa: B039 -- never changed
_building: ContextVar[Flow | None] = ContextVar("building", default=None)


class Secret:
    """A secret by name."""

    def __init__(self, name: str) -> None:
        self.name = name

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
        if found is None:
            found = self._elsewhere()
        if not isinstance(found, str):
            return found
        masking.remember(found)
        try:
            return json.loads(found)
        except ValueError:
            return found

    def _locally(self) -> Any:
        settings = _settings()
        for place in (_context.get(), (settings.get("context") or {}).get("secrets") or {}):
            if self.name in place:
                return place[self.name]
        return os.environ.get(f"{_VARIABLE}{self.name}")

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

    :param name: name of the secret, or a step that gives it, such as a `Parameter`.
    """

    def __init__(self, name: str | _Later) -> None:
        super().__init__()
        self.name = name

    def run(self, name: str | None = None) -> Any:
        """Return the value now, of the secret ``name`` if it is given."""
        wanted = name if name is not None else self.name
        if not isinstance(wanted, str):
            raise ValueError("the name of this secret is known when the flow runs")  # noqa: TRY004
        return Secret(wanted).get()

    def value(self, known: Mapping[_Later, Any]) -> Any:
        """Return the value of the secret."""
        return self.run(_resolved(self.name, known))

    def __repr__(self) -> str:
        return f"PrefectSecret({self.name!r})"


class EnvVarSecret(_Later):
    """A secret from an environment variable, by the variable's full name.

    :param raise_if_missing: True raises an error if the variable is not set. Otherwise its value is None.
    :param cast: function that converts the text.
    """

    def __init__(
        self, env_var: str, *, raise_if_missing: bool = False, cast: Callable[[str], Any] | None = None
    ) -> None:
        super().__init__()
        self.env_var, self.raise_if_missing, self.cast = env_var, raise_if_missing, cast

    def run(self) -> Any:
        """Return the value now.

        :raises ValueError: the variable is not set and ``raise_if_missing`` is True; or ``cast`` refuses its text.
        """
        value = os.environ.get(self.env_var)
        if value is None:
            if self.raise_if_missing:
                raise ValueError(f"the variable {self.env_var} is not set")
            return None
        masking.remember(value)
        if self.cast is None:
            return value
        try:
            return self.cast(value)
        except (TypeError, ValueError):
            pass  # its message may hold the value
        raise ValueError(f"the variable {self.env_var} holds a value that {_name(self.cast)} does not accept")

    def value(self, known: Mapping[_Later, Any]) -> Any:  # noqa: ARG002
        """Return the value of the variable."""
        return self.run()


class Parameter(_Later):
    """A parameter of a flow. Its value is given when the flow runs."""

    def __init__(self, name: str, default: Any = None) -> None:
        super().__init__()
        self.name, self.default = name, default

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

        :raises ValueError: the flow has no parameter with one of these names.
        """
        known: dict[_Later, Any] = {}
        unknown = set(parameters) - {step.name for step in self.steps if isinstance(step, Parameter)}
        if unknown:
            raise ValueError(f"flow {self.name} has no parameter {', '.join(sorted(unknown))}")
        for step in self.steps:
            if isinstance(step, Parameter):
                known[step] = parameters.get(step.name, step.default)
            else:
                known[step] = step.value(known)
        return {step.name: known[step] for step in self.steps if isinstance(step, _Call)}


class _Call(_Later):
    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        super().__init__()
        self.name, self._function, self._arguments = _name(function), function, arguments

    def value(self, known: Mapping[_Later, Any]) -> Any:
        bound = inspect.signature(self._function).bind_partial()
        bound.arguments.update({name: _resolved(item, known) for name, item in self._arguments.items()})
        return self._function(*bound.args, **bound.kwargs)


def task(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function a task. In a flow's ``with`` block a call adds a step to the flow, elsewhere it runs at once.

    Arguments that are secrets are replaced by their values when the task runs.
    """

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        bound = inspect.signature(function).bind(*arguments, **named)
        if _building.get() is not None:
            return _Call(function, dict(bound.arguments))
        bound.arguments.update({name: _resolved(item, {}) for name, item in bound.arguments.items()})
        return function(*bound.args, **bound.kwargs)

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
    if not isinstance(item, _Later):
        return item
    return known[item] if item in known else item.value(known)


def _settings() -> dict[str, Any]:
    path = Path(os.environ.get("PREFECT__USER_CONFIG_PATH") or Path.home() / ".prefect" / "config.toml")
    try:
        return tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        pass  # the message of the parser may show a line with a secret
    raise ValueError(f"{path} is not TOML; correct it, or move it away")


def _local_only() -> bool:
    told = os.environ.get("PREFECT__CLOUD__USE_LOCAL_SECRETS")
    if told is not None:
        return told.strip().lower() in ("1", "true", "yes")
    return (_settings().get("cloud") or {}).get("use_local_secrets") is True


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__name__", function))
