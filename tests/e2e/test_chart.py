"""The chart: what it renders, which rights that is on a real API server, and that it runs as it says."""

from __future__ import annotations

import os
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.api.crd import KINDS, file_name, render
from runkeys.planning.requirements import UNSEAL_RESOURCES
from runkeys.policies import Account, build, difference
from runkeys_operator.__main__ import main
from runkeys_operator.checks.preflight import NEEDED, NEEDED_SEALED, NEEDED_STORES
from runkeys_operator.values.revoker import token_file
from testing.cluster import images
from testing.cluster.base import Cluster, ClusterError, wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import PATIENCE, KubeClient, Object
from testing.cluster.resources import by_plural
from tests.e2e.test_chart_install import becomes_available

CHART = CHECKOUT / "helm" / "runkeys"
EXAMPLES = CHECKOUT / "examples"
GOLDEN = Path(__file__).parent / "golden"

EVERYWHERE: tuple[str, ...] = ()
SEALED_DELIVERY = "--set=sealedDelivery.enabled=true"
STORES = ("--set=stores.enabled=true", "--set=stores.audiences={bao,vault.example}")
TWO_NAMESPACES = (
    "--set=watchNamespaces={team-a,team-b}",
    "--set=sources[0].namespace=team-a",
    "--set=sources[0].secretNames={db,ibm-quantum}",
)
# Values with tests of their own.
ELSEWHERE = {
    *("sources", "crds", "drain", "podDisruptionBudget", "networkPolicy", "serviceMonitor", "prometheusRule"),
    *("installPolicies", "installRoles", "sealedDelivery", "pods", "stores"),
    *("commonLabels", "deploymentAnnotations", "serviceAccountAnnotations"),
}
EVERYTHING = tuple(
    f"--set={name}.enabled=true" for name in ("networkPolicy", "serviceMonitor", "prometheusRule")
)
CRD = "CustomResourceDefinition"
POLICIES = "admissionregistration.k8s.io"
CLUSTER_WIDE = {
    *("ClusterRole", "ClusterRoleBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
}
# The strictest of Kubernetes' own standards for pods.
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def template(
    cluster: Cluster, *arguments: str, release: str = "runkeys", to: str = "runkeys-system"
) -> list[Object]:
    """Return what helm would install into the namespace ``to``, apart from hooks."""
    printed = cluster.helm("template", release, str(CHART), "--namespace", to, "--no-hooks", *arguments)
    return [manifest for manifest in yaml.safe_load_all(printed) if manifest]


def hooks(
    cluster: Cluster, *arguments: str, release: str = "runkeys", to: str = "runkeys-system"
) -> list[Object]:
    """Return what is there only while a hook runs."""
    printed = cluster.helm("template", release, str(CHART), "--namespace", to, *arguments)
    found = [manifest for manifest in yaml.safe_load_all(printed) if manifest]
    return [m for m in found if "helm.sh/hook" in (m["metadata"].get("annotations") or {})]


def rights_only(manifests: list[Object]) -> list[Object]:
    return [m for m in manifests if m["apiVersion"].startswith("rbac.")]


def comparable(manifests: list[Object]) -> list[Object]:
    """Without labels, in an order that does not depend on helm."""
    bare = [{**m, "metadata": {k: v for k, v in m["metadata"].items() if k != "labels"}} for m in manifests]
    return sorted(bare, key=lambda m: (m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]))


class TestRendered:
    def test_lint_is_content(self, cluster: Cluster) -> None:
        assert "1 chart(s) linted, 0 chart(s) failed" in cluster.helm("lint", "--strict", str(CHART))

    @pytest.mark.parametrize(
        ("values", "golden"),
        [(EVERYWHERE, "rbac-all-namespaces.yaml"), (TWO_NAMESPACES, "rbac-two-namespaces.yaml")],
        ids=["everywhere", "two namespaces"],
    )
    def test_rights_are_the_reviewed_ones(
        self, cluster: Cluster, values: tuple[str, ...], golden: str
    ) -> None:
        reviewed = list(yaml.safe_load_all((GOLDEN / golden).read_text()))

        assert comparable(rights_only(template(cluster, *values))) == comparable(reviewed)

    def test_sealed_delivery_adds_these_rights_and_no_others(self, cluster: Cluster) -> None:
        without = comparable(rights_only(template(cluster, *EVERYWHERE)))
        found = comparable(rights_only(template(cluster, *EVERYWHERE, "--set=sealedDelivery.enabled=true")))
        group = {"apiGroups": ["certificates.k8s.io"]}
        name = "runkeys-system.runkeys-sealed-delivery"
        [operators] = [m for m in without if (m["kind"], m["metadata"]["name"]) == ("ClusterRole", "runkeys")]
        operators["rules"] += [
            {**group, "resources": ["podcertificaterequests"], "verbs": ["list", "watch", "delete"]},
            {**group, "resources": ["podcertificaterequests/status"], "verbs": ["patch"]},
        ]
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
        }
        signs = {"resources": ["signers"], "resourceNames": ["runkeys.dev/recipient"], "verbs": ["sign"]}
        bound = {
            **role,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "runkeys", "namespace": "runkeys-system"}],
        }
        assert found == comparable([*without, {**role, "rules": [{**group, **signs}]}, bound])

    def test_stores_add_these_rights_and_no_others(self, cluster: Cluster) -> None:
        without = comparable(rights_only(template(cluster, *EVERYWHERE)))
        found = comparable(rights_only(template(cluster, *EVERYWHERE, *STORES)))
        group, rbac = {"apiGroups": ["runkeys.dev"]}, {"apiVersion": "rbac.authorization.k8s.io/v1"}
        name = "runkeys-system.runkeys-stores"
        rules = [
            {**group, "resources": ["secretstores"], "verbs": ["get", "list", "watch"]},
            {**group, "resources": ["secretstores/status"], "verbs": ["patch"]},
        ]
        # Of namespaces that are deleted, and have lost their Role.
        finalizers = [
            {**group, "resources": ["workflowruns"], "verbs": ["get", "patch"]},
            {**group, "resources": ["workflowruns/status"], "verbs": ["patch"]},
        ]
        bound = {
            **rbac,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "runkeys", "namespace": "runkeys-system"}],
        }
        [policies] = [
            item
            for item in without
            if (item["kind"], item["metadata"]["name"])
            == ("ClusterRole", "runkeys-policies.runkeys-system.runkeys")
        ]
        policies["rules"][0]["resourceNames"] += [
            f"runkeys-{name}.runkeys-system.runkeys" for name in ("store-namespaces", "store-tokens")
        ]
        role = {**rbac, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules + finalizers}
        assert found == comparable([*without, role, bound])
        asked = {
            (right.verb, f"{right.resource.plural}/{right.subresource}".rstrip("/"))
            for right in NEEDED_STORES
        }
        assert asked == {(verb, item["resources"][0]) for item in rules for verb in item["verbs"]}

    def test_stores_are_named_to_the_operator_and_to_its_policies(self, cluster: Cluster) -> None:
        pod = one(template(cluster, *STORES), "Deployment")["spec"]["template"]["spec"]
        [container] = pod["containers"]
        folder = "/var/run/runkeys/store-tokens"
        assert [item for item in container["args"] if "store" in item] == [
            "--store-audience=bao",
            "--store-audience=vault.example",
            f"--store-tokens={folder}",
        ]
        audiences = ("bao", "vault.example")
        # Its own tokens, with which it revokes leases, are where it looks for them.
        [mount], [volume] = container["volumeMounts"], pod["volumes"]
        assert (mount["name"], mount["mountPath"], mount["readOnly"]) == (volume["name"], folder, True)
        sources = [item["serviceAccountToken"] for item in volume["projected"]["sources"]]
        assert [(item["audience"], Path(folder) / item["path"]) for item in sources] == [
            (audience, token_file(Path(folder), audience)) for audience in audiences
        ]
        account = Account.service_account("runkeys-system", "runkeys", audiences)
        api = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"
        installed = {
            (item["kind"], item["metadata"]["name"]): item["spec"]
            for item in template(cluster, *STORES, api)
            if item["apiVersion"].startswith(POLICIES)
        }
        expected = {(item["kind"], item["metadata"]["name"]): item["spec"] for item in build(account)}
        assert installed.keys() == expected.keys()
        assert [key for key in expected if difference(expected[key], installed[key]) is not None] == []
        pod = one(template(cluster), "Deployment")["spec"]["template"]["spec"]
        assert [item for item in pod["containers"][0]["args"] if "store" in item] == []
        assert "volumes" not in pod
        with pytest.raises(ClusterError, match=r"stores\.enabled needs stores\.audiences"):
            template(cluster, "--set=stores.enabled=true")

    def test_rights_are_those_that_the_operator_asks_for(self, cluster: Cluster) -> None:
        [role] = [
            m for m in template(cluster) if m["kind"] == "ClusterRole" and m["metadata"]["name"] == "runkeys"
        ]
        granted = {
            (verb, group, resource)
            for rule in role["rules"]
            for verb in rule["verbs"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
        }
        needed = {
            (right.verb, right.resource.group, f"{right.resource.plural}/{right.subresource}".rstrip("/"))
            for right in NEEDED
        }

        assert granted == needed

    def test_sealed_delivery_is_granted_as_the_operator_asks_for_it(self, cluster: Cluster) -> None:
        granted = {
            (verb, resource)
            for role in template(cluster, SEALED_DELIVERY)
            if (role["kind"], role["metadata"]["name"]) == ("ClusterRole", "runkeys")
            for rule in role["rules"]
            for verb in rule["verbs"]
            for resource in rule["resources"]
            if rule["apiGroups"] == ["certificates.k8s.io"]
        }
        needed = {
            (right.verb, f"{right.resource.plural}/{right.subresource}".rstrip("/"))
            for right in NEEDED_SEALED
        }

        assert granted == needed
        images_of = {
            container["image"]
            for manifest in template(cluster, SEALED_DELIVERY)
            if manifest["kind"] == "Deployment"
            for container in manifest["spec"]["template"]["spec"]["containers"]
            for argument in container["args"]
            if argument == f"--sealed-delivery-image={container['image']}"
        }
        assert len(images_of) == 1, "the operator opens in pods with its own image"

    def test_the_resources_of_the_unseal_container_reach_the_operator(self, cluster: Cluster) -> None:
        for sets, wanted in (
            ((), UNSEAL_RESOURCES),
            (
                ("--set=sealedDelivery.resources.limits.cpu=1",),
                {**UNSEAL_RESOURCES, "limits": {**UNSEAL_RESOURCES["limits"], "cpu": "1"}},
            ),
        ):
            (deployment,) = [
                item for item in template(cluster, SEALED_DELIVERY, *sets) if item["kind"] == "Deployment"
            ]
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            context = main.make_context("operator", list(container["args"]), resilient_parsing=False)
            assert context.params["sealed_delivery_resources"] == wanted

    def test_nothing_reaches_across_the_cluster_when_namespaces_are_named(self, cluster: Cluster) -> None:
        manifests = template(cluster, *TWO_NAMESPACES)

        # Apart from the policies, which can only be there for the whole cluster, and the right to read these by name.
        bound = {m["roleRef"]["name"] for m in manifests if m["kind"] == "ClusterRoleBinding"}
        assert bound == {"runkeys-policies.runkeys-system.runkeys"}
        [reader] = [m for m in manifests if m["kind"] == "ClusterRole" and m["metadata"]["name"] in bound]
        assert all((rule["apiGroups"], rule["verbs"]) == ([POLICIES], ["get"]) for rule in reader["rules"])
        assert all(rule["resourceNames"] for rule in reader["rules"])
        assert {m["metadata"]["namespace"] for m in manifests if "namespace" in m["metadata"]} == {
            *("runkeys-system", "team-a", "team-b")
        }
        assert {m["kind"] for m in manifests if "namespace" not in m["metadata"]} <= {CRD, *CLUSTER_WIDE}

    def test_pods_that_ask_need_sealed_delivery_and_policies_of_their_own(self, cluster: Cluster) -> None:
        with pytest.raises(ClusterError, match=r"needs sealedDelivery\.enabled: set it to true as well"):
            template(cluster, "--set=pods.enabled=true")

        def names(*more: str) -> set[str]:
            found = template(cluster, SEALED_DELIVERY, *EVERYWHERE, *more)
            return {item["metadata"]["name"] for item in found if item["kind"].endswith("AdmissionPolicy")}

        added = names("--set=pods.enabled=true") - names()
        assert {name.partition(".")[0] for name in added} >= {
            *("runkeys-asking", "runkeys-asking-shown", "runkeys-asking-frozen")
        }
        deployment = one(template(cluster, SEALED_DELIVERY, "--set=pods.enabled=true"), "Deployment")
        assert "--pods" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]

    @pytest.mark.parametrize("cloud", ["aws", "azure", "google"])
    def test_a_provider_gets_a_socket_and_nothing_of_the_operator(self, cluster: Cluster, cloud: str) -> None:
        """`RUNKEYS_GOLDEN=write` writes what is compared, to be looked at."""
        values = CHART.parents[1] / "examples" / "cloud-stores" / f"{cloud}-values.yaml"
        pod = one(template(cluster, f"--values={values}"), "Deployment")["spec"]["template"]["spec"]
        operator, provider = pod["containers"]
        [path] = [item["mountPath"] for item in operator["volumeMounts"] if item["name"] == "token"]
        assert path == "/var/run/secrets/kubernetes.io/serviceaccount"
        assert not {"token", "store-tokens"} & {item["name"] for item in provider["volumeMounts"]}
        assert "--store-providers=/var/run/runkeys/providers" in operator["args"]

        kept = ("automountServiceAccountToken", "serviceAccountName", "securityContext", "volumes")
        found = {key: pod[key] for key in kept}
        found |= {"operator": {"volumeMounts": operator["volumeMounts"]}, "provider": provider}
        golden = GOLDEN / f"provider-{cloud}.yaml"
        if os.environ.get("RUNKEYS_GOLDEN") == "write":
            golden.write_text(yaml.safe_dump(found))
        assert found == yaml.safe_load(golden.read_text())

    def test_providers_need_stores_and_without_them_the_pod_is_as_it_was(self, cluster: Cluster) -> None:
        given = ("--set=stores.providers[0].name=aws", "--set=stores.providers[0].image=x")
        with pytest.raises(ClusterError, match=r"stores\.providers needs stores\.enabled: set it to true"):
            template(cluster, *given)
        pod = one(template(cluster, *STORES), "Deployment")["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is True
        assert [item["name"] for item in pod["volumes"]] == ["store-tokens"]
        [operator] = pod["containers"]
        assert not [item for item in operator["args"] if item.startswith("--store-providers")]
        with pytest.raises(ClusterError, match="name"):
            template(
                cluster, *STORES, "--set=stores.providers[0].name=../x", "--set=stores.providers[0].image=x"
            )

    def test_every_value_reaches_the_pod(self, cluster: Cluster) -> None:
        digest = "sha256:" + "0" * 64
        spread = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        values = {
            "image": {
                "repository": "registry.example/rk",
                "tag": "v9",
                "digest": digest,
                "pullPolicy": "Always",
            },
            "imagePullSecrets": [{"name": "registry"}],
            "log": {"format": "text", "level": "debug"},
            "watchNamespaces": ["a", "b"],
            "replicas": 3,
            "leaseSeconds": 9,
            "workers": 3,
            "sweepSeconds": 7,
            "keyRotationDays": 8,
            "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
            "runAsUser": 1234,
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "topologySpreadConstraints": [spread],
            "priorityClassName": "high",
            "podLabels": {"team": "platform"},
            "podAnnotations": {"scrape": "true"},
        }
        assert values.keys() == yaml.safe_load((CHART / "values.yaml").read_text()).keys() - ELSEWHERE
        file = cluster.scratch / f"values-{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump(values))

        deployment = one(template(cluster, f"--values={file}"), "Deployment")
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]

        assert deployment["spec"]["replicas"] == 3

        assert container["image"] == f"registry.example/rk:v9@{digest}"
        assert container["imagePullPolicy"] == "Always"
        assert container["resources"] == values["resources"]
        assert container["args"] == [
            "--log-format=text",
            "--log-level=debug",
            "--health-port=8080",
            "--workers=3",
            "--sweep-seconds=7",
            "--lease=runkeys-system/runkeys",
            "--lease-seconds=9",
            "--key-rotation-days=8",
        ]
        assert {item["name"]: item.get("value") for item in container["env"]} == {
            "RUNKEYS_OPERATOR_NAMESPACE": None,  # from the pod itself
            "RUNKEYS_IDENTITY": None,
            "RUNKEYS_NAMESPACES": "a,b",
        }
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 1234
        for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
            assert pod[key] == values[key]
        assert pod["topologySpreadConstraints"] == [
            {**spread, "labelSelector": {"matchLabels": deployment["spec"]["selector"]["matchLabels"]}}
        ]
        metadata = deployment["spec"]["template"]["metadata"]
        assert metadata["annotations"] == {"scrape": "true"}
        assert metadata["labels"]["team"] == "platform"

    def test_labels_and_annotations_reach_their_objects(self, cluster: Cluster) -> None:
        manifests = template(
            cluster,
            *("--set=commonLabels.team=platform", "--set=deploymentAnnotations.a=b"),
            "--set=serviceAccountAnnotations.c=d",
        )

        assert all(m["metadata"]["labels"]["team"] == "platform" for m in manifests)
        assert one(manifests, "Deployment")["metadata"]["annotations"] == {"a": "b"}
        assert one(manifests, "ServiceAccount")["metadata"]["annotations"] == {"c": "d"}

    def test_the_cluster_may_choose_the_user(self, cluster: Cluster) -> None:
        context = pod_spec(template(cluster, "--set=runAsUser=null"))["securityContext"]

        assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ("--set=watchNamespace=a", "additional properties 'watchNamespace' not allowed"),
            ("--set=watchNamespaces=a", "at '/watchNamespaces': got string, want array"),
            ("--set=watchNamespaces={Team A}", "at '/watchNamespaces/0'"),
            ("--set=image.digest=latest", "at '/image/digest'"),
            ("--set=log.level=loud", "at '/log/level'"),
            ("--set=workers=0", "at '/workers'"),
            ("--set=replicas=two", "at '/replicas': got string, want integer"),
            ("--set=leaseSeconds=2", "at '/leaseSeconds'"),
            ("--set=podDisruptionBudget.maxUnavailable=half", "at '/podDisruptionBudget/maxUnavailable'"),
            ("--set=networkPolicy.apiServerPorts={http}", "at '/networkPolicy/apiServerPorts/0'"),
            ("--set=networkPolicy.apiServerCidrs={apiserver}", "at '/networkPolicy/apiServerCidrs/0'"),
            ("--set=serviceMonitor.interval=often", "at '/serviceMonitor/interval'"),
            (
                '--set-json=commonLabels={"app.kubernetes.io/name":"x"}',
                "invalid propertyName 'app.kubernetes.io/name'",
            ),
            ("--set=commonLabels.team=A B", "at '/commonLabels/team'"),
            ("--set=podAnnotations.n=1", "at '/podAnnotations/n': got number, want string"),
            ('--set-json=topologySpreadConstraints=[{"maxSkew":1}]', "at '/topologySpreadConstraints/0'"),
            ("--set=crds.keep=false", "additional properties 'keep' not allowed"),
            ("--set=drain.timeoutSeconds=1", "at '/drain/timeoutSeconds'"),
            ('--set-json=sources=[{"namespace":"a"}]', "missing property 'secretNames'"),
            ('--set-json=sources=[{"namespace":"a","secretNames":[]}]', "at '/sources/0/secretNames'"),
            (
                '--set-json=sources=[{"namespace":"a","secretNames":["x"]},{"namespace":"a","secretNames":["y"]}]',
                "namespace a is there twice: put its secretNames into one entry",
            ),
        ],
    )
    def test_a_wrong_value_is_refused(self, cluster: Cluster, value: str, message: str) -> None:
        with pytest.raises(ClusterError, match=re.escape(message)):
            template(cluster, value)

    def test_the_kinds_come_with_the_release_and_stay_when_it_goes(self, cluster: Cluster) -> None:
        kinds = [m for m in template(cluster) if m["kind"] == CRD]

        own = {f"{kind.CRD.plural}.runkeys.dev": yaml.safe_load(render(kind)) for kind in KINDS}
        assert sorted(m["metadata"]["name"] for m in kinds) == sorted(own)
        for manifest in kinds:
            assert manifest["spec"] == own[manifest["metadata"]["name"]]["spec"]
            assert manifest["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert CRD not in {m["kind"] for m in template(cluster, "--set=crds.install=false")}

    def test_the_package_holds_the_kinds(self, cluster: Cluster, tmp_path: Path) -> None:
        cluster.helm("package", str(CHART), "--destination", str(tmp_path))
        [package] = tmp_path.glob("*.tgz")
        with tarfile.open(package) as tar:
            packed = {
                name.removeprefix("runkeys/files/crds/"): content.read().decode()
                for name in tar.getnames()
                if name.startswith("runkeys/files/crds/") and (content := tar.extractfile(name)) is not None
            }

        assert packed == {file_name(kind): render(kind) for kind in KINDS}

    def test_what_is_off_by_default_is_not_there(self, cluster: Cluster) -> None:
        optional = {"NetworkPolicy", "ServiceMonitor", "PrometheusRule", "Service"}
        without = {"PodDisruptionBudget", *optional}

        assert not optional & {m["kind"] for m in template(cluster)}
        assert optional <= {m["kind"] for m in template(cluster, *EVERYTHING)}
        assert not without & {m["kind"] for m in template(cluster, "--set=podDisruptionBudget.enabled=false")}

    def test_pods_of_the_release_are_the_ones_selected(self, cluster: Cluster) -> None:
        """By budget, policy and Service; and the pods of the hooks are not among them."""
        manifests = template(cluster, *EVERYTHING, "--set=podLabels.team=platform")
        labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
        found = [
            one(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            one(manifests, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
            one(manifests, "Service")["spec"]["selector"],
        ]
        others = [one(hooks(cluster), "Pod"), one(hooks(cluster), "Job")["spec"]["template"]]

        for selector in found:
            assert selector.items() <= labels.items()
            assert not any(selector.items() <= pod["metadata"]["labels"].items() for pod in others)

    def test_the_network_policy_opens_what_is_named(self, cluster: Cluster) -> None:
        sets = ("apiServerPorts={8443}", "apiServerCidrs={10.0.0.1/32}")
        spec = one(
            template(
                cluster,
                "--set=networkPolicy.enabled=true",
                *(f"--set=networkPolicy.{item}" for item in sets),
                '--set-json=networkPolicy.metricsFrom=[{"namespaceSelector":{}}]',
            ),
            "NetworkPolicy",
        )["spec"]

        assert spec["egress"] == [
            {"ports": [{"port": 8443, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}]}
        ]
        assert spec["ingress"] == [
            {"ports": [{"port": "health", "protocol": "TCP"}], "from": [{"namespaceSelector": {}}]}
        ]

    def test_accounts_of_hooks_can_do_no_more_than_their_work(self, cluster: Cluster) -> None:
        granted = {
            m["metadata"]["name"]: [
                (rule["resources"], rule.get("resourceNames"), rule["verbs"]) for rule in m["rules"]
            ]
            for m in [*template(cluster), *hooks(cluster)]
            if m["kind"] in ("Role", "ClusterRole")
        }

        assert granted["runkeys-drain"] == [(["workflowruns"], None, ["list", "patch"])]
        assert granted["runkeys-selftest"] == [
            (["workflowruns"], None, ["create", "get", "delete"]),
            (["secretbindings"], ["runkeys-selftest"], ["use"]),
        ]
        assert granted["runkeys-selftest-source"] == [(["secrets"], ["runkeys-selftest"], ["get"])]

    @pytest.mark.usefixtures("crds")
    @pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "one namespace"])
    def test_the_api_server_takes_every_object(
        self, cluster: Cluster, namespace: str, everywhere: bool
    ) -> None:
        """Strictly: a field that it does not know is an error."""
        sets = (*EVERYTHING, *(() if everywhere else (f"--set=watchNamespaces={{{namespace}}}",)))
        rendered = [*template(cluster, *sets, to=namespace), *hooks(cluster, *sets, to=namespace)]
        manifests = [m for m in rendered if not m["apiVersion"].startswith("monitoring.")]
        for manifest in manifests:
            if (
                manifest["kind"] == "ServiceAccount"
            ):  # without its account a Pod is refused, also when tried out
                cluster.client.apply(manifest)

        assert try_out(cluster, manifests).count("(server dry run)") == len(manifests)

        one(manifests, "Deployment")["spec"]["replica"] = 2
        with pytest.raises(ClusterError, match=r"\.spec\.replica: field not declared"):
            try_out(cluster, manifests)


def one(manifests: list[Object], kind: str) -> Object:
    """The only object of its kind."""
    [found] = [m for m in manifests if m["kind"] == kind]
    return found


def try_out(cluster: Cluster, manifests: list[Object]) -> str:
    """Have the API server say what it would do with these."""
    text = yaml.safe_dump_all(manifests)
    return cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server"), "-f", "-", input=text
    )


def pod_spec(manifests: list[Object]) -> dict[str, Any]:
    [deployment] = [m for m in manifests if m["kind"] == "Deployment"]
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def can(cluster: Cluster, account: str, namespace: str) -> set[tuple[str, str, str]]:
    """Return (resource, names, verbs) of everything that an account may do in a namespace beyond what any may."""

    def rows(who: str) -> set[tuple[str, str, str]]:
        printed = cluster.kubectl("auth", "can-i", "--list", f"--namespace={namespace}", f"--as={who}")
        found = re.findall(r"^(\S*) +\[.*?\] +\[(.*?)\] +\[(.*?)\]$", printed, re.MULTILINE)
        return {(resource, names, " ".join(sorted(verbs.split()))) for resource, names, verbs in found}

    return rows(account) - rows(f"system:serviceaccount:{namespace}:default")


def golden_rights() -> set[tuple[str, str, str]]:
    lines = (GOLDEN / "rights.txt").read_text().splitlines()
    return {(resource, "", verbs) for resource, verbs in (line.split(maxsplit=1) for line in lines)}


def allowed(
    client: KubeClient, account: str, namespace: str, verb: str, resource: str, name: str = ""
) -> bool:
    """Ask the API server itself."""
    plural, _, group = resource.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": plural, "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = client.as_user(account).request("POST", path, body=review)
    return bool(answer["status"]["allowed"])


# In the release's own namespace, by name.
KEYS = {("secrets", "runkeys-sealing-keys", "get patch"), ("configmaps", "runkeys-public-keys", "get patch")}

# What would let the operator read, keep or widen more than it needs.
MUST_NOT = [
    *[(verb, "secrets") for verb in ("get", "list", "watch", "update", "patch", "deletecollection")],
    *[(verb, "pods") for verb in ("create", "update", "patch", "delete")],
    *[(verb, "jobs.batch") for verb in ("update", "patch", "deletecollection")],
    *[(verb, "secretbindings.runkeys.dev") for verb in ("create", "update", "patch", "delete")],
    *[(verb, "workflowruns.runkeys.dev") for verb in ("create", "update", "deletecollection")],
    *[(verb, "roles.rbac.authorization.k8s.io") for verb in ("create", "bind", "escalate")],
    ("create", "serviceaccounts"),
    ("get", "configmaps"),
    ("impersonate", "users"),
]


@pytest.fixture
def release(client: KubeClient) -> Iterator[str]:
    """A release name of its own; cluster-wide rights of that name are removed again."""
    name = f"runkeys-{secrets.token_hex(3)}"
    yield name
    for plural in ("clusterrolebindings", "clusterroles"):
        query = {"labelSelector": f"app.kubernetes.io/instance={name}"}
        client.request("DELETE", by_plural(plural).path(), query=query)


def reads(manifests: list[Object]) -> set[tuple[str, str, str]]:
    """What ``can`` says of the right to read the policies, each by its name."""
    [role] = [
        m
        for m in manifests
        if m["kind"] == "ClusterRole" and m["metadata"]["name"].startswith("runkeys-policies.")
    ]
    return {
        (f"{resource}.{group}", name, " ".join(rule["verbs"]))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule["resourceNames"]
    }


@pytest.mark.usefixtures("crds")
class TestRights:
    def test_in_the_named_namespace_only(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, served, other = new_namespace(), new_namespace(), new_namespace()
        manifests = rights_only(
            template(cluster, f"--set=watchNamespaces={{{served}}}", release=release, to=system)
        )
        for manifest in manifests:
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, served) == golden_rights() | reads(manifests)
        assert can(cluster, account, system) == KEYS | reads(manifests) | {
            ("leases.coordination.k8s.io", "", "create"),
            ("leases.coordination.k8s.io", release, "get update"),
        }
        assert can(cluster, account, other) == reads(manifests)
        assert not allowed(client, account, system, "update", "leases.coordination.k8s.io", "another")
        assert not allowed(client, account, system, "delete", "leases.coordination.k8s.io", release)
        for verb, resource in MUST_NOT:
            assert not allowed(client, account, served, verb, resource), (verb, resource)

    def test_in_all_namespaces(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, other = new_namespace(), new_namespace()
        manifests = rights_only(template(cluster, release=release, to=system))
        for manifest in manifests:
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, other) == golden_rights() | reads(manifests)
        for verb, resource in MUST_NOT:
            assert not allowed(client, account, other, verb, resource), (verb, resource)

    def test_sources_grant_single_secrets_by_name(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, served = new_namespace(), new_namespace()
        values = (
            f"--set=watchNamespaces={{{served}}}",
            f"--set=sources[0].namespace={served}",
            "--set=sources[0].secretNames={db}",
        )
        manifests = rights_only(template(cluster, *values, release=release, to=system))
        for manifest in manifests:
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, served) == golden_rights() | {("secrets", "db", "get")} | reads(
            manifests
        )
        assert allowed(client, account, served, "get", "secrets", "db")
        assert not allowed(client, account, served, "get", "secrets", "other")
        assert not allowed(client, account, served, "list", "secrets")

    def test_control_one_right_too_many_is_seen(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, served = new_namespace(), new_namespace()
        manifests = rights_only(
            template(cluster, f"--set=watchNamespaces={{{served}}}", release=release, to=system)
        )
        [role] = [
            m
            for m in manifests
            if m["kind"] == "Role"
            and (m["metadata"]["namespace"], m["metadata"]["name"]) == (served, release)
        ]
        role["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]})
        for manifest in manifests:
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, served) != golden_rights() | reads(manifests)
        assert allowed(client, account, served, *MUST_NOT[1])


@pytest.mark.usefixtures("crds")
class TestInstalled:
    def test_it_runs_the_example_under_the_strictest_pod_standard(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str]
    ) -> None:
        system, served = new_namespace(), new_namespace()
        for name in (system, served):
            client.patch("namespaces", name, None, {"metadata": {"labels": RESTRICTED}})
        cluster.load_image(images.operator_image())

        cluster.helm(
            *("install", "runkeys", str(CHART), f"--namespace={system}"),
            *("--set=image.tag=dev", f"--set=watchNamespaces={{{served}}}", "--set=crds.install=false"),
        )
        becomes_available(cluster, system)  # the command of the notes waits for a minute only
        ready, try_it, grant = commands(cluster.helm("get", "notes", "runkeys", f"--namespace={system}"))

        assert "successfully rolled out" in cluster.run("sh", "-c", ready, timeout=PATIENCE)
        assert "its pod found the value" in cluster.run("sh", "-c", try_it, timeout=PATIENCE)
        self.grant_and_take_back(cluster, client, system, served, grant)
        self.run_example(cluster, client, system, served)

        cluster.helm("uninstall", "runkeys", f"--namespace={system}", "--wait")
        assert cluster.kubectl("-n", system, "get", "deployments,serviceaccounts", "-o", "name").split() == [
            "serviceaccount/default"
        ]
        assert client.list("roles", served, labels="app.kubernetes.io/instance=runkeys") == []
        # The kinds stay, and with them everybody's runs.
        assert client.find("workflowruns", "hello", served) is not None

    def grant_and_take_back(
        self, cluster: Cluster, client: KubeClient, system: str, served: str, command: str
    ) -> None:
        account = f"system:serviceaccount:{system}:runkeys"
        assert not allowed(client, account, served, "get", "secrets", "hello-token")

        cluster.run("sh", "-c", command.replace("NAMESPACE", served).replace("SECRET", "hello-token"))

        wait_until(
            "the right to be known", lambda: allowed(client, account, served, "get", "secrets", "hello-token")
        )
        assert not allowed(client, account, served, "get", "secrets", "other")
        cluster.kubectl("-n", served, "delete", "role,rolebinding", "runkeys-sources")

    def run_example(self, cluster: Cluster, client: KubeClient, system: str, served: str) -> None:
        value = secrets.token_hex(16)
        source = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hello-token"}}
        client.create({**source, "stringData": {"token": value}}, served)
        role = (EXAMPLES / "source-role.yaml").read_text().replace("runkeys-system", system)
        cluster.kubectl("-n", served, "apply", "-f", "-", input=role)
        for name in ("binding.yaml", "run.yaml"):
            text = (EXAMPLES / "hello" / name).read_text()
            local = text.replace("busybox:*", "localhost/runkeys-task:*").replace(
                "busybox:1.37", images.TASK_IMAGE
            )
            cluster.kubectl("-n", served, "apply", "-f", "-", input=local)

        cluster.kubectl(
            *("-n", served, "wait", "--for=condition=SecretsReleased", "wfr/hello", "--timeout=180s"),
            timeout=240,
        )

        run = client.get("workflowruns", "hello", served)
        assert run["status"]["phase"] == "Succeeded", run["status"]
        printed = cluster.kubectl("-n", served, "logs", "-l", "runkeys.dev/run=hello")
        assert printed == "SECRET_API_TOKEN is set\n"
        assert client.list("secrets", served, labels="runkeys.dev/run=hello") == []
        assert value not in cluster.kubectl("-n", system, "logs", "deployment/runkeys")


def commands(notes: str) -> list[str]:
    return re.findall(r"^ {5}(\w.*)$", notes, re.MULTILINE)
