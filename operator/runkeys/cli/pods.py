"""`runkeys pods`: the pods of any engine that asked for secrets themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from runkeys._text.words import line
from runkeys.cli._framework import Settings, command
from runkeys.cli._output import NOTHING, duration, now, print_object, print_table
from runkeys.cli._printing import echo
from runkeys.client import Client
from runkeys.names import ASK, ASK_VALUE
from runkeys.planning.asking_pod import AskingPod, asking_pod

Json = dict[str, Any]

COMPONENT = "runkeys.dev/operator"
"""As the operator signs its Events."""

HAS, WAITS, HAD, NEVER = "has them", "waits", "ended", "never had them"


@dataclass(frozen=True)
class _Row:
    """A pod that asked.

    :ivar since: when it had unsealed its secrets, most recently.
    :ivar told: what keeps it waiting, in the operator's words.
    """

    namespace: str
    name: str
    state: str
    since: datetime | None
    pod: AskingPod | None
    told: str

    @property
    def sources(self) -> list[str]:
        """The SecretBindings, and ``the pod`` for sealed parameters."""
        if self.pod is None:
            return []
        return [*self.pod.bindings, *(["the pod"] if self.pod.parameters else [])]


@command()
@click.option("-A", "--all-namespaces", is_flag=True, help="List the pods of all namespaces.")
def pods(settings: Settings, *, all_namespaces: bool) -> None:
    """List the pods with the label runkeys.dev/secrets: ask, and since when they have their secrets.

    For a pod that waits, it says what is missing. Pods of runs are not listed: runkeys status shows those.
    """
    client = settings.client()
    rows = _rows(settings, client, all_namespaces=all_namespaces)
    if settings.output == "name":
        for row in rows:
            echo(f"pod/{row.name}")
    elif settings.output in ("json", "yaml"):
        print_object(settings, {"pods": [_as_object(row) for row in rows]})
    elif rows:
        _print(settings, rows, namespaces=all_namespaces)
    else:
        where = "" if all_namespaces else f" in namespace {client.namespace}"
        settings.say(f"no pod asks for secrets{where}")


def _rows(settings: Settings, client: Client, *, all_namespaces: bool) -> list[_Row]:
    prefix = "/api/v1" if all_namespaces else f"/api/v1/namespaces/{client.namespace}"
    found = client.items(f"{prefix}/pods", labelSelector=f"{ASK}={ASK_VALUE}")
    rows = [_row(raw) for raw in found]
    if not any(row.state == WAITS for row in rows):
        return rows
    if not client.may("list", "events", group=""):
        settings.say("what pods wait for is said in Events, and you may not list them here")
    else:
        events = client.items(f"{prefix}/events", fieldSelector="involvedObject.kind=Pod,type=Warning")
        ours = [item for item in events if item.get("reportingComponent") == COMPONENT]
        ours.sort(key=lambda item: str(item.get("lastTimestamp")))
        told = {item["involvedObject"].get("uid"): str(item.get("message", "")) for item in ours}
        rows = [
            _Row(row.namespace, row.name, row.state, row.since, row.pod, told.get(raw["metadata"]["uid"], ""))
            if row.state == WAITS
            else row
            for row, raw in zip(rows, found, strict=True)
        ]
    return rows


def _row(raw: Json) -> _Row:
    metadata, pod = raw["metadata"], asking_pod(raw)
    over = (raw.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    opened = pod is not None and pod.opened
    state = (HAD if opened else NEVER) if over else (HAS if opened else WAITS)
    return _Row(
        metadata["namespace"], metadata["name"], state, None if pod is None else pod.opened_at, pod, ""
    )


def _print(settings: Settings, rows: list[_Row], *, namespaces: bool) -> None:
    moment = now()
    header = [*(["NAMESPACE"] if namespaces else []), "POD", "SECRETS", "SINCE", "CONTAINERS", "FROM"]
    lines = [
        [
            *([row.namespace] if namespaces else []),
            row.name,
            row.state,
            NOTHING if row.since is None else f"{duration((moment - row.since).total_seconds())} ago",
            (", ".join(row.pod.containers) if row.pod is not None else "") or NOTHING,
            ", ".join(row.sources) or NOTHING,
        ]
        for row in rows
    ]
    print_table(settings, header, lines)
    for row in rows:
        if row.told:
            echo(line(f"Waits: {row.name}: {row.told}"))


def _as_object(row: _Row) -> Json:
    pod = row.pod
    return {
        "namespace": row.namespace,
        "name": row.name,
        "state": row.state,
        "since": None if row.since is None else row.since.isoformat(),
        "containers": [] if pod is None else list(pod.containers),
        "bindings": [] if pod is None else list(pod.bindings),
        "sealedParameters": 0 if pod is None else len(pod.parameters),
        "waitsFor": row.told or None,
    }
