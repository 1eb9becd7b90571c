"""Which cluster and namespace a call uses: a name in config.toml, or a context of the kubeconfig.

``config.toml`` is in the user's configuration folder, which ``runkeys config show`` prints. The file is optional::

    default = "lab"

    [configs.lab]
    context = "lab-admin"            # of the kubeconfig; default: the name of the config
    namespace = "team-a"             # default: the context's namespace
    kubeconfig = "~/.kube/lab.yaml"  # default: as for kubectl
    operator_namespace = "keys"      # default: $RUNKEYS_OPERATOR_NAMESPACE, else runkeys-system
    bindings = ["team-keys"]         # shared bindings that `get` searches after your personal binding

The command line, ``runkeys.secrets``, ``runkeys.kv`` and ``Client()`` choose alike: the name that is given, else
``default`` in config.toml, else the kubeconfig's current context, else the cluster of the pod. A kubeconfig that is
given (``--kubeconfig``) has its own contexts, and config.toml does not count.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runkeys._text.text_files import decode
from runkeys.names import OPERATOR_NAMESPACE
from runkeys.problems import Denied, Invalid, NotFound, Unreachable

if TYPE_CHECKING:
    from runkeys.client import Client

_POD_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


MISSING_LIBRARY = "the library `kubernetes` is missing; install it: pip install 'runkeys[cli]'"


class ConfigNameNotFoundError(NotFound):
    """No configuration has this name, or no name was given and there is no default."""


class ConfigFileNotFoundError(NotFound):
    """There is neither a config.toml nor a kubeconfig that could have this name."""


@dataclass(frozen=True)
class Config:
    """How to connect to a cluster.

    :ivar context: context of the kubeconfig; None: the service account of this pod.
    :ivar bindings: names of shared bindings.
    :ivar source: where it was found, in words.
    """

    name: str
    context: str | None = None
    namespace: str | None = None
    kubeconfig: str | None = None
    operator_namespace: str = field(
        default_factory=lambda: os.environ.get("RUNKEYS_OPERATOR_NAMESPACE") or OPERATOR_NAMESPACE
    )
    bindings: tuple[str, ...] = ()
    source: str = field(default="", compare=False)

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


@dataclass(frozen=True)
class Kubeconfig:
    """What the files of a kubeconfig say about contexts.

    :ivar paths: the files that were looked for, as KUBECONFIG has them.
    :ivar files: those that there are.
    :ivar contexts: the namespace of each context; None if it has none.
    :ivar current: the current context. As for kubectl, the first file that has one counts.
    """

    paths: str
    files: tuple[str, ...]
    contexts: dict[str, str | None]
    current: str | None


def read_kubeconfig(kubeconfig: str | None = None) -> Kubeconfig:
    """Read the contexts of a kubeconfig. Default: as for kubectl. Files that do not exist are left out.

    :raises Invalid: a file is no kubeconfig.
    """
    paths = kubeconfig or os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    files = [
        str(Path(item).expanduser())
        for item in paths.split(os.pathsep)
        if item and Path(item).expanduser().exists()
    ]
    contexts: dict[str, str | None] = {}
    current = ""
    for file in files:
        document = _kubeconfig_document(file)
        current = current or str(document.get("current-context") or "")
        for item in document.get("contexts") or []:
            inner = item.get("context") or {}
            contexts.setdefault(str(item["name"]), inner.get("namespace"))
    return Kubeconfig(paths, tuple(files), contexts, current or None)


def _kubeconfig_document(file: str) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise Unreachable(MISSING_LIBRARY) from None
    # What the parser makes of texts that are none: `!!int` alone is an IndexError.
    no_yaml = (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    )
    try:
        document = yaml.safe_load(decode(Path(file).read_bytes()))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except no_yaml as error:
        mark = getattr(error, "problem_mark", None)
        problem = (
            f"this is not a kubeconfig, since it is not YAML{f' (line {mark.line + 1})' if mark else ''}"
        )
    else:
        listed = document.get("contexts") or [] if isinstance(document, dict) else None
        if isinstance(listed, list) and all(_is_context(item) for item in listed):
            return dict(document)
        problem = "this is not a kubeconfig: it needs a list of contexts, each with a name"
    # Outside of `except`: the parser's error quotes a line, which may hold a token.
    raise Invalid(f"{file}: {problem}")


def _is_context(item: Any) -> bool:
    return isinstance(item, dict) and "name" in item and isinstance(item.get("context"), dict | None)


def in_pod() -> bool:
    """Return whether this is a pod with a service account and without a kubeconfig."""
    default = Path.home() / ".kube" / "config"
    return not os.environ.get("KUBECONFIG") and not default.exists() and _POD_ACCOUNT.exists()


def choose(name: str | None = None, kubeconfig: str | None = None) -> Config:
    """Return the configuration that a call uses, by the one rule for command line and SDK.

    :param name: a name in config.toml or a context. Default: see the module.
    :param kubeconfig: a file, whose own contexts count.
    :raises NotFound: there is no configuration with this name.
    :raises Unreachable: nothing says which cluster.
    :raises Invalid: a file is not valid.
    """
    chosen = named(name, kubeconfig)
    if chosen is not None:
        return chosen
    if in_pod():
        return Config("", source="the service account of this pod")
    found = read_kubeconfig()
    if not found.files:
        raise Unreachable(
            f"there is no kubeconfig: {found.paths} does not exist. Give one with --kubeconfig or in KUBECONFIG"
        )
    if found.current is None:
        there = ", ".join(sorted(found.contexts)) or "none"
        raise Unreachable(
            f"{found.paths} has no current context; choose one with --context; there are: {there}"
        )
    return Config(found.current, context=found.current, source=f"current context of {found.paths}")


def named(name: str | None = None, kubeconfig: str | None = None) -> Config | None:
    """Return the configuration that a name, a file or ``default`` in config.toml gives; None if there is none of them.

    Raises the same errors as `choose`.
    """
    if kubeconfig is not None:
        return Config(name or "", context=name, kubeconfig=kubeconfig, source=f"kubeconfig {kubeconfig}")
    own = _read(config_file())
    return resolve(name) if name is not None or (own is not None and own["default"] is not None) else None


def resolve(name: str | None = None) -> Config:
    """Find a configuration by name, or the default configuration.

    The default is ``default`` in config.toml, else the current context of the kubeconfig.

    :raises ConfigNameNotFoundError: no configuration has this name; or no name was given, and there is no default.
    :raises ConfigFileNotFoundError: a name was given, and there is no file that could have it.
    :raises Invalid: config.toml or the kubeconfig is not valid.
    """
    path = config_file()
    own = _read(path)
    default = own["default"] if own is not None else None
    wanted = name or default
    if wanted is not None and own is not None and wanted in own["configs"]:
        found: Config = own["configs"][wanted]
        return found
    kubeconfig = read_kubeconfig()
    contexts = kubeconfig.contexts
    wanted = wanted or kubeconfig.current
    if wanted is None:
        raise ConfigNameNotFoundError(
            'no config_name was given, and there is no default: write `default = "…"` into'
            f" {path}, or choose a context with `kubectl config use-context`"
        )
    if wanted in contexts:
        by_default = f"default of {path}, a context" if name is None and default else "context"
        return Config(wanted, context=wanted, source=f"{by_default} of {kubeconfig.paths}")
    if own is None and not contexts:
        raise ConfigFileNotFoundError(
            f"config_name {wanted!r} cannot be found: there is neither {path} nor a kubeconfig with contexts"
        )
    known = sorted({*contexts, *(own["configs"] if own is not None else ())})
    raise ConfigNameNotFoundError(
        f"there is no configuration {wanted!r}; there are: {', '.join(known) or 'none'}"
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
        found = tomllib.loads(decode(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
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
    known = {item.name for item in fields(Config)} - {"name", "source"}
    unknown = sorted(set(table) - known)
    if unknown:
        raise Invalid(
            f"{where}: {', '.join(unknown)} is not known; the known keys are {', '.join(sorted(known))}"
        )
    for key, value in table.items():
        good = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not (good if key == "bindings" else isinstance(value, str) and value):
            raise Invalid(f"{where}.{key} must be {'a list of strings' if key == 'bindings' else 'a string'}")
    bindings = tuple(table.get("bindings", ()))
    return Config(
        name, **{"context": name, **table, "bindings": bindings, "source": f"configs.{name} of {path}"}
    )
