"""The public keys that a user trusts, for each cluster.

A person who can swap the public key of a cluster can read what is sealed after that. So the first key of a cluster is
stored, and another one is refused until the user has compared its fingerprint with the one of an administrator.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runkeys._text.words import shell
from runkeys.config import config_folder
from runkeys.problems import Denied, Invalid

if TYPE_CHECKING:
    from runkeys.sealing import PublicKey


class TrustedKeys:
    """The fingerprints, by the address of the cluster's API server."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_folder() / "trusted-keys.json"

    def of(self, cluster: str) -> list[str]:
        """Fingerprints of a cluster, the one that was trusted last at the end."""
        return self.all().get(cluster, [])

    def all(self) -> dict[str, list[str]]:
        """All trusted keys."""
        try:
            found = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            found = None
        if not isinstance(found, dict) or not all(isinstance(item, list) for item in found.values()):
            raise Invalid(f"{self.path} cannot be read, so no key is trusted; correct it, or move it away")
        return {str(cluster): [str(item) for item in listed] for cluster, listed in found.items()}

    def check(self, cluster: str, key: PublicKey) -> bool:
        """Whether the key is trusted; the first one of a cluster is from now on.

        :return: False if it is trusted because it is the first one.
        :raises Denied: if it is another one than before.
        """
        known = self.of(cluster)
        if key.fingerprint in known:
            return True
        if known:
            raise Denied(
                f"the public key of {cluster} is not one that you have trusted before. Nothing was sealed.\n"
                f"  trusted: {known[-1]}\n"
                f"  found:   {key.fingerprint}\n"
                "Either the cluster has a new key (it gets one every month), or it is another cluster at the same"
                " address, or somebody has replaced the key to read what you seal. Ask an administrator of the"
                " cluster what `python -m runkeys_operator keys list` prints in the operator's pod. If the"
                " fingerprint is the same:\n"
                f"  {shell('runkeys', 'config', 'trust-key', key.fingerprint)}"
            )
        self.trust(cluster, key)
        return False

    def trust(self, cluster: str, key: PublicKey) -> None:
        """Write the key down."""
        found = self.all()
        found[cluster] = [item for item in found.get(cluster, []) if item != key.fingerprint]
        found[cluster].append(key.fingerprint)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(found, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step, so that nobody ever sees half of it; its mode stays."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", newline="") as file:
            file.write(text)
        if path.exists():
            Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
