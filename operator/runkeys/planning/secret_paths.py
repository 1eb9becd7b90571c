"""Where a pod, or a volume of the cluster, can name a Secret.

``tests/unit/policies/test_secret_paths.py`` compares the lists with Kubernetes' own types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

IMAGE_PULL_SECRETS = "imagePullSecrets[].name"
"""The kubelet reads it, and no container does. But the credential of the pod's node may then get it."""

POD = (
    *(
        f"{kind}[].{path}"
        for kind in ("containers", "ephemeralContainers", "initContainers")
        for path in ("env[].valueFrom.secretKeyRef.name", "envFrom[].secretRef.name")
    ),
    IMAGE_PULL_SECRETS,
    "volumes[].azureFile.secretName",
    "volumes[].cephfs.secretRef.name",
    "volumes[].cinder.secretRef.name",
    "volumes[].csi.nodePublishSecretRef.name",
    "volumes[].flexVolume.secretRef.name",
    "volumes[].iscsi.secretRef.name",
    "volumes[].projected.sources[].secret.name",
    "volumes[].rbd.secretRef.name",
    "volumes[].scaleIO.secretRef.name",
    "volumes[].secret.secretName",
    "volumes[].storageos.secretRef.name",
)
"""Paths in a pod's spec. ``[]`` stands for each item of a list."""

VOLUME = (
    "azureFile.secretName",
    "cephfs.secretRef.name",
    "cinder.secretRef.name",
    "csi.controllerExpandSecretRef.name",
    "csi.controllerPublishSecretRef.name",
    "csi.nodeExpandSecretRef.name",
    "csi.nodePublishSecretRef.name",
    "csi.nodeStageSecretRef.name",
    "flexVolume.secretRef.name",
    "iscsi.secretRef.name",
    "rbd.secretRef.name",
    "scaleIO.secretRef.name",
    "storageos.secretRef.name",
)
"""Paths in the spec of a PersistentVolume."""


def every_secret(of: str, admitted: Callable[[str], str], paths: Iterable[str] = POD) -> str:
    """Return a CEL expression: each Secret that ``of`` refers to is admitted.

    :param of: CEL expression of the object, such as ``object.spec``.
    :param admitted: returns the CEL condition on one name, from the CEL expression of that name.
    """
    return _every(of, sorted(path.split("[].") for path in paths), admitted, 0)


def _every(of: str, paths: list[list[str]], admitted: Callable[[str], str], depth: int) -> str:
    leaves = [_optional(of, path[0], "''") for path in paths if len(path) == 1]
    terms = [admitted(leaf) for leaf in leaves]
    if len(leaves) > 1:
        terms = [f"[{', '.join(leaves)}].all(n, {admitted('n')})"]
    item = "abc"[depth]
    for field, below in groupby((path for path in paths if len(path) > 1), key=lambda path: path[0]):
        inner = _every(item, [path[1:] for path in below], admitted, depth + 1)
        terms.append(f"{_optional(of, field, '[]')}.all({item}, {inner})")
    return " && ".join(terms)


def _optional(of: str, path: str, empty: str) -> str:
    return f"{of}.?{path.replace('.', '.?')}.orValue({empty})"
