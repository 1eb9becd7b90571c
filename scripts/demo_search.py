"""Look for a value in all that etcd holds and ever held, in the forms that it may have there."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from testing.cluster.etcd import EtcdReader


@dataclass
class Found:
    """Where a value was and is.

    :ivar versions: how many versions of keys were searched.
    :ivar held: key -> revisions that wrote the value. :ivar deleted: key -> revision that removed the key.
    :ivar now: keys that hold the value now.
    """

    versions: int = 0
    held: dict[str, list[int]] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    now: set[str] = field(default_factory=set)


def forms(value: str) -> list[bytes]:
    """The value as it is, in hex, and in base64 wherever in a longer text it may begin."""
    raw = value.encode()
    shifted = []
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + raw)
        # The first and the last characters depend on what stands before and behind.
        shifted.append(text[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6])
    return [raw, raw.hex().encode(), *shifted]


def search(etcd: EtcdReader, value: str) -> Found:
    """Search every key at every revision. Raises OSError if etcd does not remember all of them."""
    needles, found = forms(value), Found()
    for stored in etcd.history():
        found.now.discard(stored.key)
        if stored.value is None:
            if stored.key in found.held:
                found.deleted[stored.key] = stored.revision
            continue
        found.versions += 1
        if any(needle in stored.value for needle in needles):
            found.held.setdefault(stored.key, []).append(stored.revision)
            found.now.add(stored.key)
    return found
