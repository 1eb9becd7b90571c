"""Where the API server is and who the operator is there: a pod's service account, or a kubeconfig file.

Tokens, token files and client certificates are read here: importing the `kubernetes`
library for them would cost a quarter of the operator's memory. That library still runs
the exec plugins of cloud providers. What neither supports is refused, never ignored.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from runkeys_operator.errors import LoginError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_UNSUPPORTED = {
    "cluster": {"tls-server-name"},
    "user": {"as", "as-uid", "as-groups", "as-user-extra", "auth-provider", "username", "password"},
}


@dataclass(frozen=True)
class Access:
    """Access from a service account or a kubeconfig file. `token` reads the token anew; None: by certificate."""

    server: str
    tls: ssl.SSLContext | None = None
    token: Callable[[], Awaitable[str]] | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)


def find(kubeconfig: str | None, context: str | None) -> Callable[[], Access]:
    """The source of access: the requested one, else the pod's own account, else kubectl's default.

    Raises LoginError if there is none.
    """
    if kubeconfig or context:
        return partial(load, paths(kubeconfig), context)
    if "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists():
        return in_cluster
    if found := paths(None):
        return partial(load, found, None)
    raise LoginError("no cluster: run this in a pod with a service account, or give --kubeconfig")


def in_cluster(directory: Path = SERVICE_ACCOUNT) -> Access:
    """The access of a pod, by the service account mounted in `directory`."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    try:
        tls = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    except OSError as error:
        raise LoginError(f"{directory / 'ca.crt'}: {error.strerror or error}") from None
    return Access(f"https://{host}:{port}", tls, partial(read_token, directory / "token"))


async def read_token(path: Path) -> str:
    """The token in a file, without the newline that editors and `kubectl create token >` leave."""
    try:
        return path.read_text("ascii").strip()  # noqa: ASYNC240 -- a few bytes, in a pod from memory
    except (OSError, UnicodeDecodeError) as error:
        raise LoginError(f"{path}: {error if isinstance(error, OSError) else 'not a token'}") from None


def paths(given: str | None) -> list[Path]:
    """The files to read: the `given` one, else $KUBECONFIG (several), else ~/.kube/config if it exists."""
    if given:
        return [Path(given).expanduser()]
    if listed := os.environ.get("KUBECONFIG"):
        return [Path(path).expanduser() for path in listed.split(os.pathsep) if path]
    default = Path("~/.kube/config").expanduser()
    return [default] if default.exists() else []


def load(files: Sequence[Path], context: str | None) -> Access:
    """The access that `context` (None: the current one) gives. Raises LoginError."""
    merged = _merge(files)
    name = context or merged.current
    if not name:
        raise LoginError(f"{merged}: there is no current-context; give --context")
    chosen = merged.entry("context", name)
    cluster = merged.entry("cluster", str(chosen.get("cluster", "")))
    user = merged.entry("user", str(chosen["user"])) if chosen.get("user") else {}
    if not cluster.get("server"):
        raise LoginError(f"{merged}: the cluster of context {name!r} has no server")
    token: Callable[[], Awaitable[str]] | None = None
    if user.get("tokenFile"):
        token = partial(read_token, Path(user["tokenFile"]))
    elif user.get("token"):
        token = partial(_constant, str(user["token"]))
    elif user.get("exec"):
        token = _exec_plugin(files, name)
    tls = _tls(cluster, user) if str(cluster["server"]).startswith("https:") else None
    return Access(str(cluster["server"]), tls, token, cluster.get("proxy-url"))


class _Merged:
    """The entries of all files by kind and name; of two with one name the first counts, as for kubectl."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.current: str | None = None
        self._files = files
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}

    def __str__(self) -> str:
        return os.pathsep.join(map(str, self._files))

    def add(self, file: Path, content: dict[str, Any]) -> None:
        self.current = self.current or content.get("current-context")
        for kind in ("context", "cluster", "user"):
            for item in content.get(f"{kind}s") or []:
                entry = dict(item.get(kind) or {})
                for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
                    if entry.get(key):
                        entry[key] = str(file.parent / entry[key])
                self._entries.setdefault((kind, str(item.get("name"))), entry)

    def entry(self, kind: str, name: str) -> dict[str, Any]:
        if (kind, name) not in self._entries:
            known = ", ".join(n for k, n in self._entries if k == kind)
            raise LoginError(f"{self}: there is no {kind} {name!r} (there is: {known or 'none'})")
        entry = self._entries[kind, name]
        if refused := sorted(_UNSUPPORTED.get(kind, set()) & entry.keys()):
            raise LoginError(
                f"{self}: {kind} {name!r} uses {', '.join(refused)}, which is not supported here"
            )
        return entry


def _merge(files: Sequence[Path]) -> _Merged:
    import yaml

    merged = _Merged(files)
    for file in files:
        try:
            content = yaml.safe_load(file.read_text("utf-8"))
        except OSError as error:
            raise LoginError(f"{file}: {error.strerror or error}") from None
        except (yaml.YAMLError, UnicodeDecodeError):
            # The parser's own message quotes the line, which may hold a token.
            raise LoginError(f"{file}: not a YAML file") from None
        if isinstance(content, dict):
            merged.add(file, content)
    return merged


async def _constant(token: str) -> str:
    return token


def _exec_plugin(files: Sequence[Path], context: str) -> Callable[[], Awaitable[str]]:
    try:
        from kubernetes import client, config
    except ImportError:
        raise LoginError(
            f"context {context!r} uses an exec plugin: that needs `pip install kubernetes`"
        ) from None
    settings = client.Configuration()
    loaded = False

    def token() -> str:
        nonlocal loaded
        try:
            if not loaded:
                config.load_kube_config(  # type: ignore[no-untyped-call]
                    os.pathsep.join(map(str, files)), context, settings, persist_config=False
                )
                loaded = True
            header = settings.get_api_key_with_prefix("BearerToken")  # runs the plugin when it expired
        except config.ConfigException as error:
            raise LoginError(f"context {context!r}: {error}") from None
        if not header:
            raise LoginError(f"context {context!r}: the exec plugin gave no token")
        return str(header).removeprefix("Bearer ")

    async def in_thread() -> str:
        return await asyncio.to_thread(token)

    return in_thread


def _tls(cluster: dict[str, Any], user: dict[str, Any]) -> ssl.SSLContext:
    try:
        ca = _decoded(cluster, "certificate-authority-data")
        tls = ssl.create_default_context(
            cafile=None if ca else cluster.get("certificate-authority"),
            cadata=ca.decode("ascii") if ca else None,
        )
        if cluster.get("insecure-skip-tls-verify"):
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        with _file(user, "client-certificate") as certificate, _file(user, "client-key") as key:
            if certificate:
                tls.load_cert_chain(certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise LoginError(f"the certificates of {cluster['server']} cannot be read: {error}") from None
    return tls


def _decoded(entry: dict[str, Any], key: str) -> bytes | None:
    return base64.b64decode(entry[key], validate=True) if entry.get(key) else None


@contextlib.contextmanager
def _file(entry: dict[str, Any], key: str) -> Iterator[str | None]:
    """The path of a certificate or key: inline data in a file of our own that is gone again at once."""
    if (data := _decoded(entry, f"{key}-data")) is None:
        yield entry.get(key)
        return
    with tempfile.NamedTemporaryFile() as file:  # mode 0600
        file.write(data)
        file.flush()
        yield file.name
