"""Which containers of a pod can read a run's values, even if a policy or webhook of the cluster changed the pod.

Volumes with values are found by what they are, not by their names, which others can change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runkeys.names import ENVIRONMENT_VOLUME, OBJECT_PREFIX, RECIPIENT_VOLUME, SIGNER, UNSEALER
from runkeys.planning.kubelet import COPIED, SECRETS_VOLUME
from runkeys.planning.secret_paths import POD

_KINDS = ("initContainers", "containers", "ephemeralContainers")
_OF_VOLUMES = [path.removeprefix("volumes[].") for path in POD if path.startswith("volumes[].")]
_OF_CONTAINERS = [path.removeprefix("containers[].") for path in POD if path.startswith("containers[].")]
_OURS = {RECIPIENT_VOLUME, ENVIRONMENT_VOLUME, SECRETS_VOLUME}

_SHARED = ("hostIPC", "hostNetwork", "hostPID", "shareProcessNamespace")
_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where the API server itself mounts the token of the service account, into every container."""

_DECIDING = (
    *("image", "command", "args", "workingDir", "envFrom", "volumeDevices"),
    *("restartPolicy", "restartPolicyRules", "lifecycle"),
    *("livenessProbe", "readinessProbe", "startupProbe"),
)
"""Fields of the unseal container for which the API server has no defaults. They are as requested, or absent."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The fields of a pod that decide who can read its values, in short form. Others may change everything else.

    :ivar shares: the fields that share something with its node or among its containers, such as ``hostPID``.
    :ivar volumes: digest of the volumes that hold values. :ivar opener: digest of the unseal container.
    """

    shares: tuple[str, ...] = ()
    volumes: str = ""
    opener: str = ""

    def unlike(self, planned: Shape) -> list[str]:
        """Return the differences from the requested pod, in words; empty if there are none."""
        found = [
            f"{field} is {'set' if field in self.shares else 'not set'}"
            for field in _SHARED
            if (field in self.shares) != (field in planned.shares)
        ]
        if self.volumes != planned.volumes:
            found.append("the volumes with the secrets are not those that it was created with")
        if self.opener != planned.opener:
            found.append(f"container {UNSEALER}, which opens the secrets, is not as it was created")
        return found


NO_SHAPE = Shape()


def shape_of(spec: Mapping[str, Any]) -> Shape:
    """Return the shape of a pod spec, requested or stored: the API server's defaults make no difference."""
    holding = _holding(spec)
    volumes = [_plain(volume) for volume in spec.get("volumes") or [] if volume["name"] in holding]
    openers = [_unsealer(container) for container in _containers(spec) if container["name"] == UNSEALER]
    return Shape(
        tuple(field for field in _SHARED if spec.get(field)),
        _digest(sorted(volumes, key=lambda volume: str(volume["name"]))),
        _digest(openers),
    )


def readers(spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the containers that refer to a run's Secret, or to a volume with its values."""
    holding, containers = _holding(spec), _containers(spec)
    found = {item["name"] for item in containers if _reads(item, holding)}
    if found and (spec.get("shareProcessNamespace") or spec.get("hostPID")):
        return {item["name"] for item in containers}
    return found


def is_key(volume: Mapping[str, Any]) -> bool:
    """Whether a volume has the key for sealed values: it asks Runkeys' signer for a certificate."""
    return SIGNER in _values(volume, "projected.sources[].podCertificate.signerName")


def _holding(spec: Mapping[str, Any]) -> set[str]:
    """Return the names of the volumes with the Secret or the key, or that a container with the key can write to."""
    volumes = spec.get("volumes") or []
    keys = {volume["name"] for volume in volumes if is_key(volume)}
    of_secrets = {volume["name"] for volume in volumes if _names_ours(volume, _OF_VOLUMES)}
    mounts = [container.get("volumeMounts") or [] for container in _containers(spec)]
    filled = {
        mount["name"]
        for mounted in mounts
        if any(mount["name"] in keys for mount in mounted)
        for mount in mounted
        if not mount.get("readOnly")
    }
    return _OURS | keys | of_secrets | filled


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [container for kind in _KINDS for container in spec.get(kind) or []]


def _reads(container: Mapping[str, Any], volumes: set[str]) -> bool:
    mounted = {mount["name"] for mount in container.get("volumeMounts") or []}
    of_files = set(_values(container, "env[].valueFrom.fileKeyRef.volumeName"))
    return bool((mounted | of_files) & volumes) or _names_ours(container, _OF_CONTAINERS)


def _names_ours(of: Mapping[str, Any], paths: list[str]) -> bool:
    return any(name.startswith(OBJECT_PREFIX) for path in paths for name in _values(of, path))


def _values(of: Any, path: str) -> Iterator[str]:
    """Yield the strings at a path such as ``env[].valueFrom.secretKeyRef.name``."""
    field, _, rest = path.partition(".")
    found = of.get(field.removesuffix("[]")) if isinstance(of, Mapping) else None
    for one in (found or []) if field.endswith("[]") else [found]:
        if rest:
            yield from _values(one, rest)
        elif isinstance(one, str):
            yield one


# comparable forms, without the API server's defaults


def _plain(volume: Mapping[str, Any]) -> dict[str, Any]:
    """Return a volume without the mode of its files, an API server default: every container that mounts it can read."""
    return {
        key: {name: value for name, value in source.items() if name != "defaultMode"}
        if isinstance(source, Mapping)
        else source
        for key, source in volume.items()
    }


def _unsealer(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that decide who gets the values from the unseal container."""
    context = container.get("securityContext") or {}
    return {
        **{field: container[field] for field in _DECIDING if container.get(field)},
        "env": [_variable(item) for item in container.get("env") or []],
        "mounts": [_mount(item) for item in container.get("volumeMounts") or [] if not _is_token(item)],
        "terminationMessage": [
            container.get(field.path) or field.harmless
            for field in COPIED
            if field.path.startswith("terminationMessage")
        ],
        # Others may take more rights away, as OpenShift does, but not give them back.
        "securityContext": [
            bool(context.get("privileged")),
            context.get("allowPrivilegeEscalation") is not False,
            bool(context.get("readOnlyRootFilesystem")),
            sorted((context.get("capabilities") or {}).get("add") or []),
            context.get("procMount") or "Default",
        ],
    }


def _variable(variable: Mapping[str, Any]) -> dict[str, Any]:
    origin = variable.get("valueFrom") or {}
    field = origin.get("fieldRef")
    if field is None:
        return dict(variable)
    return {**variable, "valueFrom": {**origin, "fieldRef": field["fieldPath"]}}


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mount.items() if value and key != "recursiveReadOnly"}


def _is_token(mount: Mapping[str, Any]) -> bool:
    return mount.get("mountPath") == _TOKEN and bool(mount.get("readOnly"))


def _digest(of: list[dict[str, Any]]) -> str:
    """Return 32 hex digits, short since every pod is kept with them; empty for an empty list."""
    text = json.dumps(of, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32] if of else ""
