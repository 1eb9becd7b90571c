"""People and programs that give a value away, each in one way: what the search has to find."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from testing.cluster.client import PATIENCE, Object
from testing.namespace import TASK_IMAGE, python
from testing.workflows import make, task

from .load import Entry, Play, Scene

LEAKING: dict[Entry, frozenset[str]] = {}
"""With the places at which the value comes to light at least."""


def leaks(*places: str) -> Callable[[Play], Play]:
    """Make a function an entry that gives a value away at these places."""

    def add(play: Play) -> Play:
        LEAKING[Entry(play.__name__.replace("_", "-"), play)] = frozenset(places)
        return play

    return add


@leaks("etcd: runkeys.dev", "etcd's log on disk", "etcd's database on disk", "audit log")
def note_on_a_run(scene: Scene) -> Iterator[None]:
    """Somebody who has read the value writes it down in base64, and takes it away again."""
    text = base64.b64encode(f"? {scene.given().text}".encode()).decode()
    scene.submit()
    where = ("workflowruns", scene.name, scene.team.namespace)
    for note in (text, None):
        scene.team.client.patch(*where, {"metadata": {"annotations": {"note": note}}})
    yield


@leaks("logs of containers")
def task_that_prints(scene: Scene) -> Iterator[None]:
    scene.given()
    scene.submit(command=python("import os; print(os.environb[b'SECRET_API_TOKEN'].hex())"))
    yield
    scene.ends("Succeeded")


@leaks("etcd: pods", "etcd: runkeys.dev")
def task_that_returns_it(scene: Scene) -> Iterator[None]:
    """Output is in the status of the pod, then in that of the run."""
    scene.given()
    code = "write(os.environ['SECRET_API_TOKEN'][:30])"
    make(
        scene.team,
        task("a", code, secret=True, recordOutput=True),
        name=scene.name,
        bindings=[{"name": scene.name}],
    )
    yield
    scene.ends("Succeeded")


@leaks("etcd: events")
def event(scene: Scene) -> Iterator[None]:
    """A controller that puts into an Event what it could not use."""
    involved = {"kind": "WorkflowRun", "name": scene.name, "namespace": scene.team.namespace}
    scene.team.client.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": scene.name, "namespace": scene.team.namespace},
            "involvedObject": involved,
            "message": f"cannot parse {scene.given(awkward=True).text!r}",
        }
    )
    yield


@leaks("etcd: pods", "command lines", "etcd: configmaps")
def command_line(scene: Scene) -> Iterator[None]:
    """A chart that takes the value as a parameter of a pod, and a ConfigMap that has its hash, "for restarts"."""
    value = scene.given().text
    _pod(scene, command=[*python("import time; time.sleep(600)"), value])
    digest = hashlib.sha256(value.encode()).hexdigest()
    metadata = {"name": scene.name, "namespace": scene.team.namespace, "annotations": {"checksum": digest}}
    scene.team.client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    yield
    scene.team.client.wait_for(
        "pods", scene.name, scene.team.namespace, lambda pod: pod["status"]["phase"] == "Running"
    )


@leaks("log of kubelet", "log of containerd")
def image(scene: Scene) -> Iterator[None]:
    """The value where an image belongs: the node says that it cannot find it."""
    _pod(scene, image=f"localhost/{scene.given().text}:1", imagePullPolicy="Always")
    yield
    scene.team.client.wait_for("pods", scene.name, scene.team.namespace, _pull_failed)


@leaks("log of the operator")
def name_of_a_run(scene: Scene) -> Iterator[None]:
    """The value is a valid name, and names are in logs."""
    value = scene.given().text
    scene.team.make_run(value, bindings=[{"name": scene.name}])
    yield
    scene.ends("Succeeded", name=value)


@leaks("answers to people", "audit log")
def label(scene: Scene) -> Iterator[None]:
    """A wrong label, which the API server repeats in its answer."""
    scene.bind(scene.canary(source=True).text, access=[])
    scene.submit()
    change = {"metadata": {"labels": {"token": f"{scene.mint.plain(scene.name).text} "}}}
    scene.refused(
        lambda: scene.team.client.patch("workflowruns", scene.name, scene.team.namespace, change),
        "Invalid value",
    )
    yield


# What the kubelet would show of a run's containers, were it not refused: the same in pods that Runkeys has no part in.
# A copy in another variable (env[].value) is in no place of its own.

VARIABLE = "SECRET_API_TOKEN"
PRINTS = {"exec": {"command": ["sh", "-c", f"echo ${VARIABLE}; exit 1"]}}
GOES_ON = python("import time; time.sleep(600)")


@leaks("command lines")
def expanded_command(scene: Scene) -> Iterator[None]:
    scene.given()
    _with_variable(scene, command=GOES_ON, args=[f"$({VARIABLE})"])
    yield
    scene.team.client.wait_for(
        "pods", scene.name, scene.team.namespace, lambda pod: pod["status"]["phase"] == "Running"
    )


@leaks("etcd: pods", "etcd: events", "log of kubelet")
def expanded_sub_path(scene: Scene) -> Iterator[None]:
    """A folder of that name cannot be made, and the kubelet says so."""
    scene.bind(f"../{scene.canary(source=True, handed=True).text}")
    mount = {"name": "work", "mountPath": "/work", "subPathExpr": f"$({VARIABLE})"}
    _with_variable(scene, command=GOES_ON, volumeMounts=[mount])
    yield
    _wait_event(scene, "Failed")


@leaks("etcd: pods")
def end_of_the_log(scene: Scene) -> Iterator[None]:
    code = f"import os, sys; sys.exit(os.environ['{VARIABLE}'])"
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    scene.given()
    _with_variable(scene, command=python(code), **fallback)
    yield
    _wait_ended(scene)


@leaks("etcd: pods")
def termination_message(scene: Scene) -> Iterator[None]:
    """The file that the program configures another one with."""
    code = f"import os; open('/tmp/app.conf', 'w').write(os.environ['{VARIABLE}'])"
    scene.given()
    _with_variable(scene, command=python(code), terminationMessagePath="/tmp/app.conf")
    yield
    _wait_ended(scene)


@leaks("etcd: events")
def failing_probe(scene: Scene) -> Iterator[None]:
    scene.given()
    _with_variable(scene, command=GOES_ON, readinessProbe={**PRINTS, "periodSeconds": 1})
    yield
    _wait_event(scene, "Unhealthy")


@leaks("log of kubelet")
def failing_hook(scene: Scene) -> Iterator[None]:
    scene.given()
    _with_variable(scene, command=GOES_ON, lifecycle={"postStart": PRINTS})
    yield
    _wait_ended(scene)


def _with_variable(scene: Scene, **container: Any) -> None:
    """A pod of anybody's, with the value in a variable from the source."""
    reference = {"secretKeyRef": {"name": scene.name, "key": "token"}}
    _pod(scene, env=[{"name": VARIABLE, "valueFrom": reference}], **container)


def _wait_ended(scene: Scene) -> None:
    over = ("Failed", "Succeeded")
    scene.team.client.wait_for(
        "pods", scene.name, scene.team.namespace, lambda pod: pod["status"]["phase"] in over
    )


def _wait_event(scene: Scene, reason: str) -> None:
    fields = f"involvedObject.name={scene.name},reason={reason}"
    for _ in scene.team.client.watch("events", scene.team.namespace, timeout=PATIENCE, fields=fields):
        return
    raise AssertionError(f"no Event {reason} about pod {scene.name} within {PATIENCE:g} s")


def _pod(scene: Scene, **container: Any) -> Object:
    main = {"name": "main", "image": TASK_IMAGE, "imagePullPolicy": "IfNotPresent", **container}
    return scene.team.client.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": scene.name, "namespace": scene.team.namespace},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "restartPolicy": "Never",
                "containers": [main],
                "volumes": [{"name": "work", "emptyDir": {}}],
            },
        }
    )


def _pull_failed(pod: Object) -> bool:
    states = [item.get("state", {}) for item in pod["status"].get("containerStatuses", [])]
    return any(state.get("waiting", {}).get("reason") == "ErrImagePull" for state in states)
