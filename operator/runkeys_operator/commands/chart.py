"""`drain` and `selftest`: what the chart's hooks run, each with an account that may do just that.

`drain` runs before the release is deleted: it suspends every run, so that the operator, which still runs, deletes the
Secrets. `selftest` is `helm test`: it creates a run and follows it to its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import click

from runkeys._text.words import kubectl
from runkeys.api import API_VERSION, WorkflowRun
from runkeys.cli._printing import echo
from runkeys_operator.errors import ApiError, Conflict, Forbidden, LoginError, NotFound
from runkeys_operator.kube import RUNS, Json, Kube, credentials
from runkeys_operator.kube.login import Login
from runkeys_operator.kube.selectors import LIVE, OPEN
from runkeys_operator.options import Options

Result = TypeVar("Result")

_PAUSE = 0.5
_CHECK = (
    "import hashlib, os, sys;"
    "value = os.environ['SECRET_SELFTEST'];"
    "sys.exit(hashlib.sha256(value.encode()).hexdigest() != sys.argv[1])"
)


class GaveUpError(Exception):
    """Waiting timed out; the message says what is left, and what to do."""


@click.command()
@click.option("--timeout-seconds", type=click.IntRange(1), default=300, show_default=True)
@click.pass_obj
def drain(options: Options, timeout_seconds: int) -> None:
    """Suspend all runs that have not finished, and wait until no Secret of any run is left."""

    async def work(kube: Kube) -> None:
        until = time.monotonic() + timeout_seconds
        while left := await _drain_once(kube, options.namespaces):
            if time.monotonic() >= until:
                raise GaveUpError(
                    f"Secrets are left after {timeout_seconds} s, or runs that cannot be suspended: {', '.join(left)}."
                    " See their conditions, and whether the operator runs; to remove the release anyway:"
                    " helm uninstall --no-hooks"
                )
            await asyncio.sleep(_PAUSE)

    _run(options, work)
    echo("no Secret of a run is left")


async def _drain_once(kube: Kube, namespaces: Iterable[str]) -> list[str]:
    """Suspend unfinished runs, and name those that are not at rest yet.

    A Secret is announced in the status before it is created, and not if the run changed since it was read. So a run
    that is suspended and has no live Secret will have none.
    """
    left = []
    for namespace in tuple(namespaces) or (None,):
        try:
            runs = await kube.list(RUNS, namespace, field_selector=OPEN)
        except Forbidden:
            if namespace is None:
                raise
            # With the namespace its roles went; where only they are gone, the operator makes no Secret either.
            echo(f"namespace {namespace} is skipped: it or its roles no longer exist", err=True)
            continue
        for raw in runs:
            run = WorkflowRun.parse(raw)
            if run.spec.suspend or run.spec.cancel or run.metadata.deletion_timestamp is not None:
                continue
            left.append(run.key)
            await _suspend(kube, run)
        left += [WorkflowRun.parse(raw).key for raw in await kube.list(RUNS, namespace, field_selector=LIVE)]
    return sorted(set(left))


async def _suspend(kube: Kube, run: WorkflowRun) -> None:
    metadata = run.metadata
    try:
        await kube.patch(
            *(RUNS, metadata.namespace, metadata.name, {"spec": {"suspend": True}}),
            resource_version=metadata.resource_version,
        )
    except (Conflict, NotFound):
        return  # it is looked at again
    resume = ("patch", "wfr", metadata.name, "--type=merge", "-p", '{"spec":{"suspend":false}}')
    echo(f"suspended {run.key}; to resume it later: {kubectl(metadata.namespace, *resume)}")


@click.command()
@click.option("--in", "namespace", required=True, help="Namespace of the run.")
@click.option(
    "--binding",
    required=True,
    help="A SecretBinding in that namespace that has the value as entry `selftest`.",
)
@click.option("--value", required=True, help="Value that the run's pod should get. Not a secret.")
@click.option("--image", required=True, help="Image with Python for the run's pod.")
@click.option(
    "--pull-secret", "pull_secrets", multiple=True, help="Name of an image pull Secret for that image."
)
@click.option("--timeout-seconds", type=click.IntRange(1), default=120, show_default=True)
@click.pass_obj
def selftest(options: Options, /, namespace: str, timeout_seconds: int, **given: Any) -> None:
    """Create a run that checks the value of its secret, and check that its Secret is created and deleted."""

    async def work(kube: Kube) -> str:
        review = await kube.who_am_i()
        user = review["status"]["userInfo"]
        requester = {"username": user["username"], "groups": user.get("groups") or []}
        made = await kube.create(RUNS, namespace, _test_run(requester, **given))
        name = made["metadata"]["name"]
        echo(f"created run {namespace}/{name}")
        run = WorkflowRun.parse(made)
        until = time.monotonic() + timeout_seconds
        try:
            while not (run.status.finished and _is(run, "SecretsReleased")):
                if time.monotonic() >= until:
                    raise GaveUpError(f"the run has not finished after {timeout_seconds} s: {_said(run)}")
                await asyncio.sleep(_PAUSE)
                run = WorkflowRun.parse(await kube.get(RUNS, namespace, name))
        finally:
            await kube.delete(RUNS, namespace, name)
        exposures = [
            item for task in run.status.tasks for attempt in task.attempts for item in attempt.exposures
        ]
        if run.status.phase != "Succeeded" or not exposures:
            raise GaveUpError(f"the run's phase is {run.status.phase}: {_said(run)}")
        if any(item.deleted is None for item in exposures):
            raise GaveUpError(f"a Secret of the run is left: {_said(run)}")
        return "; ".join(f"{item.created} to {item.deleted}" for item in exposures)

    times = _run(options, work)
    echo(f"its pod found the value; its Secret existed from {times}, and is deleted")


def _test_run(
    requester: Json, *, binding: str, value: str, image: str, pull_secrets: tuple[str, ...]
) -> Json:
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", _CHECK, hashlib.sha256(value.encode()).hexdigest()],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    }
    pod = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "imagePullSecrets": [{"name": name} for name in pull_secrets],
        "containers": [container],
    }
    task = {
        "name": "check",
        "secrets": [{"name": "selftest", "secret": "selftest"}],
        "activeDeadlineSeconds": 60,
        "template": {"spec": pod},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkflowRun",
        "metadata": {
            "generateName": "runkeys-selftest-",
            "labels": {"app.kubernetes.io/name": "runkeys-selftest"},
        },
        "spec": {
            "requester": requester,
            "bindings": [{"name": binding}],
            "ttlSecondsAfterFinished": 600,
            "tasks": [task],
        },
    }


def _is(run: WorkflowRun, kind: str) -> bool:
    return any(item.type == kind and item.status == "True" for item in run.status.conditions)


def _said(run: WorkflowRun) -> str:
    """What its status says, for people to act on."""
    said = [f"{item.type}={item.status} {item.reason}: {item.message}" for item in run.status.conditions]
    return "; ".join(said) or "it has no status; is the operator ready?"


def _run(options: Options, work: Callable[[Kube], Awaitable[Result]]) -> Result:
    async def inside() -> Result:
        session = Login(credentials.find(options.kubeconfig, options.context))
        try:
            return await work(Kube(session))
        finally:
            await session.close()

    try:
        return asyncio.run(inside())
    except (GaveUpError, ApiError, LoginError) as error:
        echo(f"Error: {error}", err=True)
        sys.exit(1)
