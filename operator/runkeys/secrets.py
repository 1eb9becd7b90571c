"""Secrets by name: in a task the task's secrets, on a laptop your own secrets in the cluster.

::

    from runkeys import secrets

    token = secrets.get("ibm_token")

In a task, the value comes from the variable or file that the run defines, and from nowhere else. ``config_name`` and
``workspace_id`` are ignored there. On a laptop, ``config_name`` is a name in config.toml or a context of the
kubeconfig, and ``workspace_id`` is a namespace. Your own secrets belong to one user in one namespace: a secret that is
set in one namespace does not exist in another.

The functions with ``_async`` do the same without blocking the event loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from runkeys import config
from runkeys._task import environment
from runkeys._task.in_thread import in_thread
from runkeys.config import ConfigFileNotFoundError, ConfigNameNotFoundError
from runkeys.names import secret_variable
from runkeys.problems import Denied, Invalid, NotFound, Problem

if TYPE_CHECKING:
    from runkeys.client.binding_secrets import BindingSecrets

__all__ = [
    "ConfigFileNotFoundError",
    "ConfigNameNotFoundError",
    "NotFoundError",
    "UnauthorizedError",
    "ValidationError",
    "delete",
    "delete_async",
    "get",
    "get_async",
    "list",
    "list_async",
    "set",
    "set_async",
]


class NotFoundError(NotFound):
    """There is no secret with this name, here or in the cluster."""


class UnauthorizedError(Denied):
    """The cluster refuses the request. The message gives its reason."""


class ValidationError(Invalid, ValueError):
    """A name or value cannot be stored."""


def get(name: str, *, workspace_id: str | None = None, config_name: str | None = None) -> str:
    """Return the value of a secret, exactly as it was stored. You can call this several times.

    In a task, the first call removes the variable from ``os.environ``, so that processes that are started later do not
    have it. On a laptop, a variable ``SECRET_<NAME>`` takes precedence over the cluster, unless ``config_name`` is
    given. Reading from the cluster needs the operator, and an Event there records who has read which secret. The
    personal binding is searched first, then the shared bindings in config.toml, in their order.

    :raises NotFoundError: there is no secret with this name; in a task: the run does not give it to this task.
    :raises ConfigNameNotFoundError: on a laptop: there is no such configuration, or no default configuration.
    :raises ConfigFileNotFoundError: on a laptop: there is no file that could have the configuration.
    :raises UnauthorizedError: the cluster refuses the request.
    """
    _check(name)
    known = environment.task()
    local = environment.is_local()
    if not local or config_name is None or (known is not None and name in known.secrets):
        found = environment.secret(name)
        if found is not None:
            return found
    if not local or (known is not None and config_name is None):
        raise NotFoundError(_not_given(name, known))
    return _from_cluster(name, workspace_id, config_name)


def list(*, workspace_id: str | None = None, config_name: str | None = None) -> Sequence[str]:  # noqa: A001
    """Return sorted names, never values: in a task, of the task's secrets; on a laptop, of your own secrets.

    Raises the same errors as `get`, except NotFoundError.
    """
    if environment.task() is not None and (config_name is None or not environment.is_local()):
        return environment.names()
    with _vault(workspace_id, config_name) as vault:
        return [item.name for item in vault.items()]


def list_shared() -> Sequence[str]:
    """Return sorted names of the secrets in the default configuration's shared bindings. In a task there are none."""
    from runkeys.client.binding_secrets import BindingSecrets

    if not environment.is_local() or environment.task() is not None:
        return []
    with _our_errors():
        found = config.resolve()
        client = found.client()
        return sorted(item.name for name in found.bindings for item in BindingSecrets(client, name).items())


def set(  # noqa: A001
    name: str, value: str, *, workspace_id: str | None = None, config_name: str | None = None
) -> None:
    """Store one of your own secrets in the cluster, and replace an earlier value. It is sealed before it is sent.

    In a pod, this stores a secret of the pod's service account, which needs rights for it. A task cannot change the
    secrets of the user that it runs for.

    :raises ValidationError: the name is empty or too long, or the value is not a str or not valid Unicode.
    :raises UnauthorizedError: the cluster refuses the request, or its public key is not the trusted one.
    """
    _check(name)
    if not isinstance(value, str):
        raise ValidationError(f"the value of secret {name!r} must be a str, not {type(value).__name__}")
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        encoded = None
    if encoded is None:
        raise ValidationError(f"the value of secret {name!r} is not text that UTF-8 can encode")
    with _vault(workspace_id, config_name) as vault:
        vault.set(name, encoded)


def delete(name: str, *, workspace_id: str | None = None, config_name: str | None = None) -> None:
    """Delete one of your own secrets from the cluster. In a pod, the same holds as for `set`.

    :raises NotFoundError: there is no secret with this name.
    :raises UnauthorizedError: the cluster refuses the request.
    """
    _check(name)
    with _vault(workspace_id, config_name) as vault:
        vault.delete(name)


async def get_async(name: str, *, workspace_id: str | None = None, config_name: str | None = None) -> str:
    """`get` without blocking."""
    return await in_thread(get, name, workspace_id=workspace_id, config_name=config_name)


async def list_async(*, workspace_id: str | None = None, config_name: str | None = None) -> Sequence[str]:
    """`list` without blocking."""
    return await in_thread(list, workspace_id=workspace_id, config_name=config_name)


async def set_async(
    name: str, value: str, *, workspace_id: str | None = None, config_name: str | None = None
) -> None:
    """`set` without blocking."""
    await in_thread(set, name, value, workspace_id=workspace_id, config_name=config_name)


async def delete_async(name: str, *, workspace_id: str | None = None, config_name: str | None = None) -> None:
    """`delete` without blocking."""
    await in_thread(delete, name, workspace_id=workspace_id, config_name=config_name)


def _check(name: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= 253:
        raise ValidationError("the name of a secret is a str of 1 to 253 characters")


def _from_cluster(name: str, workspace_id: str | None, config_name: str | None) -> str:
    from runkeys.client.binding_secrets import BindingSecrets

    with _our_errors():
        found = config.resolve(config_name)
        client = found.client(workspace_id)
        for binding in (None, *found.bindings):
            try:
                raw = BindingSecrets(client, binding).get(name)
            except NotFound:
                continue
            try:
                return raw.decode()
            except UnicodeDecodeError:
                pass
            raise ValidationError(f"secret {name!r} is not UTF-8 text; `runkeys secret get` prints its bytes")
        places = ", ".join(["your personal binding", *(f"SecretBinding {item}" for item in found.bindings)])
        raise NotFoundError(f"there is no secret {name!r} in {places} in namespace {client.namespace}")


def _not_given(name: str, known: environment.Task | None) -> str:
    """Return why a task does not have a secret, which secrets it has, and the line that would add it."""
    if known is None:
        return (
            f"this pod did not get a secret {name!r} (variable {secret_variable(name)}); a pod has no other"
            " source of secrets"
        )
    if name in known.secrets:
        return (
            f"task {known.name} got secret {name!r} as {known.secrets[name]}, but another process has already"
            " taken it; read it there and pass it on"
        )
    has = ", ".join(sorted(known.secrets)) or "none"
    return (
        f"task {known.name} did not get a secret {name!r}; it has: {has}. Add this line under secrets of task"
        f" {known.name}: - {{name: {_yaml(name)}, secret: {_yaml(name)}}}"
    )


def _yaml(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) else json.dumps(name)


@contextmanager
def _vault(workspace_id: str | None, config_name: str | None) -> Iterator[BindingSecrets]:
    """Yield the user's own secrets. Errors inside are raised as errors of this module."""
    from runkeys.client.binding_secrets import BindingSecrets

    with _our_errors():
        local = environment.is_local()
        yield BindingSecrets(
            config.resolve(config_name).client(workspace_id) if local else config.of_pod().client()
        )


@contextmanager
def _our_errors() -> Iterator[None]:
    ours: dict[type[Problem], type[Problem]] = {
        Denied: UnauthorizedError,
        NotFound: NotFoundError,
        Invalid: ValidationError,
    }
    try:
        yield
    except Problem as error:
        kind = ours.get(type(error))
        if kind is None and isinstance(error, Denied) and not isinstance(error, UnauthorizedError):
            kind = UnauthorizedError
        if kind is None:
            raise
        raise kind(str(error)) from None
