"""The test cluster itself: what the other end-to-end tests rely on."""

from __future__ import annotations

import base64
import gc
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3

from testing.cluster import providers
from testing.cluster.base import Cluster, ClusterError, NotOffered, wait_until
from testing.cluster.cache import CHECKOUT
from testing.cluster.client import PATIENCE, ApiError, KubeClient, Object, WaitError
from testing.cluster.existing import CONTEXT_VARIABLE, ExistingCluster
from testing.cluster.faults import Action, Answer, Delay, LoseAnswer, Repeat, Request, Reset, matching
from testing.cluster.images import TASK_IMAGE
from testing.cluster.node import NodeCluster
from testing.cluster.node_layout import NodeOptions
from testing.cluster.proxy import ApiProxy
from tests.e2e.conftest import OwnNode


def job(name: str, *command: str, **pod: Any) -> Object:
    container = {"name": "main", "image": TASK_IMAGE, "command": list(command)}
    spec = {"restartPolicy": "Never", "containers": [container], **pod}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }


def secret(name: str, value: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"value": value}}


def config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}}


def finished(item: Object) -> bool:
    return any(
        c["type"] in ("Complete", "Failed") and c["status"] == "True"
        for c in item["status"].get("conditions", ())
    )


def run_job(client: KubeClient, namespace: str, manifest: Object) -> str:
    """Run a Job to its end and return what it printed."""
    client.create(manifest, namespace)
    name = manifest["metadata"]["name"]
    done = client.wait_for("jobs", name, namespace, finished, what="to finish")
    assert done["status"].get("succeeded") == 1, done["status"]
    pod = client.list("pods", namespace, labels=f"job-name={name}")[0]["metadata"]["name"]
    return client.logs(pod, namespace)


def by_way_of(proxy: ApiProxy, client: KubeClient, namespace: str) -> KubeClient:
    """A client that goes through the proxy, with an administrator's token in this namespace."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "tester"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    client.create(binding, namespace)
    token = client.token(namespace, "default")
    own = client.with_token(token)

    def may_read() -> bool:
        try:
            own.list("configmaps", namespace)
        except ApiError as error:
            if error.status != 403:
                raise
            return False
        return True

    # The server learns of a new right by a watch of its own.
    wait_until("the right to be known", may_read)
    return client.with_token(token, server=proxy.url)


class TestNode:
    def test_a_job_runs_and_reaches_the_api_server(self, client: KubeClient, namespace: str) -> None:
        program = (
            "import os, ssl, urllib.request as u\n"
            "d = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
            "c = ssl.create_default_context(cafile=d + 'ca.crt')\n"
            "h = {'Authorization': 'Bearer ' + open(d + 'token').read()}\n"
            "s = 'https://' + os.environ['KUBERNETES_SERVICE_HOST']\n"
            "print(u.urlopen(u.Request(s + '/version', headers=h), context=c).read().decode())"
        )
        assert '"gitVersion": "v1.37.' in run_job(client, namespace, job("asks", "python3", "-c", program))

    def test_a_variable_comes_from_a_secret(self, client: KubeClient, namespace: str) -> None:
        value = secrets.token_hex(16)
        client.create(secret("given", value), namespace)
        manifest = job("reads", "sh", "-c", 'test "$GIVEN" = "$(cat /given/value)" && echo same')
        pod = manifest["spec"]["template"]["spec"]
        reference = {"secretKeyRef": {"name": "given", "key": "value"}}
        pod["containers"][0] |= {
            "env": [{"name": "GIVEN", "valueFrom": reference}],
            "volumeMounts": [{"name": "given", "mountPath": "/given"}],
        }
        pod["volumes"] = [{"name": "given", "secret": {"secretName": "given"}}]
        assert run_job(client, namespace, manifest) == "same\n"

    def test_images_run_as_anybody(self, client: KubeClient, namespace: str) -> None:
        unprivileged = {"runAsUser": 65532, "runAsNonRoot": True}
        printed = run_job(
            client,
            namespace,
            job("who", "python3", "-c", "import os; print(os.getuid())", securityContext=unprivileged),
        )
        assert printed == "65532\n"

    def test_a_deleted_job_takes_its_pod_along(self, client: KubeClient, namespace: str) -> None:
        client.create(job("stays", "sleep", "1000", terminationGracePeriodSeconds=1), namespace)
        by_job = "job-name=stays"
        client.wait_for("jobs", "stays", namespace, lambda j: j["status"].get("ready") == 1)
        pod = client.list("pods", namespace, labels=by_job)[0]["metadata"]["name"]
        client.patch("pods", pod, namespace, {"metadata": {"labels": {"seen": "yes"}}})
        client.delete("jobs", "stays", namespace)
        client.wait_gone("pods", pod, namespace)

    def test_kubectl_and_helm_talk_to_it(self, cluster: Cluster) -> None:
        assert " Ready " in cluster.kubectl("get", "nodes")
        assert cluster.helm("list", "--namespace=default", "--output=json").strip() == "[]"


class TestClient:
    def test_an_absent_object_is_none_or_a_404(self, client: KubeClient, namespace: str) -> None:
        assert client.find("jobs", "none", namespace) is None
        with pytest.raises(ApiError) as refused:
            client.get("jobs", "none", namespace)
        assert (refused.value.status, refused.value.reason) == (404, "NotFound")

    def test_waiting_ends_with_the_object_as_last_seen(self, client: KubeClient, namespace: str) -> None:
        client.create(config_map("slow"), namespace)
        with pytest.raises(WaitError, match=r'to shine: not within 1 s; last seen:[^$]*"slow"'):
            client.wait_for("configmaps", "slow", namespace, lambda _: False, timeout=1, what="to shine")

    def test_waiting_ends_so_too_if_the_time_is_over_while_the_condition_is_asked(
        self, client: KubeClient, namespace: str
    ) -> None:
        client.create(config_map("slow"), namespace)
        with pytest.raises(WaitError, match=r'last seen:[^$]*"slow"'):
            client.wait_for("configmaps", "slow", namespace, lambda _: time.sleep(0.2), timeout=0.1)

    def test_waiting_never_shows_a_value(self, client: KubeClient, namespace: str) -> None:
        value = secrets.token_hex(16)
        made = client.create(secret("hidden", value), namespace)
        with pytest.raises(WaitError) as late:
            client.wait_for("secrets", "hidden", namespace, lambda _: False, timeout=0.3)
        assert value not in str(late.value)
        assert made["data"]["value"] not in str(late.value)

    def test_other_identities(self, client: KubeClient, namespace: str) -> None:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        someone = client.as_user("alice", "painters", "readers").request("POST", path, body=review)["status"][
            "userInfo"
        ]
        assert someone["username"] == "alice"
        assert {"painters", "readers"} <= set(someone["groups"])
        account = client.with_token(client.token(namespace, "default")).request("POST", path, body=review)
        assert account["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"


class TestInside:
    def test_etcd_remembers_what_was_deleted(self, node: Cluster, namespace: str) -> None:
        value = secrets.token_hex(16)
        key = f"/registry/secrets/{namespace}/planted"
        before = node.etcd.revision()
        node.client.create(secret("planted", value), namespace)
        assert node.etcd.keys(f"/registry/secrets/{namespace}/") == [key]
        [there] = node.etcd.find(value.encode())[key]
        assert there > before
        node.client.delete("secrets", "planted", namespace)
        assert node.etcd.keys(f"/registry/secrets/{namespace}/") == []
        assert node.etcd.find(value.encode(), since=before) == {key: [there]}
        assert value.encode() in node.etcd.values(key, revision=there)[key]
        assert node.etcd.values(key, revision=there - 1) == {}
        assert [s.value is None for s in node.etcd.history(key)] == [False, True]

    def test_the_audit_log_has_every_request(self, node: Cluster, namespace: str) -> None:
        mark = node.audit.mark()
        value = secrets.token_hex(16)
        node.client.create(secret("asked", value), namespace)
        with pytest.raises(ApiError):
            node.client.as_user("mallory").get("secrets", "asked", namespace)
        made, refused = node.audit.events(mark, resource="secrets", namespace=namespace)
        assert (made.verb, made.name, made.status) == ("create", "asked", 201)
        assert (refused.verb, refused.user, refused.status) == ("get", "mallory", 403)
        assert made.received <= made.answered <= refused.received
        assert not node.audit.find(value.encode(), since=mark)

    def test_logs_are_files(self, bare_node: NodeCluster, namespace: str) -> None:
        word = secrets.token_hex(16)
        run_job(bare_node.client, namespace, job("says", "echo", word))
        assert any(
            word in path.read_text(errors="replace") for path in bare_node.log_files() if path.exists()
        )
        assert "v1.37.2" in bare_node.log_file("kube-apiserver").read_text()


class TestProxy:
    @pytest.fixture
    def through(self, cluster: Cluster, proxy: ApiProxy, namespace: str) -> KubeClient:
        """A client that goes through the proxy, with an administrator's token in its own namespace."""
        return by_way_of(proxy, cluster.client, namespace)

    def test_it_numbers_and_names_every_request(
        self, through: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        through.create(config_map("one"), namespace)
        through.list("configmaps", namespace)
        through.patch("configmaps", "one", namespace, {"data": {"a": "c"}})
        through.delete("configmaps", "one", namespace)
        seen = [(r.number, r.verb, r.resource, r.name, r.status) for r in proxy.requests]
        assert seen == [
            (1, "create", "configmaps", "", 201),
            (2, "list", "configmaps", "", 200),
            (3, "patch", "configmaps", "one", 200),
            (4, "delete", "configmaps", "one", 200),
        ]
        assert [r.mutates for r in proxy.requests] == [True, False, True, True]

    def test_a_delay(self, through: KubeClient, proxy: ApiProxy, namespace: str) -> None:
        proxy.rule(matching("create"), Delay(0.4))
        through.create(config_map("late"), namespace)
        [request] = proxy.requests
        assert request.ended is not None
        assert request.ended - request.arrived >= 0.4

    def test_a_wait_counts_from_its_first_answer(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        client.create(config_map("there"), namespace)
        proxy.rule(matching("list"), Delay(1))
        assert through.wait_for("configmaps", "there", namespace, bool, timeout=0.1)

    def test_a_reset_before_it_is_sent_on(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        proxy.rule(matching("create"), Reset())
        with pytest.raises(urllib3.exceptions.ProtocolError):
            through.create(config_map("never"), namespace)
        assert client.find("configmaps", "never", namespace) is None
        assert [(r.status, r.forwarded, r.answered) for r in proxy.requests] == [(None, 0, False)]

    def test_a_lost_answer(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        proxy.rule(matching("create"), LoseAnswer())
        with pytest.raises(urllib3.exceptions.ProtocolError):
            through.create(config_map("made"), namespace)
        assert client.find("configmaps", "made", namespace) is not None
        assert [(r.status, r.forwarded, r.answered) for r in proxy.requests] == [(201, 1, False)]

    def test_an_injected_answer_to_the_second_one_only(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        rule = proxy.rule(matching("create"), Answer(409, "AlreadyExists"), skip=1)
        through.create(config_map("first"), namespace)
        with pytest.raises(ApiError) as refused:
            through.create(config_map("second"), namespace)
        assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")
        assert client.find("configmaps", "second", namespace) is None
        through.create(config_map("third"), namespace)
        assert [r.number for r in rule.hits] == [2]

    def test_a_request_sent_twice(self, through: KubeClient, proxy: ApiProxy, namespace: str) -> None:
        proxy.rule(matching("create"), Repeat())
        with pytest.raises(ApiError) as refused:
            through.create(config_map("twice"), namespace)
        assert (refused.value.status, proxy.requests[0].forwarded) == (409, 2)

    def test_a_held_request_is_sent_on_after_its_sender_gave_up(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        held = proxy.hold(matching("create"))
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        with pytest.raises(urllib3.exceptions.ReadTimeoutError):
            through.request("POST", path, body=config_map("stubborn"), timeout=0.5)
        held.wait_arrived()
        assert client.find("configmaps", "stubborn", namespace) is None
        held.release()
        client.wait_for("configmaps", "stubborn", namespace, bool)

    def test_hooks_see_each_request_and_may_break_it(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        order: list[str] = []

        async def before(request: Request) -> Action | None:
            order.append(f"before {request.number}")
            return Reset() if request.number == 2 else None

        async def after(request: Request) -> Action | None:
            order.append(f"after {request.number} {request.status}")
            return Reset() if request.number == 3 else None

        proxy.before_forward, proxy.after_answer = before, after
        through.create(config_map("a"), namespace)
        for name in ("b", "c"):
            with pytest.raises(urllib3.exceptions.ProtocolError):
                through.create(config_map(name), namespace)
        assert order == ["before 1", "after 1 201", "before 2", "before 3", "after 3 201"]
        assert [client.find("configmaps", n, namespace) is not None for n in "abc"] == [True, False, True]

    def test_a_watch_passes_changes_as_they_come(
        self, through: KubeClient, client: KubeClient, proxy: ApiProxy, namespace: str
    ) -> None:
        watch = through.watch("configmaps", namespace, timeout=PATIENCE, fields="metadata.name=seen")
        made = threading.Timer(0.3, client.create, (config_map("seen"), namespace))
        made.start()
        kind, item = next(watch)
        assert (kind, item["metadata"]["name"]) == ("ADDED", "seen")
        client.delete("configmaps", "seen", namespace)
        assert next(watch)[0] == "DELETED"
        made.join(PATIENCE)
        watch.close()  # type: ignore[attr-defined]
        # The proxy notices that its client has gone and lets go of the API server too.
        [request] = proxy.wait_for(matching("watch"))
        assert request.status == 200


class TestProviders:
    @pytest.fixture(autouse=True)
    def _nothing_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(providers.PROVIDER_VARIABLE, raising=False)
        monkeypatch.delenv(CONTEXT_VARIABLE, raising=False)
        monkeypatch.setattr(providers, "docker_answers", lambda: False)

    def test_the_first_that_works_here_is_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert providers.choose() == "node"
        monkeypatch.setattr(providers, "docker_answers", lambda: True)
        assert providers.choose() == "kind"
        monkeypatch.setenv(CONTEXT_VARIABLE, "mine")
        assert providers.choose() == "existing"
        monkeypatch.setenv(providers.PROVIDER_VARIABLE, "node")
        assert providers.choose() == "node"

    def test_where_none_works_one_message_says_what_can_be_done(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        with pytest.raises(ClusterError, match=r"Become root.*Docker.*RUNKEYS_E2E_CONTEXT.*make lint unit"):
            providers.choose()

    def test_a_context_is_used_only_as_named(
        self, cluster: Cluster, client: KubeClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        with pytest.raises(ClusterError, match=r"'other'.*context"):
            ExistingCluster.use("other")
        with ExistingCluster.use(cluster.kubectl("config", "current-context").strip()) as existing:
            assert existing.client.list("nodes")
            assert " Ready " in existing.kubectl("get", "nodes")
            for unknown in (lambda: existing.etcd, lambda: existing.audit, lambda: existing.kill("etcd")):
                with pytest.raises(NotOffered, match="the provider 'node' can"):
                    unknown()
        client.wait_ready()  # it is still there


class TestBreaking:
    def test_components_die_come_back_and_freeze(self, own_node: OwnNode) -> None:
        node = own_node()
        namespace = "default"
        for component in node.components:
            before = node.component_pids()[component]
            node.restart(component)
            assert node.component_pids()[component] != before
        # Everything that was there is there again, and pods still run.
        run_job(node.client, namespace, job("after", "true"))

        node.pause("kube-controller-manager")
        node.client.create(job("waits", "true"), namespace)
        with pytest.raises(WaitError):
            node.client.wait_for("jobs", "waits", namespace, lambda j: "startTime" in j["status"], timeout=1)
        node.resume("kube-controller-manager")
        node.client.wait_for("jobs", "waits", namespace, finished)

        node.kill("kube-apiserver")
        assert "kube-apiserver" not in node.component_pids()
        assert not node.client.is_ready()
        node.start_component("kube-apiserver")
        node.client.wait_ready()

        # A proxy ends even if the API server does not answer its goodbye, and no connection stays open.
        with ApiProxy(node) as proxy:
            watch = by_way_of(proxy, node.client, namespace).watch("configmaps", namespace, timeout=20)
            assert next(watch)[0] == "ADDED"
            node.pause("kube-apiserver")
        node.resume("kube-apiserver")
        gc.collect()  # what was left open is an error now

    def test_two_nodes_at_once_do_not_meet(
        self, bare_node: NodeCluster, own_node: OwnNode, namespace: str
    ) -> None:
        other = own_node(NodeOptions(audit="RequestResponse", admission_plugins=("NodeRestriction",)))
        assert other.record.address != bare_node.record.address
        bare_node.client.create(config_map("here"), namespace)
        assert other.client.find("namespaces", namespace) is None
        run_job(other.client, "default", job("there", "true"))
        # What was chosen for one is not so in the other: only this audit log has bodies of Secrets.
        value = secrets.token_hex(16)
        for one, where in ((other, "default"), (bare_node, namespace)):
            one.client.create(secret("seen", value), where)
        sent = base64.b64encode(value.encode())
        assert other.audit.find(sent)
        assert not bare_node.audit.find(sent)
        run_job(bare_node.client, namespace, job("here", "true"))

    def test_nothing_is_left_of_a_node(self, own_node: OwnNode) -> None:
        node = own_node()
        run_job(node.client, "default", job("ran", "true"))
        assert traces(node)
        node.stop()
        assert traces(node) == []

    def test_a_node_ends_when_its_claimant_is_killed(self) -> None:
        name = f"orphan-{secrets.token_hex(3)}"
        program = (
            "import sys, time\n"
            "from testing.cluster.cache import Claim, cache_dir\n"
            "from testing.cluster.node import NodeCluster\n"
            "name = sys.argv[1]\n"
            "NodeCluster.start(name, claim=Claim(cache_dir() / 'nodes' / f'.{name}.claims'))\n"
            "print('up', flush=True)\n"
            "time.sleep(600)"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, name], cwd=CHECKOUT, stdout=subprocess.PIPE
        ) as owner:
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"up\n"
            node = NodeCluster.attach(name)
            assert node is not None
            owner.send_signal(signal.SIGKILL)
        until = time.monotonic() + 20
        while traces(node) and time.monotonic() < until:
            time.sleep(0.1)
        assert traces(node) == []
        node.stop()


def traces(node: NodeCluster) -> list[str]:
    """Return whatever of a node can be found outside of it: processes, links, mounts, cgroups."""
    state = str(node.paths.state)
    # Only the node's own processes name its folder; this test's name only the node.
    found = [
        f"process {p.name}" for p in Path("/proc").iterdir() if p.name.isdigit() and state in _command_line(p)
    ]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if state in line]
    found += [f"cgroup {p}" for p in Path("/sys/fs/cgroup").glob(f"*/{node.record.cgroup}")]
    if Path("/sys/class/net", node.record.link).exists():
        found.append(f"link {node.record.link}")
    return found


def _command_line(process: Path) -> str:
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
