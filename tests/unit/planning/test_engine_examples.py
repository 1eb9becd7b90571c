"""The bindings of the engines' examples admit pods as those engines create them, and the documents say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from runkeys.api import SecretBinding
from runkeys.planning.access import PodSubject, pod_denial

ROOT = Path(__file__).parents[3]
DIGEST = "@sha256:3ec960b07abd85604242e146092e72f11be8787452c2a20d12a37fdee4a666e2"
ENGINES = {
    "jobset": ("system:serviceaccount:kube-system:job-controller", ("batch", "Job"), ["busybox:1.37"]),
    "argo-workflows": (
        "system:serviceaccount:argo:argo",
        ("argoproj.io", "Workflow"),
        ["busybox:1.37", "quay.io/argoproj/argoexec:v4.0.5"],
    ),
    "tekton": (
        "system:serviceaccount:tekton-pipelines:tekton-pipelines-controller",
        ("tekton.dev", "TaskRun"),
        [
            "busybox:1.37",
            # As a release has it: ko appends a hash of the program's path.
            f"ghcr.io/tektoncd/pipeline/entrypoint-bff0a22da108bc2f16c818c97641a296:v1.6.0{DIGEST}",
            f"cgr.dev/chainguard/busybox{DIGEST}",
        ],
    ),
}


def binding_of(engine: str) -> SecretBinding:
    [found] = yaml.safe_load_all((ROOT / "examples" / engine / "binding.yaml").read_text())
    found["metadata"] |= {"namespace": "team-a", "uid": "u", "generation": 1}
    return SecretBinding.parse(found)


def subject(engine: str, **changes: object) -> PodSubject:
    created_by, owner, images = ENGINES[engine]
    labels = {"app": "training" if engine == "jobset" else "nightly"}
    found = {"labels": labels, "service_account": "runner", "images": images, "created_by": created_by}
    return PodSubject(**{**found, "owner": owner, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_binding_admits_the_engines_pods_and_no_others(engine: str) -> None:
    binding = binding_of(engine)
    assert pod_denial(binding, subject(engine)) is None
    for images in ([*ENGINES[engine][2], "ghcr.io/other/tool:1"], ["docker.io/argoproj/argoexec:v4.0.5"]):
        assert "matches no pattern" in str(pod_denial(binding, subject(engine, images=images)))
    assert "createdBy" in str(pod_denial(binding, subject(engine, created_by="alice")))
    assert "ownedBy" in str(pod_denial(binding, subject(engine, owner=("apps", "ReplicaSet"))))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_documents_name_the_same_account_and_images(engine: str) -> None:
    [rule] = binding_of(engine).spec.access
    [row] = [
        line
        for line in (ROOT / "docs" / "pods.md").read_text().splitlines()
        if f"(../examples/{engine}/" in line and line.startswith("|")
    ]
    assert ENGINES[engine][0] in row
    assert [pattern for pattern in rule.images or () if f"`{pattern}`" not in row] == ["busybox:*"]
