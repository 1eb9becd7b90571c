"""The chart with what people may give it: missing values, strings that YAML takes for something else, long names."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import chart_values
from testing.cluster import build
from testing.cluster.base import Cluster, ClusterError
from testing.cluster.client import Object
from testing.operators import CHART
from tests.e2e.conftest import OwnNode
from tests.e2e.test_chart import try_out
from tests.e2e.test_chart_install import becomes_available, install, settled_node
from tests.e2e.test_chart_life import previous

pytestmark = pytest.mark.e2e

VALUES = (CHART / "values.yaml").read_text()
# With these, null says that Kubernetes or the cluster chooses.
PASSED_ON = ("resources", "runAsUser", "topologySpreadConstraints")
ALL_ON = {name: {"enabled": True} for name in ("networkPolicy", "serviceMonitor", "prometheusRule")}
LONGEST_RELEASE, LONGEST_NAMESPACE = 53, 63

# A string, all of these, that YAML 1.1 reads as a number, a truth value, nothing or a day where it is not quoted.
NAMES = ("123", "0123", "1e3", "0x1f", "on", "y", "true", "null", "2001-01-01", "1-2")
TEXTS = (
    *NAMES,
    *(
        "a: b #c",
        "two\nlines\n",
        "- x",
        'it\'s "so"',
        "%x",
        "@x",
        "*x",
        "&x",
        "!x",
        "{{ .Values }}",
        "",
        " x ",
    ),
    "---\nkind: Secret",
)


def rendered(
    folder: Path,
    values: Object,
    *arguments: str,
    release: str = "runkeys",
    to: str = "system",
    chart: Path = CHART,
) -> list[Object]:
    """All objects, those of hooks too. Needs no cluster. Raises ClusterError with what helm says."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    command = [
        str(build.program("helm")),
        "template",
        release,
        str(chart),
        f"--namespace={to}",
        f"--values={file}",
    ]
    command += ["--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    if done.returncode != 0:
        raise ClusterError(done.stderr)
    return [item for item in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if item]


def replaced(value: Any, old: str, new: str) -> Any:
    """The same with another string in every string."""
    if isinstance(value, dict):
        return {replaced(key, old, new): replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, old, new) for item in value]
    return value.replace(old, new) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> list[Object]:
    return rendered(tmp_path_factory.mktemp("default"), {})


class TestMissing:
    @pytest.mark.parametrize("path", [value.path for value in chart_values.values_of(VALUES)])
    def test_a_value_that_is_missing_has_its_default(
        self, tmp_path: Path, by_default: list[Object], path: str
    ) -> None:
        found = rendered(tmp_path, {}, f"--set={path}=null")

        assert (found == by_default) == (path.partition(".")[0] not in PASSED_ON)

    @pytest.mark.parametrize("block", sorted(yaml.safe_load(VALUES)))
    def test_so_has_a_block(self, tmp_path: Path, by_default: list[Object], block: str) -> None:
        found = rendered(tmp_path, {block: None})

        assert (found == by_default) == (block not in PASSED_ON)

    def test_what_is_off_stays_off(self, tmp_path: Path) -> None:
        found = rendered(tmp_path, {"drain": {"enabled": False}, "keyRotationDays": 0, "replicas": 0})

        assert not any(item["kind"] == "Job" for item in found)
        [deployment] = [item for item in found if item["kind"] == "Deployment"]
        assert deployment["spec"]["replicas"] == 0
        assert "--key-rotation-days=0" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]

    def test_an_upgrade_may_reuse_the_values_of_an_older_version(
        self, cluster: Cluster, new_namespace: Callable[[], str], tmp_path: Path
    ) -> None:
        """That one knew neither `crds` nor `sealedDelivery`."""
        system, served = new_namespace(), new_namespace()
        release = f"runkeys-{secrets.token_hex(3)}"
        old = previous(tmp_path) / "helm" / "runkeys"
        assert "sealedDelivery" not in (old / "values.yaml").read_text()
        served_here = f"--set=watchNamespaces={{{served}}}"
        cluster.helm("install", release, str(old), f"--namespace={system}", "--skip-crds", served_here)

        told = cluster.helm(
            *("upgrade", release, str(CHART), f"--namespace={system}", "--reuse-values"),
            *("--set=crds.install=false", "--dry-run=server"),
        )

        assert "--key-rotation-days=30" in told
        assert f'value: "{served}"' in told
        cluster.helm("uninstall", release, f"--namespace={system}", "--no-hooks")


class TestStrings:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize(
        "values",
        [
            {
                "watchNamespaces": ["placeholder"],
                "sources": [{"namespace": "placeholder", "secretNames": ["x"]}],
            },
            {},
        ],
        ids=["one namespace", "everywhere"],
    )
    def test_names_stay_strings(self, tmp_path: Path, values: Object, name: str) -> None:
        values = {**values, **ALL_ON, "sealedDelivery": {"enabled": True}, "priorityClassName": "placeholder"}
        plain = rendered(tmp_path, values, release="placeholder", to="placeholder")

        there = rendered(tmp_path, replaced(values, "placeholder", name), release=name, to=name)

        assert there == replaced(plain, "placeholder", name)

    @pytest.mark.parametrize("text", TEXTS)
    def test_texts_stay_as_they_are(self, tmp_path: Path, text: str) -> None:
        def values(text: str, label: str) -> Object:
            noted = {"example.com/a": text}
            return {
                **{f"{name}Annotations": noted for name in ("deployment", "pod", "serviceAccount")},
                "tolerations": [{"key": "k", "operator": "Equal", "value": text}],
                "nodeSelector": {"k": text},
                "affinity": {"x": text},
                **{name: {"team": label} for name in ("commonLabels", "podLabels")},
                "serviceMonitor": {"enabled": True, "labels": {"team": label, "other": label}},
            }

        label = text if text in NAMES else "label"

        found = rendered(tmp_path, values(text, label))

        assert found == [
            replaced(replaced(item, "PLACE", text), "HOLDER", label)
            for item in rendered(tmp_path, values("PLACE", "HOLDER"))
        ]

    def test_tags_and_repositories_stay_strings(self, tmp_path: Path) -> None:
        found = rendered(tmp_path, {"image": {"repository": "on", "tag": "1e3"}, **ALL_ON})

        images = {
            container["image"]
            for item in found
            for spec in (item.get("spec", {}).get("template", {}).get("spec", {}), item.get("spec", {}))
            for container in spec.get("containers") or []
        }
        assert images == {"on:1e3"}


class TestDependency:
    def parent(self, folder: Path, chart: Path = CHART) -> Path:
        parent = folder / "parent"
        (parent / "charts").mkdir(parents=True)
        shutil.copytree(chart, parent / "charts" / "runkeys")
        needed = {"name": "runkeys", "version": ">=0", "condition": "runkeys.enabled"}
        metadata = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [needed]}
        (parent / "Chart.yaml").write_text(yaml.safe_dump(metadata))
        (parent / "values.yaml").write_text("global: {registry: r.example}\nrunkeys: {enabled: true}\n")
        return parent

    def test_a_parent_chart_turns_it_on_and_off(self, tmp_path: Path) -> None:
        parent = self.parent(tmp_path)

        on = rendered(tmp_path, {"runkeys": {"replicas": 3, "drain": None}}, chart=parent)
        off = rendered(tmp_path, {"runkeys": {"enabled": False}}, chart=parent)

        [deployment] = [item for item in on if item["kind"] == "Deployment"]
        assert deployment["spec"]["replicas"] == 3
        assert [item["metadata"]["name"] for item in on if item["kind"] == "Job"] == ["runkeys-drain"]
        assert off == []

    def test_the_rest_of_its_values_is_checked(self, tmp_path: Path) -> None:
        """The control: the schema is at work there."""
        parent = self.parent(tmp_path)

        with pytest.raises(ClusterError, match="additional properties 'replica' not allowed"):
            rendered(tmp_path, {"runkeys": {"replica": 3}}, chart=parent)


def lasts(length: int, first: str = "") -> str:
    """Digits alone, as a name may be."""
    return first + "".join(secrets.choice("123456789") for _ in range(length - len(first)))


class TestLongNames:
    def test_the_longest_names_install_test_and_uninstall(self, own_node: OwnNode) -> None:
        node = settled_node(own_node)
        release, system = lasts(LONGEST_RELEASE), lasts(LONGEST_NAMESPACE)
        install(node, release, system)
        becomes_available(node, system)

        assert "its pod found the value" in node.helm("test", release, f"--namespace={system}", "--logs")
        node.helm("uninstall", release, f"--namespace={system}", "--wait")

        assert node.client.list("deployments", system) == []
        changes = list(node.etcd.history(f"/registry/jobs/{system}/"))
        assert len({change.key for change in changes if change.key.endswith("-drain")}) == 1
        assert changes[-1].value is None

    @pytest.mark.usefixtures("crds")
    def test_the_api_server_takes_every_object_with_them(self, cluster: Cluster, tmp_path: Path) -> None:
        system = lasts(LONGEST_NAMESPACE)
        cluster.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": system}})
        found = rendered(tmp_path, ALL_ON, release=lasts(LONGEST_RELEASE), to=system)
        # Without its account a Pod is refused, also when tried out.
        for item in found:
            if item["kind"] == "ServiceAccount":
                cluster.client.apply(item)
        known = [item for item in found if not item["apiVersion"].startswith("monitoring.")]

        assert try_out(cluster, known).count("(server dry run)") == len(known)

        # The control: a name that is not cut off.
        [job] = [item for item in known if item["kind"] == "Job"]
        job["metadata"]["name"] += "-longer"
        with pytest.raises(ClusterError, match="must be no more than 63"):
            try_out(cluster, [job])
        cluster.client.delete("namespaces", system)
