"""Tekton as its manifests install it, in namespace ``tekton-pipelines``: the controller, without its webhooks.

The webhooks fill in defaults, which the controller does too, and convert old versions of the kinds, which no test uses.
"""

from __future__ import annotations

import yaml

from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.cluster.engines import TEKTON, image, image_of
from testing.cluster.images import TASK_IMAGE
from tests.engines.argo import install_all

NAMESPACE = "tekton-pipelines"
_SHELL = "cgr.dev/chainguard/busybox"
SWAPS = {
    "ghcr.io/tektoncd/pipeline/entrypoint-*": image_of(TEKTON, "entrypoint").rpartition(":")[0] + ":*",
    f"{_SHELL}*": TASK_IMAGE.replace(":1", ":*"),
}


def install(cluster: Cluster) -> None:
    """Build it if it is not there, install it, and wait for it. Several test workers may do so at once."""
    for name in TEKTON.programs:
        cluster.load_image(image(TEKTON, name))
    manifests = _manifests()
    kinds = []
    for manifest in manifests:
        if manifest["kind"] == "CustomResourceDefinition":
            kinds.append(manifest["metadata"]["name"])
            manifest["spec"].pop("conversion", None)
    install_all(cluster, NAMESPACE, manifests, kinds)


def _manifests() -> list[Object]:
    config = TEKTON.source() / "config"
    paths = [*(config / "100-namespace").glob("*.yaml"), *(config / "300-crds").glob("*.yaml")]
    paths += [path for path in config.glob("*.yaml") if not path.name.startswith("clusterrole-")]
    found: list[Object] = []
    for path in sorted(paths):
        text = path.read_text()
        for name in TEKTON.programs:
            text = text.replace(
                f'ko://github.com/tektoncd/pipeline/cmd/{name}"', f'{image_of(TEKTON, name)}"'
            )
            text = text.replace(
                f"ko://github.com/tektoncd/pipeline/cmd/{name}\n", f"{image_of(TEKTON, name)}\n"
            )
        found += [
            _with_shell(manifest) if manifest["kind"] == "Deployment" else manifest
            for manifest in yaml.load_all(text, Loader=yaml.CSafeLoader)
            if manifest and not _is_of_webhooks(manifest)
        ]
    return found


def _is_of_webhooks(manifest: Object) -> bool:
    # What does not run here; the config maps are small and read by name.
    return manifest["kind"] != "ConfigMap" and any(
        word in manifest["metadata"]["name"] for word in ("webhook", "events")
    )


def _with_shell(manifest: Object) -> Object:
    for container in manifest["spec"]["template"]["spec"]["containers"]:
        container["args"] = [
            TASK_IMAGE if argument.startswith(_SHELL) else argument for argument in container["args"]
        ]
    return manifest


def outcome(run: Object) -> dict[str, str]:
    """The condition that says how a TaskRun ended; empty while it has none."""
    found: list[dict[str, str]] = run.get("status", {}).get("conditions", [])
    return next((item for item in found if item["type"] == "Succeeded"), {})


def ended(run: Object) -> bool:
    """Whether a TaskRun has ended."""
    return outcome(run).get("status") in ("True", "False")
