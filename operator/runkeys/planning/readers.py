"""Which containers of a pod come by the values of its run, whatever made it so: a policy or webhook of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runkeys.names import ENVIRONMENT_VOLUME, OBJECT_PREFIX, RECIPIENT_VOLUME
from runkeys.planning.kubelet import SECRETS_VOLUME
from runkeys.planning.secret_paths import POD

_KINDS = ("initContainers", "containers", "ephemeralContainers")
_OF_VOLUMES = [path.removeprefix("volumes[].") for path in POD if path.startswith("volumes[].")]
_OF_CONTAINERS = [path.removeprefix("containers[].") for path in POD if path.startswith("containers[].")]
_HOLD_VALUES = {RECIPIENT_VOLUME, ENVIRONMENT_VOLUME, SECRETS_VOLUME}


def readers(spec: Mapping[str, Any]) -> set[str]:
    """Names of the containers that refer to the Secret of a run, or to a volume with its values."""
    volumes = _HOLD_VALUES | {
        volume["name"] for volume in spec.get("volumes") or [] if _names_ours(volume, _OF_VOLUMES)
    }
    containers = [container for kind in _KINDS for container in spec.get(kind) or []]
    found = {item["name"] for item in containers if _reads(item, volumes)}
    if found and spec.get("shareProcessNamespace"):
        return {item["name"] for item in containers}
    return found


def _reads(container: Mapping[str, Any], volumes: set[str]) -> bool:
    mounted = {mount["name"] for mount in container.get("volumeMounts") or []}
    of_files = set(_values(container, "env[].valueFrom.fileKeyRef.volumeName"))
    return bool((mounted | of_files) & volumes) or _names_ours(container, _OF_CONTAINERS)


def _names_ours(of: Mapping[str, Any], paths: list[str]) -> bool:
    return any(name.startswith(OBJECT_PREFIX) for path in paths for name in _values(of, path))


def _values(of: Any, path: str) -> Iterator[str]:
    """The texts at a path such as ``env[].valueFrom.secretKeyRef.name``."""
    field, _, rest = path.partition(".")
    found = of.get(field.removesuffix("[]")) if isinstance(of, Mapping) else None
    for one in (found or []) if field.endswith("[]") else [found]:
        if rest:
            yield from _values(one, rest)
        elif isinstance(one, str):
            yield one
