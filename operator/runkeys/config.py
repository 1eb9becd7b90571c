"""Which cluster and namespace a call uses: a name in config.toml, or a context of the kubeconfig.

``config.toml`` is in the user's configuration folder, which ``runkeys config show`` prints. The file is optional::

    default = "lab"

    [configs.lab]
    context = "lab-admin"            # of the kubeconfig; default: the name of the config
    namespace = "team-a"             # default: the context's namespace
    kubeconfig = "~/.kube/lab.yaml"  # default: as for kubectl
    operator_namespace = "keys"      # default: $RUNKEYS_OPERATOR_NAMESPACE, else runkeys-system
    bindings = ["team-keys"]         # shared bindings that `get` searches after your personal binding
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runkeys.problems import Denied, Invalid, NotFound, Unreachable

if TYPE_CHECKING:
    from runkeys.client import Client

_POD_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ConfigNameNotFoundError(NotFound):
    """No configuration has this name, or no name was given and there is no default."""


class ConfigFileNotFoundError(NotFound):
    """There is neither a config.toml nor a kubeconfig that could have this name."""


@dataclass(frozen=True)
class Config:
    """How to connect to a cluster.

    :ivar context: context of the kubeconfig; None: the service account of this pod.
    :ivar bindings: names of shared bindings.
    """

    name: str
    context: str | None = None
    namespace: str | None = None
    kubeconfig: str | None = None
    operator_namespace: str = field(
        default_factory=lambda: os.environ.get("RUNKEYS_OPERATOR_NAMESPACE") or "runkeys-system"
    )
    bindings: tuple[str, ...] = ()

    def client(self, namespace: str | None = None) -> Client:
        """Return a client for this cluster. Raises Unreachable if the library ``kubernetes`` is missing."""
        from runkeys.client import Client

        kubeconfig = None if self.kubeconfig is None else str(Path(self.kubeconfig).expanduser())
        return Client(
            namespace or self.namespace,
            context=self.context,
            kubeconfig=kubeconfig,
            operator_namespace=self.operator_namespace,
        )


def config_folder() -> Path:
    """Return the user's configuration folder: $RUNKEYS_CONFIG_DIR, else the operating system's default."""
    import platformdirs

    return Path(os.environ.get("RUNKEYS_CONFIG_DIR") or platformdirs.user_config_dir("runkeys"))


def config_file() -> Path:
    """Return the path of config.toml, whether or not the file exists."""
    return config_folder() / "config.toml"


def resolve(name: str | None = None) -> Config:
    """Find a configuration by name, or the default configuration.

    The default is ``default`` in config.toml, else the current context of the kubeconfig.

    :raises ConfigNameNotFoundError: no configuration has this name; or no name was given, and there is no default.
    :raises ConfigFileNotFoundError: a name was given, and there is no file that could have it.
    :raises Invalid: config.toml is not valid.
    """
    path = config_file()
    own = _read(path)
    contexts, current = _contexts()
    if name is None:
        name = own["default"] if own is not None else None
        name = name or current
    if name is None:
        raise ConfigNameNotFoundError(
            'no config_name was given, and there is no default: write `default = "…"` into'
            f" {path}, or choose a context with `kubectl config use-context`"
        )
    if own is not None and name in own["configs"]:
        found: Config = own["configs"][name]
        return found
    if name in contexts:
        return Config(name, context=name)
    if own is None and not contexts:
        raise ConfigFileNotFoundError(
            f"config_name {name!r} cannot be found: there is neither {path} nor a kubeconfig with contexts"
        )
    known = sorted({*contexts, *(own["configs"] if own is not None else ())})
    raise ConfigNameNotFoundError(
        f"there is no configuration {name!r}; there are: {', '.join(known) or 'none'}"
    )


def of_pod() -> Config:
    """Return the configuration for this pod's own cluster, with the rights of its service account.

    :raises Denied: the pod has no token of its service account.
    """
    if not _POD_ACCOUNT.exists():
        raise Denied(
            "this pod has no token of its service account, so it cannot talk to the cluster: set"
            " automountServiceAccountToken: true in the task's template.spec, and give that account the right"
        )
    return Config("the cluster of this pod")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} cannot be read: {error}") from None
    default, tables = found.pop("default", None), found.pop("configs", {})
    if found or not isinstance(default, str | None) or not isinstance(tables, dict):
        raise Invalid(
            f'{path}: expected default = "…" and tables [configs.NAME]; found {", ".join(found) or "others"}'
        )
    return {
        "default": default,
        "configs": {name: _config(path, name, table) for name, table in tables.items()},
    }


def _config(path: Path, name: str, table: Any) -> Config:
    where = f"{path}: configs.{name}"
    if not isinstance(table, dict):
        raise Invalid(f"{where} must be a table")
    known = {item.name for item in fields(Config)} - {"name"}
    unknown = sorted(set(table) - known)
    if unknown:
        raise Invalid(
            f"{where}: {', '.join(unknown)} is not known; the known keys are {', '.join(sorted(known))}"
        )
    for key, value in table.items():
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (good if key == "bindings" else isinstance(value, str) and value):
            raise Invalid(f"{where}.{key} must be {'a list of strings' if key == 'bindings' else 'a string'}")
    return Config(name, **{"context": name, **table, "bindings": tuple(table.get("bindings", ()))})


def _contexts() -> tuple[list[str], str | None]:
    """Return the names of the kubeconfig's contexts and the current context; empty if there is no kubeconfig."""
    places = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if not any(Path(place).is_file() for place in places.split(os.pathsep) if place):
        return [], None
    try:
        from kubernetes import config
    except ImportError:
        raise Unreachable(
            "the library `kubernetes` is missing; install it: pip install 'runkeys[cli]'"
        ) from None
    try:
        contexts, current = config.list_kube_config_contexts(places)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        # No current context, or no contexts at all: the library raises for either.
        merged = config.kube_config.KubeConfigMerger(places).config  # type: ignore[no-untyped-call]
        listed = (merged.value if merged is not None else {}).get("contexts") or []
        return [str(item["name"]) for item in listed], None
    return [str(item["name"]) for item in contexts], str(current["name"]) if current else None
