"""All that Pod Security's level baseline says of a pod, as of Kubernetes 1.37: by field, and by value.

Whether it does so is asked of Pod Security itself.
"""

from __future__ import annotations

from typing import Any

from runkeys.policies.baseline import APPARMOR, CAPABILITIES, HANDLERS, PROFILES, SELINUX_TYPES, SYSCTLS
from tests.e2e.cluster.client import Object
from tests.e2e.runs.team import TASK_IMAGE

METADATA_OF_THE_CLOUD = "169.254.169.254"

_OF_POD_AND_CONTAINERS: dict[str, Any] = {
    "seccompProfile.type": "Unconfined",
    "appArmorProfile.type": "Unconfined",
    "seLinuxOptions.type": "spc_t",
    "seLinuxOptions.user": "system_u",
    "seLinuxOptions.role": "system_r",
    # It takes hostNetwork and, of an init container, the same of all others: these are refused anyhow.
    "windowsOptions.hostProcess": True,
}
_OF_CONTAINERS: dict[str, Any] = {
    **{f"securityContext.{field}": value for field, value in _OF_POD_AND_CONTAINERS.items()},
    "securityContext.privileged": True,
    "securityContext.capabilities.add": ["SYS_ADMIN"],
    "ports[].hostPort": 80,
    **{
        f"{handler}.{how}.host": METADATA_OF_THE_CLOUD
        for handler in HANDLERS
        for how in ("httpGet", "tcpSocket")
    },
}
BEYOND: dict[str, Any] = {
    **{f"spec.{field}": True for field in ("hostNetwork", "hostPID", "hostIPC")},
    "spec.volumes[].hostPath.path": "/",
    "spec.securityContext.sysctls[].name": "kernel.msgmax",
    **{f"spec.securityContext.{field}": value for field, value in _OF_POD_AND_CONTAINERS.items()},
    **{
        f"spec.{containers}[].{field}": value
        for containers in ("containers", "initContainers")
        for field, value in _OF_CONTAINERS.items()
    },
    f"metadata.annotations.{APPARMOR}main": "unconfined",
}
"""By its path each field that baseline restricts, with a value that it refuses.

But ``procMount: Unmasked``, which the API server itself refuses where baseline does: without ``hostUsers: false``.
"""

_REQUIRED: dict[str, Object] = {
    "ports": {"containerPort": 80},
    "httpGet": {"port": 80},
    "tcpSocket": {"port": 80},
    "volumes": {"name": "node"},
    "sysctls": {"value": "1"},
    # As a sidecar it can have probes.
    "initContainers": {"name": "first", "image": TASK_IMAGE, "restartPolicy": "Always"},
    "containers": {"name": "main", "image": TASK_IMAGE},
}


def template(path: str) -> Object:
    """A template of a pod with nothing out of the way but the field at that path of ``BEYOND``."""
    if path.startswith("metadata.annotations."):
        return {
            "metadata": {"annotations": {path.removeprefix("metadata.annotations."): BEYOND[path]}},
            "spec": _spec({}),
        }
    spec = _nested(path.removeprefix("spec."), BEYOND[path])
    spec = _spec(spec)
    if "windowsOptions" in path:
        spec["hostNetwork"] = True
        if "initContainers" in path:
            spec["containers"][0]["securityContext"] = spec["initContainers"][0]["securityContext"]
    return {"spec": spec}


def _nested(path: str, value: Any) -> Object:
    field, _, rest = path.partition(".")
    name = field.removesuffix("[]")
    if rest:
        value = {**_REQUIRED.get(name, {}), **_nested(rest, value)}
    return {name: [value] if field != name else value}


def _spec(changes: Object) -> Object:
    main = {"name": "main", "image": TASK_IMAGE}
    return {"restartPolicy": "Never", "containers": [main], **changes}


def admitted() -> Object:
    """A template of a pod with each value that baseline admits where it restricts."""
    contexts: list[Object] = [
        *({"seLinuxOptions": {"type": kind}} for kind in SELINUX_TYPES),
        *(
            {profile: {"type": kind, **({"localhostProfile": "p"} if kind == "Localhost" else {})}}
            for profile in ("seccompProfile", "appArmorProfile")
            for kind in PROFILES
        ),
        {"capabilities": {"add": CAPABILITIES}},
        {"procMount": "Unmasked"},
    ]
    containers = [
        {"name": f"c{number}", "image": TASK_IMAGE, "securityContext": context}
        for number, context in enumerate(contexts)
    ]
    probe = {handler: {"httpGet": {"port": 80}} for handler in HANDLERS if "." not in handler}
    hooks = {"lifecycle": {"preStop": {"httpGet": {"port": 80}}}}
    containers.append({"name": "probed", "image": TASK_IMAGE, **probe, **hooks})
    spec = {
        "hostUsers": False,
        "containers": containers,
        "securityContext": {"sysctls": [{"name": name, "value": "1"} for name in SYSCTLS]},
    }
    notes = {f"{APPARMOR}probed": "runtime/default"}
    return {"metadata": {"annotations": notes}, "spec": _spec(spec)}
