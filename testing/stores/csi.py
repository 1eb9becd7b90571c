"""Real providers of the Secrets Store CSI driver's protocol, on sockets, in the shapes of the clouds' own.

No cloud answers here. What stands for one checks each token with the cluster's public keys, as a cloud does with those
that it reads from the issuer, and gives an account only what it was allowed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testing.cluster.base import listens, wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import PATIENCE, KubeClient, Object
from testing.cluster.golang import build_module

SOURCE = Path(__file__).parent / "csi_provider"
EXAMPLES = CHECKOUT / "examples" / "cloud-stores"


@dataclass(frozen=True)
class Shape:
    """How the stores of a vendor are asked.

    :ivar parameters: of its SecretProviderClass. :ivar path: of the object that tests put into it, for a namespace.
    """

    name: str
    audience: str
    parameters: Mapping[str, str]
    path: str


def _of_example(cloud: str, path: str) -> Shape:
    """The shape of a cloud's example, whose parameters are those that tests ask with."""
    csi = yaml.safe_load((EXAMPLES / f"{cloud}-store.yaml").read_text())["spec"]["csi"]
    return Shape(csi["provider"], csi["audience"], csi["parameters"], path)


AWS = _of_example("aws", "prod/{}/api")
AZURE = _of_example("azure", "api-{}")
GOOGLE = _of_example("google", "projects/project-1/secrets/{}/versions/latest")
SHAPES = (AWS, AZURE, GOOGLE)


def program() -> Path:
    """The provider, built from Go if it is missing."""
    return build_module(SOURCE)


def keys_of(client: KubeClient) -> Object:
    """The public keys of a cluster, as its issuer publishes them."""
    reader = KubeClient(
        client.server, client.ca_file, headers={**client.headers, "accept": "application/jwk-set+json"}
    )
    found: Object = json.loads(reader.request("GET", "/openid/v1/jwks"))
    return found


class Clouds:
    """Providers that run beside an operator's process, and what stands for their clouds.

    :ivar folder: of their sockets, for ``--store-providers``.
    """

    def __init__(self, folder: Path, keys: Object) -> None:
        self.folder = folder
        self._keys = keys
        self._secrets: dict[str, str] = {}
        self._allowed: dict[str, list[str]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.trust()

    # what they serve

    def trust(self, keys: Object | None = None) -> None:
        """Check tokens with these keys; by default with those of the cluster."""
        self._trusted = self._keys if keys is None else keys
        self._write()

    def empty(self) -> None:
        """Take away all secrets."""
        self._secrets = {}
        self._write()

    def put(self, path: str, content: str) -> None:
        """Store a secret."""
        self._secrets[path] = content
        self._write()

    def allow(self, account: str, *paths: str) -> None:
        """Let an account read these, and no others."""
        self._allowed[account] = list(paths)
        self._write()

    def _write(self) -> None:
        state = {"keys": self._trusted, "secrets": self._secrets, "allowed": self._allowed}
        unfinished = self.folder / "state.new"
        unfinished.write_text(json.dumps(state))
        unfinished.rename(self.folder / "state.json")

    # their life

    def start(self, name: str, shape: str = "", audience: str = "") -> None:
        """Start a provider, and wait until it listens."""
        (self.folder / name).mkdir(exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [
                    str(program()),
                    f"-folder={self.folder / name}",
                    f"-name={name}",
                    f"-shape={shape or name}",
                    f"-state={self.folder / 'state.json'}",
                    f"-audience={audience}",
                    f"-record={self.folder / f'{name}.jsonl'}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        at = self.folder / name / f"{name}.sock"
        wait_until(f"provider {name} to listen", lambda: listens(at))

    def stop(self, name: str) -> None:
        """End one. Its socket goes with it."""
        process = self._running.pop(name)
        process.terminate()
        process.wait(PATIENCE)
        (self.folder / name / f"{name}.sock").unlink(missing_ok=True)

    def close(self) -> None:
        """End all."""
        for name in list(self._running):
            self.stop(name)

    # what they were asked

    def asked(self, name: str) -> list[Object]:
        """Every request to a provider, in order: account, pod, token, objects, error."""
        record = self.folder / f"{name}.jsonl"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    def tokens(self) -> set[str]:
        """Every token that came with a request."""
        found = {item["token"] for path in self.folder.glob("*.jsonl") for item in self.asked(path.stem)}
        return found - {""}


@contextmanager
def running(client: KubeClient, *shapes: Shape) -> Iterator[Clouds]:
    """Yield providers of these shapes, each under its own name. The folder's path is short: a socket's has a limit."""
    folder = Path(tempfile.mkdtemp(prefix="rk-csi-"))
    clouds = Clouds(folder, keys_of(client))
    try:
        for shape in shapes:
            clouds.start(shape.name, audience=shape.audience)
        yield clouds
    finally:
        clouds.close()
        shutil.rmtree(folder)


def store(name: str, shape: Shape, **changed: Any) -> Object:
    """A SecretStore for a provider. ``changed``: fields of ``spec.csi``, and ``namespaces``."""
    namespaces = changed.pop("namespaces", {})
    csi = {"provider": shape.name, "audience": shape.audience, "parameters": dict(shape.parameters)}
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "SecretStore",
        "metadata": {"name": name},
        "spec": {"csi": {**csi, **changed}, "namespaces": namespaces},
    }
