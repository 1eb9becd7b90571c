"""Pods that ask for secrets themselves: their values are in them, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from runkeys.sealing import PodParameter
from runkeys.sealing.parameter import seal_parameter
from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.namespace import python
from testing.people import may_use, public_key, sealed_entry
from tests.e2e.pods.conftest import ACCOUNT, asking, events_of, refusal, wait_ended

from .load import UNTIL_TOLD, Scene, Stage, entry, takes_file, takes_variable

Play = Iterator[None]


def _pod(scene: Scene, value: str, then: str = "", *, entry_name: str = "token") -> Object:
    """A pod with a binding of its own: it asks for a variable and a file."""
    team = scene.team
    offered = [sealed_entry(team, value, binding=scene.name)]
    team.make_binding(scene.name, secrets=offered, delivery="Sealed", access=[{"pods": {}}])
    may_use(team, f"system:serviceaccount:{team.namespace}:default", scene.name, f"use-{scene.name}")
    place = f"{scene.name}/{entry_name}"
    pod = asking(team, scene.name, asked=f"{place}=SECRET_API_TOKEN, {place}@token")
    code = takes_variable(value)[2] + takes_file(value, "token", then)[2]
    pod["spec"]["containers"][0]["command"] = python(code)
    return {**pod, "spec": {**pod["spec"], "serviceAccountName": "default"}}


def _ends_well(scene: Scene) -> None:
    found = wait_ended(scene.team, scene.name)
    assert found["status"]["phase"] == "Succeeded", found["status"]


@entry(Stage.SEALED, base=True)
def asked(scene: Scene) -> Play:
    """Goes on during the search."""
    value = scene.canary(delivered=True, live=True).text
    scene.team.client.create(_pod(scene, value, UNTIL_TOLD))
    yield
    scene.team.client.wait_for(
        "pods", scene.name, scene.team.namespace, lambda pod: pod["status"].get("phase") == "Running"
    )
    yield
    scene.team.tell_pod_to_finish(scene.name)
    _ends_well(scene)


@entry(Stage.SEALED)
def asked_and_over(scene: Scene) -> Play:
    value = scene.canary(delivered=True).text
    scene.team.client.create(_pod(scene, value))
    yield
    _ends_well(scene)


@entry(Stage.SEALED)
def brought_along(scene: Scene) -> Play:
    """As a sealed parameter, in a variable and a file; another one comes too late."""
    team, value, late = scene.team, scene.canary(delivered=True).text, scene.canary().text
    in_time, before = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
    place = PodParameter(team.namespace, ACCOUNT)
    text = seal_parameter(value.encode(), place, in_time, public_key(team))
    account = {"apiVersion": "v1", "kind": "ServiceAccount"}
    team.client.create({**account, "metadata": {"name": ACCOUNT, "namespace": team.namespace}})
    code = takes_variable(value)[2] + takes_file(value, "token", "")[2]
    annotations = {"runkeys.dev/sealed": f"SECRET_API_TOKEN={text}, @token={text}"}
    team.client.create(asking(team, scene.name, asked="", code=code, annotations=annotations))
    expired = seal_parameter(late.encode(), place, before, public_key(team))
    annotations = {"runkeys.dev/sealed": f"SECRET_API_TOKEN={expired}"}
    team.client.create(asking(team, f"{scene.name}-late", asked="", annotations=annotations))
    yield
    _ends_well(scene)


@entry(Stage.SEALED)
def asked_in_vain(scene: Scene) -> Play:
    """For an entry that the binding does not have: it waits, and the Event says so."""
    value = scene.canary().text
    scene.team.client.create(_pod(scene, value, entry_name="tokens"))
    yield
    wait_until(
        "an Event",
        lambda: any(item["reason"] == "SecretNotFound" for item in events_of(scene.team, scene.name)),
    )
    scene.told.extend((scene.name, item["message"]) for item in events_of(scene.team, scene.name))


@entry(Stage.SEALED)
def asked_with_a_value_to_show(scene: Scene) -> Play:
    """A pod that would show its value in its arguments is refused."""
    value = scene.canary().text
    pod = _pod(scene, value)
    pod["spec"]["containers"][0]["args"] = ["$(SECRET_API_TOKEN)"]
    told = refusal(scene.team, pod)
    scene.told.append((scene.name, told))
    assert "may not have $(NAME)" in told
    yield
