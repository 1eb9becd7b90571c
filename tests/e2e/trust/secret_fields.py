"""A pod of one's own, or a volume, that names the Secret of a run: by each field in which one can be named."""

from __future__ import annotations

from typing import Any

from runkeys.planning.secret_paths import POD, VOLUME
from testing.cluster.client import Object
from tests.e2e.trust.scene import Attack, Scene, container

REQUIRED: dict[str, Object] = {
    "azureFile": {"shareName": "s"},
    "cephfs": {"monitors": ["m"]},
    "cinder": {"volumeID": "v"},
    "csi": {"driver": "csi.example"},
    "flexVolume": {"driver": "example/flex"},
    "iscsi": {"targetPortal": "10.0.0.1:3260", "iqn": "iqn.2015-02.example.com:test", "lun": 0},
    "rbd": {"monitors": ["m"], "image": "i"},
    "scaleIO": {"gateway": "https://g", "system": "s", "volumeName": "v"},
    "storageos": {"volumeName": "v", "volumeNamespace": "n"},
}
"""What each kind of volume cannot be without."""


def named(secret: str, path: str) -> Object:
    """The part of a spec that names a Secret by a path such as ``volumes[].secret.secretName``."""
    field, _, rest = path.partition(".")
    value: Any = named(secret, rest) if rest else secret
    if not field.endswith("[]"):
        return {field: {**REQUIRED.get(field, {}), **value} if rest else value}
    if field == "env[]":
        value = {"name": "STOLEN", **value}
        value["valueFrom"]["secretKeyRef"]["key"] = "SECRET_API_TOKEN"
    return {field.removesuffix("[]"): [value]}


def pod_that_names(secret: str, path: str) -> Object:
    spec = named(secret, path)
    for field, name in (("initContainers", "first"), ("volumes", "stolen")):
        if field in spec:
            one = container(name=name) if field == "initContainers" else {"name": name}
            spec[field] = [{**one, **spec[field][0]}]
    mains = [{**container(), **item} for item in spec.get("containers", [{}])]
    return {"restartPolicy": "Never", **spec, "containers": mains}


def in_a_pod(path: str) -> Attack:
    def act(scene: Scene, dry: dict[str, Any]) -> object:
        if not path.startswith("ephemeralContainers"):
            return scene.make("Pod", "thief", pod_that_names(scene.secret, path), **dry)
        added = container(name="debug", **named(scene.secret, path)["ephemeralContainers"][0])
        change = {"spec": {"ephemeralContainers": [added]}}
        where = ("pods", scene.pod, scene.team.namespace)
        return scene.mallory.patch(*where, change, "strategic", "ephemeralcontainers", **dry)

    return Attack("pods", act)


def in_a_volume(path: str) -> Attack:
    """An administrator makes it: a provisioner may take the name of the Secret from whoever claims the volume."""

    def act(scene: Scene, dry: dict[str, Any]) -> object:
        spec: Object = named(scene.secret, path)
        kind, reference = next(iter(spec.items()))
        if kind == "csi":
            reference["volumeHandle"] = "v"
        for field, value in reference.items():
            if field.endswith("ecretRef"):
                value["namespace"] = scene.team.namespace
        if kind == "azureFile":
            reference["secretNamespace"] = scene.team.namespace
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"stolen.{scene.team.namespace}"},
            "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], **spec},
        }
        return scene.team.client.create(volume, **dry)

    return Attack("pods", act)


VOLUMES = {f"PersistentVolume: {path}": in_a_volume(path) for path in VOLUME}
ATTACKS = {f"pod: {path}": in_a_pod(path) for path in POD} | VOLUMES
