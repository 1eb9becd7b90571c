"""Runs that are delivered to sealed: their values are in their pods, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testing.cluster.client import Object
from testing.namespace import python
from testing.people import sealed_entry
from testing.workflows import outcomes

from .load import UNTIL_TOLD, Scene, Stage, entry, takes_file, takes_variable

Play = Iterator[None]
A_VARIABLE = {"name": "api_token", "secret": "token"}
A_FILE = {"name": "f", "secret": "token", "file": "token"}


def _submit(scene: Scene, value: str, *secrets: Object, command: list[str], **task: Any) -> Object:
    """A run of a binding of its own that demands sealed delivery."""
    offered = [sealed_entry(scene.team, value, binding=scene.name)]
    scene.team.make_binding(scene.name, secrets=offered, delivery="Sealed")
    return scene.submit(command=command, task={"secrets": list(secrets), **task})


def _both(value: str, then: str = "") -> list[str]:
    return python(takes_variable(value)[2] + takes_file(value, "token", then)[2])


@entry(Stage.SEALED, base=True)
def delivered(scene: Scene) -> Play:
    """Goes on during the search: a variable and a file."""
    value = scene.canary(delivered=True, live=True).text
    made = _submit(scene, value, A_VARIABLE, A_FILE, command=_both(value, UNTIL_TOLD))
    yield
    scene.team.wait_running(made)
    yield
    scene.team.tell_to_finish(made)
    scene.ends("Succeeded")


@entry(Stage.SEALED)
def delivered_and_over(scene: Scene) -> Play:
    value = scene.canary(delivered=True).text
    made = _submit(scene, value, A_VARIABLE, A_FILE, command=_both(value))
    yield
    scene.ends("Succeeded")
    scene.volumes_gone(made)


@entry(Stage.SEALED)
def delivered_awkward(scene: Scene) -> Play:
    """With a quote, which a variable could not have."""
    value = scene.canary(awkward=True, delivered=True, as_file=True).text
    made = _submit(scene, value, A_FILE, command=takes_file(value, "token"))
    yield
    scene.ends("Succeeded")
    scene.volumes_gone(made)


@entry(Stage.SEALED)
def delivered_again(scene: Scene) -> Play:
    """The first attempt fails, and the second is delivered to by itself."""
    value = scene.canary(delivered=True).text
    fails_once = "if os.environ['HOSTNAME'].split('-')[-3] == '1': sys.exit(1)"
    _submit(scene, value, A_VARIABLE, command=takes_variable(value, then=fails_once), backoffLimit=1)
    yield
    assert outcomes(scene.ends("Succeeded"), "work") == ["Failed", "Succeeded"]


@entry(Stage.SEALED)
def not_delivered(scene: Scene) -> Play:
    """A variable that the kubelet could not read as it is: refused before there is a Job."""
    value = scene.canary(awkward=True).text
    _submit(scene, value, A_VARIABLE, command=takes_variable(value))
    yield
    scene.stalls("ValueNotCarried")
    assert [name for name in scene.team.jobs() if name.startswith(f"rk-{scene.name}-")] == []


@entry(Stage.SEALED)
def cancelled_after_delivery(scene: Scene) -> Play:
    value = scene.canary(delivered=True).text
    made = _submit(scene, value, A_VARIABLE, command=takes_variable(value, then=UNTIL_TOLD))
    yield
    scene.team.wait_running(made)
    scene.team.client.patch("workflowruns", scene.name, scene.team.namespace, {"spec": {"cancel": True}})
    scene.ends("Cancelled")
