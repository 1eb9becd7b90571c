"""Runs with a lease: what a store creates for them, and the tokens by which it is asked, are where values may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from testing.namespace import python
from testing.stores.leases import LeaseTeam, is_released, leases_of
from testing.stores.teams import ACCOUNT

from .load import SECONDS, UNTIL_TOLD, Scene, Stage, entry

Play = Iterator[None]
_HAS_ONE = "import os, time\nassert len(os.environ['SECRET_API_TOKEN']) > 20\n"


def _submit(scene: Scene, delivery: str, then: str = "") -> LeaseTeam:
    """A run of a binding of its own, which is given a user of the database and the password."""
    team = cast(LeaseTeam, scene.team)
    team.make_lease_binding(scene.name, delivery=delivery)
    scene.submit(serviceAccountName=ACCOUNT, command=python(_HAS_ONE + then))
    return team


def _look_for(scene: Scene, team: LeaseTeam, **kind: bool) -> None:
    """Have the search look for what the store created for the run, and for both tokens of its login."""
    leases = leases_of(team.run(scene.name))
    ids = {name for lease in leases for name in lease["ids"]}
    passwords = [made.password for made in team.credentials() if made.lease in ids]
    accessors = {lease["accessor"] for lease in leases}
    logins = [
        item
        for item in team.bao.audited("response")
        if ((item.get("response") or {}).get("auth") or {}).get("accessor") in accessors
        and item["request"]["path"] == "auth/jwt/login"
    ]
    assert len(passwords) == len(logins) == 1
    scene.mint.found(scene.name, passwords[0], **kind)
    scene.mint.found(f"{scene.name}-login", logins[0]["response"]["auth"]["client_token"])
    scene.mint.found(f"{scene.name}-jwt", logins[0]["request"]["data"]["jwt"], token=True)


@entry(Stage.LEASED, base=True)
def leased_sealed(scene: Scene) -> Play:
    """Goes on during the search, with its lease open."""
    team = _submit(scene, "Sealed", UNTIL_TOLD)
    yield
    team.wait_running(team.run(scene.name))
    _look_for(scene, team, delivered=True, live=True)
    yield
    team.tell_to_finish(team.run(scene.name))
    scene.ends("Succeeded")
    team.wait_run(scene.name, is_released, SECONDS)


@entry(Stage.LEASED, base=True)
def leased_in_a_secret(scene: Scene) -> Play:
    """Is over, and its lease revoked."""
    team = _submit(scene, "Secret")
    yield
    scene.ends("Succeeded")
    team.wait_run(scene.name, is_released, SECONDS)
    _look_for(scene, team, handed=True)
