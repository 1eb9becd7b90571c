"""The chart: what it renders, which rights that is on a real API server, and that it runs as it says."""

from __future__ import annotations

import re
import secrets
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys import policies
from runkeys.api import GROUP
from runkeys.api.crd import KINDS, file_name, render
from runkeys_operator.preflight import NEEDED
from tests.e2e.cluster import images
from tests.e2e.cluster.base import Cluster, ClusterError, wait_until
from tests.e2e.cluster.cache import CHECKOUT
from tests.e2e.cluster.client import KubeClient, Object
from tests.e2e.cluster.resources import by_plural

CHART = CHECKOUT / "helm" / "runkeys"
EXAMPLES = CHECKOUT / "examples"
GOLDEN = Path(__file__).parent / "golden"

EVERYWHERE: tuple[str, ...] = ()
TWO_NAMESPACES = (
    "--set=watchNamespaces={team-a,team-b}",
    "--set=sources[0].namespace=team-a",
    "--set=sources[0].secretNames={db,ibm-quantum}",
)
POLICY_KINDS = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
KNOWS_MUTATING = ("--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",)
# The strictest of Kubernetes' own standards for pods.
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def template(
    cluster: Cluster, *arguments: str, release: str = "runkeys", to: str = "runkeys-system"
) -> list[Object]:
    """Return what helm would install into the namespace ``to``."""
    printed = cluster.helm("template", release, str(CHART), "--namespace", to, *arguments)
    return [manifest for manifest in yaml.safe_load_all(printed) if manifest]


def rights_only(manifests: list[Object]) -> list[Object]:
    return [m for m in manifests if m["apiVersion"].startswith("rbac.")]


def specs(manifests: list[Object]) -> dict[tuple[str, str], Object]:
    """Of the policies and their bindings, by kind and name."""
    found = [m for m in manifests if m["apiVersion"].startswith("admissionregistration.")]
    return {(m["kind"], m["metadata"]["name"]): m["spec"] for m in found}


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

    def test_rights_are_those_that_the_operator_asks_for(self, cluster: Cluster) -> None:
        [role] = [
            m for m in template(cluster) if (m["kind"], m["metadata"]["name"]) == ("ClusterRole", "runkeys")
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

    def test_only_policies_reach_across_the_cluster_when_namespaces_are_named(self, cluster: Cluster) -> None:
        manifests = template(cluster, *TWO_NAMESPACES, "--set=installRoles=false")
        wide = [m for m in manifests if "namespace" not in m["metadata"]]
        rights = [m for m in wide if m["kind"] == "ClusterRole"]

        assert {m["metadata"].get("namespace") for m in manifests} == {
            None,
            "runkeys-system",
            "team-a",
            "team-b",
        }
        assert {m["kind"] for m in wide} == {*POLICY_KINDS, "ClusterRole", "ClusterRoleBinding"}
        assert all(rule["verbs"] == ["get"] and rule["resourceNames"] for m in rights for rule in m["rules"])

    @pytest.mark.parametrize("namespaces", [[], ["team-b", "team-a"]], ids=["everywhere", "two namespaces"])
    def test_the_policies_are_those_that_the_operator_asks_for(
        self, cluster: Cluster, namespaces: list[str]
    ) -> None:
        values = [f"--set=watchNamespaces={{{','.join(namespaces)}}}"] if namespaces else []
        account = policies.Account.service_account("ops", "keys-runkeys")
        rendered = template(cluster, *values, *KNOWS_MUTATING, release="keys", to="ops")

        assert specs(rendered) == specs(policies.build(account, namespaces))

    def test_a_server_that_does_not_know_mutating_policies_gets_none(self, cluster: Cluster) -> None:
        account = policies.Account.service_account("runkeys-system", "runkeys")

        assert specs(template(cluster)) == specs(policies.build(account, mutating=False))

    def test_policies_and_roles_can_be_left_to_somebody_else(self, cluster: Cluster) -> None:
        manifests = template(
            cluster, "--set=installPolicies=false", "--set=installRoles=false", *KNOWS_MUTATING
        )

        assert specs(manifests) == {}
        assert {m["metadata"]["name"] for m in manifests if m["kind"] == "ClusterRole"} == {
            "runkeys",
            "runkeys-policies.runkeys-system.runkeys",
        }

    def test_every_value_reaches_the_pod(self, cluster: Cluster) -> None:
        digest = "sha256:" + "0" * 64
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
            "workers": 3,
            "sweepSeconds": 7,
            "keyRotationDays": 8,
            "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
            "runAsUser": 1234,
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"operator": "Exists"}],
            "priorityClassName": "high",
        }
        assert values.keys() == yaml.safe_load((CHART / "values.yaml").read_text()).keys() - {
            "sources",
            "installPolicies",
            "installRoles",
        }
        file = cluster.scratch / f"values-{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump(values))

        pod = pod_spec(template(cluster, f"--values={file}"))
        [container] = pod["containers"]

        assert container["image"] == f"registry.example/rk:v9@{digest}"
        assert container["imagePullPolicy"] == "Always"
        assert container["resources"] == values["resources"]
        assert container["args"] == [
            "--log-format=text",
            "--log-level=debug",
            "--health-port=8080",
            "--workers=3",
            "--sweep-seconds=7",
            "--key-rotation-days=8",
        ]
        assert {item["name"]: item.get("value") for item in container["env"]} == {
            "RUNKEYS_OPERATOR_NAMESPACE": None,  # from the pod itself
            "RUNKEYS_NAMESPACES": "a,b",
        }
        assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["runAsGroup"] == 1234
        for key in ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName"):
            assert pod[key] == values[key]

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

    def test_the_package_holds_the_kinds(self, cluster: Cluster, tmp_path: Path) -> None:
        cluster.helm("package", str(CHART), "--destination", str(tmp_path))
        [package] = tmp_path.glob("*.tgz")
        with tarfile.open(package) as tar:
            packed = {
                name.removeprefix("runkeys/crds/"): content.read().decode()
                for name in tar.getnames()
                if name.startswith("runkeys/crds/") and (content := tar.extractfile(name)) is not None
            }

        assert packed == {file_name(kind): render(kind) for kind in KINDS}

    @pytest.mark.usefixtures("crds")
    def test_an_upgrade_says_how_the_kinds_follow(self, cluster: Cluster) -> None:
        [command] = re.findall(
            r"^  (helm show .*)$", (CHART / "templates" / "NOTES.txt").read_text(), re.MULTILINE
        )

        printed = cluster.run("sh", "-c", f"{command} --dry-run=server".replace("CHART", str(CHART)))

        assert printed.count("serverside-applied") == len(KINDS)


def bind_role(client: KubeClient, namespace: str, role: str, user: str) -> None:
    """Give a user a ClusterRole in a namespace."""
    api = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": namespace},
        "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": api, "name": user}],
    }
    client.create(binding)


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


def wait_allowed(
    client: KubeClient, account: str, namespace: str, verb: str, resource: str, name: str = ""
) -> None:
    """Until the API server knows of a right that was just given."""
    arguments = (client, account, namespace, verb, resource, name)
    wait_until(f"{account} to be let {verb}", lambda: allowed(*arguments), 10)


# In the release's own namespace, by name.
KEYS = {("secrets", "runkeys-sealing-keys", "get patch"), ("configmaps", "runkeys-public-keys", "get patch")}


def policy_rights(system: str, release: str) -> set[tuple[str, str, str]]:
    """It may read its own policies, which belong to no namespace, each by its name."""
    account = policies.Account.service_account(system, release)
    return {
        (
            re.sub("y$", "ie", item["kind"].lower()) + "s.admissionregistration.k8s.io",
            item["metadata"]["name"],
            "get",
        )
        for item in policies.build(account)
    }


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


@pytest.mark.usefixtures("crds")
class TestRights:
    def test_in_the_named_namespace_only(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, served, other = new_namespace(), new_namespace(), new_namespace()
        for manifest in rights_only(
            template(cluster, f"--set=watchNamespaces={{{served}}}", release=release, to=system)
        ):
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, served) == golden_rights() | policy_rights(system, release)
        assert can(cluster, account, system) == KEYS | policy_rights(system, release)
        assert can(cluster, account, other) == policy_rights(system, release)
        for verb, resource in MUST_NOT:
            assert not allowed(client, account, served, verb, resource), (verb, resource)

    def test_in_all_namespaces(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, other = new_namespace(), new_namespace()
        for manifest in rights_only(template(cluster, release=release, to=system)):
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, other) == golden_rights() | policy_rights(system, release)
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
        for manifest in rights_only(template(cluster, *values, release=release, to=system)):
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        source = ("secrets", "db", "get")
        assert can(cluster, account, served) == golden_rights() | policy_rights(system, release) | {source}
        assert allowed(client, account, served, "get", "secrets", "db")
        assert not allowed(client, account, served, "get", "secrets", "other")
        assert not allowed(client, account, served, "list", "secrets")

    def test_roles_for_people_let_nobody_use_or_reveal(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, served = new_namespace(), new_namespace()
        for manifest in rights_only(template(cluster, release=release, to=system)):
            client.apply(manifest)
        found = []
        for role in ("view", "edit", "admin", f"{release}-user"):
            user = f"a-{role}"
            bind_role(client, served, role, user)
            wait_allowed(client, user, served, "list", "secretbindings.runkeys.dev")
            rows = can(cluster, user, served)
            found += [
                f"{role.removeprefix(release)} {what} {verbs}" for what, _, verbs in rows if GROUP in what
            ]
            for verb in ("use", "reveal"):
                assert not allowed(client, user, served, verb, "secretbindings.runkeys.dev", "any"), role
        # with the example of a grant, and by that name only
        for manifest in yaml.safe_load_all((EXAMPLES / "use-role.yaml").read_text()):
            client.create(manifest, served)
        for verb in ("use", "reveal"):
            wait_allowed(client, "alice", served, verb, "secretbindings.runkeys.dev", "ibm-quantum")
            assert not allowed(client, "alice", served, verb, "secretbindings.runkeys.dev", "other")

        assert sorted(found) == (GOLDEN / "roles.txt").read_text().splitlines()

    def test_twin_one_right_too_many_is_seen(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str], release: str
    ) -> None:
        system, served = new_namespace(), new_namespace()
        manifests = rights_only(
            template(cluster, f"--set=watchNamespaces={{{served}}}", release=release, to=system)
        )
        [role] = [m for m in manifests if m["kind"] == "Role" and m["metadata"]["namespace"] == served]
        role["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]})
        for manifest in manifests:
            client.apply(manifest)
        account = f"system:serviceaccount:{system}:{release}"

        assert can(cluster, account, served) != golden_rights() | policy_rights(system, release)
        assert allowed(client, account, served, *MUST_NOT[1])


@pytest.mark.usefixtures("crds")
class TestInstalled:
    @pytest.mark.timeout(300)
    def test_it_runs_the_example_under_the_strictest_pod_standard(
        self, cluster: Cluster, client: KubeClient, new_namespace: Callable[[], str]
    ) -> None:
        system, served = new_namespace(), new_namespace()
        for name in (system, served):
            client.patch("namespaces", name, None, {"metadata": {"labels": RESTRICTED}})
        cluster.load_image(images.operator_image())

        cluster.helm(
            *("install", "runkeys", str(CHART), f"--namespace={system}"),
            *("--set=image.tag=dev", f"--set=watchNamespaces={{{served}}}"),
        )
        ready, grant, explain = commands(cluster.helm("get", "notes", "runkeys", f"--namespace={system}"))

        assert "successfully rolled out" in cluster.run("sh", "-c", ready, timeout=90)
        assert "secrets" in cluster.run("sh", "-c", explain)
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

        assert allowed(client, account, served, "get", "secrets", "hello-token")
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
            *("-n", served, "wait", "--for=condition=SecretsReleased", "wfr/hello", "--timeout=60s"),
            timeout=90,
        )

        run = client.get("workflowruns", "hello", served)
        assert run["status"]["phase"] == "Succeeded", run["status"]
        printed = cluster.kubectl("-n", served, "logs", "-l", "runkeys.dev/run=hello")
        assert printed == "SECRET_API_TOKEN is set\n"
        assert client.list("secrets", served, labels="runkeys.dev/run=hello") == []
        assert value not in cluster.kubectl("-n", system, "logs", "deployment/runkeys")


def commands(notes: str) -> list[str]:
    return re.findall(r"^ {5}(kubectl .*)$", notes, re.MULTILINE)
