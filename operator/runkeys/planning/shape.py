"""The shape of a pod template, as far as Runkeys itself walks it. Pure.

Lists are lists, objects are objects and names are strings: the rest of planning relies on it. The API server checks all
other fields, when it is asked for the Job. A null is an absent field, as for the API server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic.alias_generators import to_camel

T = TypeVar("T")

Items: TypeAlias = Annotated[list[T] | None, FailFast()]
"""A list that may be absent. Only its first wrong item is reported: there may be a hundred thousand."""


class _Part(BaseModel):
    """A part of a template. Fields that are not listed may have any shape."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, strict=True, extra="ignore")


class _Volume(_Part):
    name: str


class _CertificateSource(_Part):
    signer_name: str | None = None


class _ProjectedSource(_Part):
    pod_certificate: _CertificateSource | None = None


class _Projected(_Part):
    sources: Items[_ProjectedSource] = None


class _ImageSource(_Part):
    reference: str | None = None


class _PodVolume(_Volume):
    projected: _Projected | None = None
    image: _ImageSource | None = None


class _Mount(_Volume):
    mount_path: str | None = None
    sub_path: str | None = None
    sub_path_expr: str | None = None


class _Device(_Volume):
    device_path: str | None = None


class _FileKey(_Part):
    volume_name: str | None = None


class _Origin(_Part):
    file_key_ref: _FileKey | None = None
    secret_key_ref: _Part | None = None


class _Variable(_Part):
    name: str
    value: str | None = None
    value_from: _Origin | None = None


class _EnvFrom(_Part):
    prefix: str | None = None
    secret_ref: _Part | None = None


class _Handler(_Part):
    exec: _Part | None = None


class _Lifecycle(_Part):
    post_start: _Handler | None = None
    pre_stop: _Handler | None = None


class _Container(_Part):
    name: str
    image: str | None = None
    command: Items[str] = None
    args: Items[str] = None
    env: Items[_Variable] = None
    env_from: Items[_EnvFrom] = None
    volume_mounts: Items[_Mount] = None
    volume_devices: Items[_Device] = None
    liveness_probe: _Handler | None = None
    readiness_probe: _Handler | None = None
    startup_probe: _Handler | None = None
    lifecycle: _Lifecycle | None = None
    restart_policy: str | None = None
    restart_policy_rules: Items[_Part] = None
    termination_message_path: str | None = None
    termination_message_policy: str | None = None
    security_context: _Part | None = None


class _SecurityContext(_Part):
    run_as_user: int | None = None


class _PodSpec(_Part):
    containers: Annotated[list[_Container], FailFast(), Field(min_length=1)]
    init_containers: Items[_Container] = None
    volumes: Items[_PodVolume] = None
    security_context: _SecurityContext | None = None
    service_account_name: str | None = None
    service_account: str | None = None
    restart_policy: str | None = None
    termination_grace_period_seconds: int | None = None
    share_process_namespace: bool | None = None
    host_pid: bool | None = Field(default=None, alias="hostPID")
    host_ipc: bool | None = Field(default=None, alias="hostIPC")
    host_network: bool | None = None


class _Metadata(_Part):
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None


class _Template(_Part):
    metadata: _Metadata | None = None
    spec: _PodSpec


_MOST_TOLD = 20

_KINDS = {
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "string_type": "a string",
    "int_type": "a whole number",
    "bool_type": "true or false",
}
_FOUND = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


def misshapen(template: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield path and message of each field of a wrong shape. No message repeats what was found.

    :param template: of at most ``MAX_DEPTH`` levels.
    """
    try:
        _Template.model_validate(template)
    except ValidationError as error:
        for item in islice(error.errors(include_url=False, include_context=False), _MOST_TOLD):
            path = _path(item["loc"])
            yield path, _message(item["type"], path, item["input"])


def _message(kind: str, path: str, found: object) -> str:
    if path == "spec" and kind in ("missing", "model_type"):
        return "found no pod spec; a template needs one with at least one container"
    if path == "spec.containers" and (kind in ("missing", "too_short") or found is None):
        return "found no container; a template needs at least one"
    if kind == "missing":
        return "is missing, and every item of this list needs one"
    what = _KINDS.get(kind, "of the type that a pod template has there")
    here = "a number that is not whole" if kind == "int_type" and isinstance(found, float) else ""
    hint = "; put it in quotes" if kind == "string_type" and isinstance(found, int | float) else ""
    return f"must be {what}, found {here or _FOUND.get(type(found), 'null')}{hint}"


def _path(parts: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
