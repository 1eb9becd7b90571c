"""The mixed load: what its entries work with, and how all of them go on at once."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from testing.cluster.base import ClusterError, wait_until
from testing.cluster.client import ApiError, Object
from testing.cluster.node import NodeCluster
from testing.cluster.proxy import ApiProxy
from testing.namespace import Team, condition, phase, python

from .canaries import Canary, Mint
from .places import inside

SECONDS = 240
"""For a run of the load, with all the others at its side."""


class Stage(StrEnum):
    """Which operator an entry meets."""

    CALM = "calm"
    FAULTY = "faulty"
    """Behind a proxy that has faults for it."""
    KILLED = "killed"
    """Behind a proxy that kills it."""
    SEALED = "sealed"
    """It delivers sealed, too."""
    LEASED = "leased"
    """It has a store that creates credentials, and delivers sealed, too."""


@dataclass
class Scene:
    """What an entry works with: a team, and objects that are named after the entry."""

    name: str
    team: Team
    node: NodeCluster
    mint: Mint
    proxy: ApiProxy | None = None
    others: tuple[str, ...] = ()
    """Further namespaces that the operator serves, for entries that need one to themselves."""
    told: list[tuple[str, str]] = field(default_factory=list, repr=False)
    """What people were answered, and whom."""

    def canary(self, *, awkward: bool = False, **kind: bool) -> Canary:
        """A value of this entry's; ``kind`` as in Canary."""
        return (self.mint.awkward if awkward else self.mint.plain)(self.name, **kind)

    def given(self, **kind: bool) -> Canary:
        """A value in a source Secret and a binding, that the run of this entry is to have."""
        canary = self.canary(source=True, handed=True, **kind)
        self.bind(canary.text)
        return canary

    def bind(self, value: str | bytes, key: str = "token", **spec: Any) -> None:
        """A source that holds the value, and a binding that offers it as ``token``."""
        data = value.encode() if isinstance(value, str) else value
        self.team.client.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": self.name, "namespace": self.team.namespace},
                "data": {key: base64.b64encode(data).decode()},
            }
        )
        entry = {"name": "token", "secretKeyRef": {"name": self.name, "key": "token"}}
        self.team.make_binding(self.name, **{"secrets": [entry], **spec})

    def submit(self, **spec: Any) -> Object:
        """A run of this entry's binding."""
        return self.team.make_run(self.name, **{"bindings": [{"name": self.name}], **spec})

    def refused(self, call: Callable[[], object], *says: str) -> None:
        """The call is refused, with these words; the answer is searched later, like everything."""
        try:
            call()
        except (ApiError, ClusterError) as error:
            text = f"{error} {getattr(error, 'body', '')}"
        else:
            raise AssertionError(f"{self.name}: it was not refused")
        self.told.append((self.name, text))
        missing = [words for words in says if words not in text]
        assert not missing, f"{self.name}: the answer lacks {missing}"

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """What kubectl printed, kept for the search."""
        printed = self.team.cluster.kubectl("-n", self.team.namespace, *arguments, **options)
        self.told.append((self.name, printed))
        return printed

    # what is waited for

    def ends(self, wanted: str, reason: str = "", name: str = "") -> Object:
        """Wait for the end of the run: a phase, and the reason of its first task if one is given."""
        found = self.team.wait_phase(name or self.name, "Succeeded", "Failed", "Cancelled", timeout=SECONDS)
        told = found["status"]["tasks"][0].get("reason", "")
        assert phase(found) == wanted, found["status"]
        assert not reason or told == reason, found["status"]
        assert condition(found, "SecretsReleased")["status"] == "True", found["status"]
        return found

    def stalls(self, reason: str, name: str = "") -> Object:
        """Wait until the run says that it cannot go on, and why."""
        return self.team.wait_condition(name or self.name, "Stalled", reason=reason, timeout=SECONDS)

    def volumes_gone(self, found: Object) -> None:
        """Wait until the kubelet has taken away what it mounted for the run's pod."""
        uid = self.team.pod(found)["metadata"]["uid"]
        below = inside(self.node, self.node.paths / "kubelet" / "pods" / uid / "volumes")
        wait_until(
            f"{self.name}: the volumes to go",
            lambda: (
                not any(any(below.glob(f"kubernetes.io~{kind}/*/*")) for kind in ("projected", "empty-dir"))
            ),
        )


Play = Callable[[Scene], Iterator[None]]
"""An entry: what it begins, ``yield``, what it waits for; after a second ``yield`` what comes after the search."""


@dataclass(frozen=True)
class Entry:
    """One part of the load.

    :ivar base: taken by each sample, since every search needs it.
    """

    name: str
    play: Play
    stage: Stage = Stage.CALM
    base: bool = False


ENTRIES: list[Entry] = []


def entry(stage: Stage = Stage.CALM, *, base: bool = False) -> Callable[[Play], Play]:
    """Make a function an entry of the load; objects are named after it."""

    def add(play: Play) -> Play:
        ENTRIES.append(Entry(play.__name__.replace("_", "-"), play, stage, base))
        return play

    return add


def play_all(scenes: list[tuple[Entry, Scene]]) -> Callable[[], None]:
    """Begin all entries, then wait for all of them. Returns what plays the rest, to be called after the search."""
    plays = [(entry, entry.play(scene)) for entry, scene in scenes]

    def go_on() -> None:
        for entry, going in plays:
            try:
                next(going, None)
            except Exception as error:
                raise AssertionError(f"entry {entry.name}: {error}") from error

    go_on()
    go_on()
    return go_on


# what tasks do with their value: they say that it is right by ending well, and print nothing of it


def takes_variable(value: str, name: str = "SECRET_API_TOKEN", then: str = "") -> list[str]:
    """A command that fails unless the variable holds the value."""
    return python(f"{_imports}\n{_compare(f'os.environb[{name.encode()!r}]', value)}\n{then}")


def takes_file(value: str, name: str, then: str = "") -> list[str]:
    """A command that fails unless the file holds the value."""
    return python(
        f"{_imports}\n{_compare(f'''open('/var/runtime/secrets/{name}', 'rb').read()''', value)}\n{then}"
    )


_imports = "import hashlib, os, sys, time"
UNTIL_TOLD = "while not os.path.exists('/tmp/finish'): time.sleep(0.05)"
_SALT = "the hash alone would be searched for, too: "


def _compare(expression: str, value: str) -> str:
    digest = hashlib.sha256((_SALT + value).encode()).hexdigest()
    return f"assert hashlib.sha256({_SALT!r}.encode() + {expression}).hexdigest() == {digest!r}"
