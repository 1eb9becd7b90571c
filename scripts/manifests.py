"""Writes deploy/ from the chart, for `kubectl apply -k`: `python -m scripts.manifests`.

What the chart renders alike for all namespaces and for two named ones is the base, the rest is an overlay of each.
Hooks are left out: nobody would run them. The kinds are those of crds/.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from testing.cluster import build

ROOT = Path(__file__).resolve().parents[1]
CHART, CRDS, DEPLOY = ROOT / "helm" / "runkeys", ROOT / "crds", ROOT / "deploy"
NAMESPACE = "runkeys-system"
OVERLAYS = {"all-namespaces": (), "two-namespaces": ("team-a", "team-b")}
HEADER = "# Generated from helm/runkeys by `make manifests`. Do not edit.\n"

Object = dict[str, Any]


def rendered(namespaces: tuple[str, ...]) -> list[Object]:
    """What the chart installs, apart from the kinds and from what only helm has a use for."""
    served = [f"--set=watchNamespaces={{{','.join(namespaces)}}}"] if namespaces else []
    command = [
        *(
            str(build.program("helm")),
            "template",
            "runkeys",
            str(CHART),
            f"--namespace={NAMESPACE}",
            "--no-hooks",
        ),
        *(
            "--kube-version",
            build.KUBERNETES,
            "--set=crds.install=false",
            "--set=drain.enabled=false",
            *served,
        ),
        *("--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [plain(item) for item in yaml.safe_load_all(done.stdout) if item]


def plain(manifest: Object) -> Object:
    """Without helm's own labels and annotations, which would say that the object belongs to a release."""
    metadata = dict(manifest["metadata"])
    for field in ("labels", "annotations"):
        kept = {
            key: value for key, value in (metadata.pop(field, None) or {}).items() if not _of_helm(key, value)
        }
        if kept:
            metadata[field] = kept
    found = {**manifest, "metadata": metadata}
    template = (found.get("spec") or {}).get("template")
    if template is not None:
        found = {**found, "spec": {**found["spec"], "template": plain(template)}}
    return found


def _of_helm(key: str, value: str) -> bool:
    return key.startswith("helm.sh/") or (key, value) == ("app.kubernetes.io/managed-by", "Helm")


def files() -> dict[Path, str]:
    """Every file that is written, by its path."""
    by_overlay = {overlay: rendered(namespaces) for overlay, namespaces in OVERLAYS.items()}
    first, *others = by_overlay.values()
    common = [item for item in first if all(item in other for other in others)]
    namespace = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    }
    kinds = sorted(path.name for path in CRDS.glob("*.yaml"))
    found = {
        # With this name, so that kubectl takes it for no manifest if somebody applies the whole folder.
        CRDS / "Kustomization": _kustomization(*kinds),
        DEPLOY / "base" / "kustomization.yaml": _kustomization("../../crds", "objects.yaml"),
        DEPLOY / "base" / "objects.yaml": _text([namespace, *common]),
    }
    for overlay, objects in by_overlay.items():
        found[DEPLOY / overlay / "kustomization.yaml"] = _kustomization("../base", "objects.yaml")
        found[DEPLOY / overlay / "objects.yaml"] = _text([item for item in objects if item not in common])
    return found


def _kustomization(*resources: str) -> str:
    return _text(
        [
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": list(resources),
            }
        ]
    )


def _text(objects: list[Object]) -> str:
    return HEADER + yaml.safe_dump_all(objects, sort_keys=False, width=110)


def main() -> int:
    build.ensure(("helm",), sys.stderr)
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
