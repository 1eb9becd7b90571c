"""The main job of Runkeys on a real cluster, to watch: ``make demo``, and ``make demo-down`` to stop it."""

from __future__ import annotations

import argparse
import hashlib
import queue
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urllib3.exceptions import HTTPError

from runkeys.names import attempt_name
from scripts.demo_local import demo_local
from scripts.demo_screen import Screen
from scripts.demo_search import search
from scripts.exposure_picture import picture
from testing import examples
from testing.cluster import images, providers
from testing.cluster.__main__ import DEFAULT_NAME, build_all, down
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.build import BuildError
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import ApiError, KubeClient, Object, WaitError
from testing.cluster.existing import CONTEXT_VARIABLE
from testing.cluster.golang import GoMissing
from testing.operators import CHART, RELEASE

OPERATOR_NAMESPACE = "runkeys-system"
NAMESPACE = "demo"
# The container prints a fingerprint of what it found, never the value, and stays for a moment.
TASK = ["sh", "-c", 'printf %s "$SECRET_API_TOKEN" | sha256sum; sleep 2']
INSTALL_SECONDS = 90


class DemoError(Exception):
    """The demo did not come to its end; the message says what did not happen and where to look."""


FAILURES = (DemoError, ClusterError, BuildError, GoMissing, ApiError, WaitError, OSError, HTTPError)


def main() -> int:
    """Exit status: 0 all of it happened, 1 something did not, 130 interrupted.

    Where no cluster can be had it shows a local run, and says so.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", nargs="?", choices=("up", "down"), default="up")
    parser.add_argument("--name", default=DEFAULT_NAME, help="of the cluster")
    parser.add_argument("--picture", type=Path, help="draw what was seen into this file, as SVG")
    parser.add_argument("--patience", type=float, default=60, help="longest wait for one event, in seconds")
    arguments = parser.parse_args()
    advice = ""
    try:
        if arguments.verb == "down":
            return down(arguments.name)
        try:
            providers.choose()
        except ClusterError as none:
            return demo_local(str(none))
        build_all(arguments.name)
        screen = Screen()
        cluster = bring_up(screen, arguments.name)
        advice = "\nTo begin afresh: make demo-down demo"
        story = demo(screen, cluster, arguments.patience)
        if arguments.picture:
            arguments.picture.write_text(picture(story.seen))
    except FAILURES as error:
        return _say(f"The demo stopped: {error}{advice}", 1)
    except KeyboardInterrupt:
        return _say("\nStopped. If the cluster is up it stays; make demo-down ends it.", 130)
    return 0


def demo(screen: Screen, cluster: Cluster, patience: float) -> Story:
    """All that happens on the cluster, to the verdict; returns what was seen."""
    install(screen, cluster)
    value = f"demo-{secrets.token_hex(16)}"
    prepare(screen, cluster.client, value)
    story = watch_run(screen, cluster.client, value, patience)
    prove(screen, cluster, value, story)
    more = "" if cluster.name == DEFAULT_NAME else f" ARGS='--name {cluster.name}'"
    screen.gap()
    screen.fact("look", f"make cluster-shell{more}")
    screen.more(f"kubectl -n {NAMESPACE} get wfr,rkb,jobs,pods,secrets")
    screen.more(f"kubectl -n {NAMESPACE} get wfr {story.run} -o yaml")
    screen.fact("again", "make demo")
    screen.fact("stop", "make demo-down")
    return story


def bring_up(screen: Screen, name: str) -> Cluster:
    """The cluster of this name, started if it does not run."""
    if providers.choose() == "existing":
        raise DemoError(
            "it needs a cluster of its own, whose etcd it can search, and a context of yours is named. "
            f"Unset {CONTEXT_VARIABLE} and {providers.PROVIDER_VARIABLE}."
        )
    screen.title("Runkeys: a secret that exists only while a pod needs it")
    began = time.monotonic()
    cluster = providers.attach(name)
    if cluster is None:
        with screen.waiting("starting a cluster"):
            cluster = providers.start(name)
        how = f"started in {time.monotonic() - began:.1f} s"
    elif cluster.client.is_ready():
        how = "runs already"
    else:
        raise DemoError(f"the cluster {name!r} runs and does not answer. Begin afresh: make demo-down demo")
    version = cluster.client.request("GET", "/version")["gitVersion"]
    where = "in Docker" if cluster.provider == "kind" else "on this machine"
    screen.fact("cluster", f"Kubernetes {version} {where}, {how}")
    return cluster


def install(screen: Screen, cluster: Cluster) -> None:
    """The chart, with the operator as it is in this checkout."""
    began = time.monotonic()
    with screen.waiting("installing the operator"):
        archive = images.operator_image()
        cluster.scratch.mkdir(parents=True, exist_ok=True)
        loaded = cluster.scratch / "operator-image"
        outdated = loaded.exists() and loaded.read_text() != archive.name
        if outdated or not loaded.exists():
            cluster.load_image(archive)
        where = ("--namespace", OPERATOR_NAMESPACE)
        cluster.helm(
            *("upgrade", "--install", RELEASE, str(CHART), *where, "--create-namespace"),
            *("--set", f"image.tag={images.OPERATOR_IMAGE.rpartition(':')[2]}", "--set", "log.format=text"),
            timeout=INSTALL_SECONDS,
        )
        if outdated:
            cluster.kubectl(*where, "rollout", "restart", f"deployment/{RELEASE}")
        cluster.kubectl(
            *(*where, "rollout", "status", f"deployment/{RELEASE}", f"--timeout={INSTALL_SECONDS}s"),
            timeout=INSTALL_SECONDS + 10,
        )
        loaded.write_text(archive.name)
    chart = CHART.relative_to(CHECKOUT)
    screen.fact(
        "install", f"helm install {RELEASE} {chart}: operator ready after {time.monotonic() - began:.1f} s"
    )


def prepare(screen: Screen, client: KubeClient, value: str) -> None:
    """What a team does once: its Secret, the operator's right to read that one, a binding."""
    client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    client.wait_for("serviceaccounts", "default", NAMESPACE, bool)
    client.apply(examples.source_secret(NAMESPACE, value))
    for manifest in examples.source_role(NAMESPACE, RELEASE, OPERATOR_NAMESPACE):
        client.apply(manifest)
    client.apply(examples.hello_binding(NAMESPACE))
    screen.fact("source", f"Secret {examples.SOURCE} in namespace {NAMESPACE}: a new random value, yours")
    screen.fact("binding", f"{examples.BINDING}: runs labelled app=hello may use it, as api-token")


@dataclass
class Story:
    """What was seen of one run. Times are in seconds since it was applied."""

    run: str
    task_object: str
    """Name of the run's Job, and of its Secret."""
    seen: dict[str, float] = field(default_factory=dict)
    last: Object = field(default_factory=dict)
    pod: Object = field(default_factory=dict)


EVENTS = (
    "Job made",
    "pod bound to a node",
    "Secret appears",
    "container runs",
    "container ended",
    "Secret gone",
    "SecretsReleased",
)


def watch_run(screen: Screen, client: KubeClient, value: str, patience: float) -> Story:
    """Make a run and show each event as it comes; returns when nothing is left of its Secret."""
    made = {item["metadata"]["name"] for item in client.list("workflowruns", NAMESPACE)}
    name = next(f"hello-{n}" for n in range(1, len(made) + 2) if f"hello-{n}" not in made)
    screen.fact("run", f"{name}: one task, which finds the value in its variable SECRET_API_TOKEN")
    screen.gap()
    began = time.monotonic()
    run = client.create(examples.hello_run(NAMESPACE, name, TASK))
    screen.event(0, "run applied")
    task = run["spec"]["tasks"][0]["name"]
    story = Story(name, attempt_name(name, run["metadata"]["uid"], task, 1))
    with screen.waiting("watching"):
        for at, what, item in _events(client, story, run["metadata"]["resourceVersion"], patience):
            if what == "run":
                _check_run(story, item)
                continue
            if what.startswith("container ended"):
                _check_output(client, item, value)
            story.seen[what] = max([at - began, *story.seen.values()])
            screen.event(story.seen[what], what, *_detail(what, story, item))
    return story


def _detail(what: str, story: Story, item: Object) -> tuple[str, ...]:
    if what == "Job made":
        return (story.task_object,)
    if what == "pod bound to a node":
        return (item["spec"]["nodeName"],)
    if what == "Secret appears":
        return (story.task_object, "bold yellow")
    if what == "container ended":
        return ("it had the right value",)
    if what == "Secret gone":
        return ("", "bold green")
    return (f"run {item['status']['phase']}",) if what == "SecretsReleased" else ()


def _events(
    client: KubeClient, story: Story, since: str, patience: float
) -> Iterator[tuple[float, str, Object]]:
    """Yield what happens to the run, in the cluster's own order, until its secrets are released.

    Raises DemoError when for ``patience`` seconds nothing new was seen.
    """
    arrived: queue.SimpleQueue[tuple[float, str, str, Object]] = queue.SimpleQueue()
    labels = f"runkeys.dev/run={story.run}"
    for resource, selector in (
        ("jobs", {"labels": labels}),
        ("pods", {"labels": labels}),
        ("secrets", {"fields": f"metadata.name={story.task_object}"}),
        ("workflowruns", {"fields": f"metadata.name={story.run}"}),
    ):
        threading.Thread(
            target=_follow, args=(client, resource, selector, since, patience, arrived), daemon=True
        ).start()
    until = time.monotonic() + patience
    told: set[str] = set()
    held: list[tuple[float, str, str, Object]] = []
    while told < set(EVENTS):
        batch = _take(arrived, until)
        if not batch:
            missing = next(what for what in EVENTS if what not in told | _kinds_of(held))
            raise DemoError(_missing(missing, patience, story))
        held += batch
        seen = told | _kinds_of(held)
        if seen != set(EVENTS[: len(seen)]):
            continue  # what should have come before is still under way in another watch
        # Each kind has a watch of its own; the revisions tell in which order things really happened.
        batch = sorted(held, key=lambda entry: int(entry[3]["metadata"]["resourceVersion"]))
        held = []
        for at, resource, kind, item in batch:
            if resource == "workflowruns":
                yield at, "run", item
            for what in _recognise(resource, kind, item):
                if what not in told:
                    told.add(what)
                    until = time.monotonic() + patience
                    yield at, what, item


def _kinds_of(arrived: list[tuple[float, str, str, Object]]) -> set[str]:
    return {what for _, resource, kind, item in arrived for what in _recognise(resource, kind, item)}


def _follow(
    client: KubeClient,
    resource: str,
    selector: dict[str, str],
    since: str,
    patience: float,
    arrived: queue.SimpleQueue[tuple[float, str, str, Object]],
) -> None:
    limit = patience * len(EVENTS)
    try:
        for kind, item in client.watch(resource, NAMESPACE, timeout=limit, since=since, **selector):
            arrived.put((time.monotonic(), resource, kind, item))
    except (ApiError, HTTPError):
        # The watch has ended. The code that waits for its events reports what is missing.
        return


def _take(
    arrived: queue.SimpleQueue[tuple[float, str, str, Object]], until: float
) -> list[tuple[float, str, str, Object]]:
    """Return the next event and all events within 20 ms of it; nothing after the time ``until``."""
    try:
        batch = [arrived.get(timeout=max(0.0, until - time.monotonic()))]
    except queue.Empty:
        return []
    time.sleep(0.02)
    while not arrived.empty():
        batch.append(arrived.get())
    return batch


def _recognise(resource: str, kind: str, item: Object) -> list[str]:
    if resource == "jobs":
        return ["Job made"]
    if resource == "secrets":
        return ["Secret gone" if kind == "DELETED" else "Secret appears"]
    if resource == "workflowruns":
        return ["SecretsReleased"] if _released(item) else []
    found = ["pod bound to a node"] if item["spec"].get("nodeName") else []
    for container in item.get("status", {}).get("containerStatuses", ()):
        found += ["container runs"] if {"running", "terminated"} & container["state"].keys() else []
        found += ["container ended"] if "terminated" in container["state"] else []
    return found


def _condition(run: Object, kind: str) -> dict[str, Any]:
    conditions = run.get("status", {}).get("conditions") or ()
    return next((item for item in conditions if item["type"] == kind), {})


def _released(run: Object) -> bool:
    return bool(_condition(run, "SecretsReleased").get("status") == "True")


def _check_run(story: Story, run: Object) -> None:
    story.last = run
    if run.get("status", {}).get("phase") in ("Failed", "Cancelled"):
        raise DemoError(f"run {story.run} failed: {_condition(run, 'Failed').get('message', '')}")


def _check_output(client: KubeClient, pod: Object, value: str) -> None:
    printed = client.logs(pod["metadata"]["name"], NAMESPACE).split()
    if printed[:1] != [hashlib.sha256(value.encode()).hexdigest()]:
        raise DemoError(f"pod {pod['metadata']['name']} did not find the right value in SECRET_API_TOKEN")


def _missing(what: str, patience: float, story: Story) -> str:
    stalled = _condition(story.last, "Stalled").get("message", "")
    return (
        f"nothing new within {patience:g} s; what is missing is: {what}."
        + (f" The run says: {stalled}." if stalled else "")
        + f" Look: make cluster-shell, kubectl -n {NAMESPACE} describe wfr,pods;"
        f" kubectl -n {OPERATOR_NAMESPACE} logs deployment/{RELEASE}"
    )


def prove(screen: Screen, cluster: Cluster, value: str, story: Story) -> None:
    """Say how long the value was exposed, and search all of etcd for it. Raises DemoError if it is anywhere else."""
    lived = story.seen["Secret gone"] - story.seen["Secret appears"]
    told = story.last["status"]["exposed"].removesuffix("s")
    screen.gap()
    screen.fact("exposed", f"{told} s by the run's own status, {lived:.1f} s as watched from here")

    source = f"/registry/secrets/{NAMESPACE}/{examples.SOURCE}"
    own = f"/registry/secrets/{NAMESPACE}/{story.task_object}"
    with screen.waiting("searching etcd"):
        found = search(cluster.etcd, value)
    if not {source, own} <= found.held.keys():
        raise DemoError("the search does not find the value where it was put, so it proves nothing")
    elsewhere = sorted((found.held.keys() - {source, own}) | (found.now - {source}))
    if elsewhere:
        raise DemoError(f"the value is, or was, where it must never be: {', '.join(elsewhere)}")
    screen.gap()
    screen.fact(
        "etcd",
        f"all {found.versions:,} versions of all keys, searched for the value (plain, base64, hex):",
    )
    screen.more(f"once  {own}")
    screen.more(f"      made in revision {found.held[own][0]}, deleted in {found.deleted[own]}")
    screen.more(f"now   {source}")
    screen.verdict("Now the value is only where you put it.")


def _say(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
