"""No field of Kubernetes in which a Secret or an image can be named is overlooked.

``fields/fields.txt`` has them all, read off the Go types of Kubernetes 1.34 to 1.37 by ``fields/generate.sh``: each
string below something that is called after a Secret or an image.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runkeys.planning import observation, pod_template
from runkeys.planning.secret_paths import POD, VOLUME, every_secret
from runkeys.policies import Account, build

VERSIONS = ["1.34", "1.35", "1.36", "1.37"]
FIELDS = Path(__file__).parent / "fields" / "fields.txt"

BESIDE_A_NAME = re.compile(
    r"\.(key|path|namespace|secretNamespace|secretFile|apiVersion|kind|uid|fieldPath|resourceVersion)$"
)
"""What stands beside the name of a Secret, or is a path on the node."""

NO_PATH_TO_A_VALUE = {
    "ServiceAccount imagePullSecrets[].name": "copied into the pod, where it is looked at",
    "ServiceAccount secrets[].name": "says which Secrets pods may mount; nothing is read by it",
    "Ingress spec.tls[].secretName": "what reads it is no part of Kubernetes (SECURITY.md)",
}
OF_THE_CLUSTER = "VolumeAttachment"
"""Made by controllers with rights in the whole cluster, of a PersistentVolume."""


def fields() -> dict[str, list[str]]:
    """Kind and path, and in which versions."""
    lines = (line.split("\t") for line in FIELDS.read_text().splitlines())
    return {f"{kind} {path}": versions.split() for kind, path, versions in lines}


def names_of_secrets(kind: str, version: str) -> set[str]:
    """Paths below the spec."""
    return {
        field.removeprefix(f"{kind} spec.")
        for field, versions in fields().items()
        if version in versions
        and field.startswith(f"{kind} ")
        and "secret" in field.lower()
        and not BESIDE_A_NAME.search(field)
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("kind", "held"), [("Pod", POD), ("PersistentVolume", VOLUME)])
def test_each_field_that_names_a_secret_is_looked_at(kind: str, held: tuple[str, ...], version: str) -> None:
    assert names_of_secrets(kind, version) == set(held)


def test_other_kinds_that_name_secrets_are_known() -> None:
    others = {
        field
        for field in fields()
        if field.split()[0] not in ("Pod", "PersistentVolume", OF_THE_CLUSTER)
        and not BESIDE_A_NAME.search(field)
    }

    assert others == NO_PATH_TO_A_VALUE.keys()


def test_each_path_is_in_the_expressions() -> None:
    found = every_secret("object.spec", lambda name: f"ok({name})")
    specs = [item["spec"] for item in build(Account.service_account("a", "b"))]
    expressions = [check["expression"] for spec in specs for check in spec.get("validations", [])]

    assert (
        found.count("ok(") == 3 * 2 + 1 + 1 + 1
    )  # each kind of container twice, pulling, volumes, projected
    for path in (*POD, *VOLUME):
        last = path.rpartition("[].")[2].replace(".", ".?")
        assert any(f".?{last}.orValue('')" in text for text in expressions), path


def test_each_field_that_names_an_image_is_matched_with_the_rules_of_a_binding() -> None:
    """Apart from an RBD image, which is a disk."""
    found = {
        field.removeprefix("Pod spec.")
        for field in fields()
        if field.startswith("Pod ") and re.search(r"\.(image|reference)$", field) and ".rbd." not in field
    }

    assert found == {
        *(f"{kind}[].image" for kind in ("containers", "initContainers", "ephemeralContainers")),
        "volumes[].image.reference",
    }
    pod = {
        **{kind: [{"name": kind, "image": kind}] for kind in ("containers", "initContainers")},
        "volumes": [{"name": "v", "image": {"reference": "volumes"}}],
    }
    assert sorted(pod_template.images({"spec": pod})) == ["containers", "initContainers", "volumes"]
    pod["ephemeralContainers"] = [{"name": "e", "image": "ephemeralContainers"}]
    view = observation.PodView.parse({"metadata": {"name": "p", "uid": "u"}, "spec": pod})
    seen = [*(container.image for container in view.containers), *view.volume_images]
    assert sorted(seen) == ["containers", "ephemeralContainers", "initContainers", "volumes"]
