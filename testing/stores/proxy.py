"""A proxy between the operator and a store, which numbers every request and can inject any fault."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from testing.cluster.client import Object
from testing.cluster.proxy import ApiProxy
from testing.stores.openbao import OpenBao, store


@dataclass(frozen=True)
class _Store:
    server: str
    ca_file: Path | None


class StoreProxy(ApiProxy):
    """It shows the certificate of the store itself, so that whoever trusts the one trusts the other."""

    def __init__(self, bao: OpenBao) -> None:
        super().__init__(_Store(bao.address, bao.ca_file))
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain(bao.folder / "tls.crt", bao.folder / "tls.key")
        self._bao = bao

    def store(self, name: str) -> Object:
        """A SecretStore of which every request goes this way."""
        made = store(self._bao, name)
        made["spec"]["vault"]["address"] = self.url
        return made
