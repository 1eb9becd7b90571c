"""Entries that are made of others: by a Secret, sealed, for pods that ask, and read back. The manifest is the docs'."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from testing.cluster import images
from testing.cluster.base import Cluster
from testing.cluster.client import Object
from testing.namespace import Team, canary, condition, phase, python, run
from testing.people import may_use, sealed_entry
from tests.e2e.pods.conftest import ACCOUNT, asking, wait_ended
from tests.e2e.sealed.test_reveal import ask, asker

pytestmark = pytest.mark.e2e

DOCS = Path(__file__).resolve().parents[3] / "docs" / "templates.md"
SOURCE = "app-db"
USER, PASSWORD = f"reader {canary()}@", f'p:/"%&{canary()}'
URL = f"postgresql://{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@db.example/app"
AUTH = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

PRINTS = """
import hashlib, json, os, pathlib
def sha(text): return hashlib.sha256(text.encode()).hexdigest()
folder = pathlib.Path("/var/runtime/secrets")
found = json.loads((folder / "config.json").read_text())["auths"]["registry.example"]
print(json.dumps({
    "url": sha(os.environ["SECRET_DB_URL"]),
    "user": sha(found["username"]),
    "password": sha(found["password"]),
    "auth": sha(found["auth"]),
    "variables": sorted(name for name in os.environ if name.startswith("SECRET_")),
    "files": sorted(path.name for path in folder.iterdir() if not path.name.startswith("..")),
}))
"""
ASKED = [
    {"name": "db_url", "secret": "db-url"},
    {"name": "docker", "secret": "docker-config", "file": "config.json"},
]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


EXPECTED = {
    "url": sha(URL),
    "user": sha(USER),
    "password": sha(PASSWORD),
    "auth": sha(AUTH),
    "variables": ["SECRET_DB_URL"],
    "files": ["config.json"],
}


@pytest.fixture
def team(pods_team: Callable[..., Team]) -> Team:
    """A team with the source of the docs' binding."""
    team = pods_team(sources=(SOURCE,))
    team.make_source(SOURCE, user=USER, password=PASSWORD)
    return team


def make_binding(team: Team, *, sealed: bool = False, **spec: Any) -> Object:
    """The docs' binding, open to the runs and pods of the namespace."""
    found = re.search(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found is not None
    made: Object = yaml.safe_load(found[1])
    made["metadata"]["namespace"] = team.namespace
    made["spec"] |= {"access": [{"runSelector": {}}, {"pods": {}}], **spec}
    if sealed:
        entries = made["spec"]["secrets"]
        entries[0] = sealed_entry(team, USER, binding="db", entry="db-user")
        entries[1] = sealed_entry(team, PASSWORD, binding="db", entry="db-password")
    return team.client.create(made)


def make_run(team: Team, code: str = PRINTS, asked: list[Object] = ASKED, image: str = "") -> Object:
    made = run(team.namespace, command=python(code), task={"secrets": asked}, bindings=[{"name": "db"}])
    if image:
        made["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"] = image
    return team.client.create(made)


@pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
def test_a_run_has_what_it_asks_for_and_no_parts(team: Team, node: Cluster, delivery: str) -> None:
    make_binding(team, delivery=delivery)
    # Its status has been written, for which each entry is read once.
    team.client.wait_for(
        "secretbindings",
        "db",
        team.namespace,
        lambda found: found.get("status", {}).get("secrets") == "5/5",
        what="to be ready",
    )
    mark = node.audit.mark()
    make_run(team)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert json.loads(team.output(found)) == EXPECTED
    assert condition(found, "SecretsReleased")["status"] == "True"

    history = node.etcd.history(f"/registry/secrets/{team.namespace}/rk-", since=team.since)
    assert ["gone" if item.value is None else "made" for item in history] == (
        ["made", "gone"] if delivery == "Secret" else []
    )
    # The control: by a Secret the result is in etcd for a while, and the same search finds it.
    assert bool(node.etcd.find(URL.encode(), since=team.since)) == (delivery == "Secret")
    assert not any(b"SECRET_DB_PASSWORD" in (item.value or b"") for item in history)
    # Two templates use two keys of it, four times: it is read once before the Job and once for the pod.
    reads = [event for event in node.audit.events(mark, namespace=team.namespace) if event.name == SOURCE]
    assert [event.verb for event in reads if event.user.endswith(":runkeys")] == ["get", "get"]
    for value in (URL, AUTH, PASSWORD):
        assert value not in team.operator.text()
        assert value not in json.dumps(found)


def test_sealed_parts_and_sealed_delivery_leave_nothing_in_etcd(team: Team, node: Cluster) -> None:
    team.client.delete("secrets", SOURCE, team.namespace)
    make_binding(team, sealed=True, delivery="Sealed")
    make_run(team)
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert json.loads(team.output(found)) == EXPECTED
    assert set(node.etcd.find(URL.encode(), AUTH.encode(), since=team.since)) == set()


def test_a_pod_that_asks_has_it(team: Team) -> None:
    make_binding(team, sealed=True, delivery="Sealed")
    may_use(team, f"system:serviceaccount:{team.namespace}:{ACCOUNT}", "db", "use-db-by-pods")
    asked = "db/db-url, db/docker-config@config.json"
    team.client.create(asking(team, asked=asked, code=PRINTS))
    pod = wait_ended(team, "task")
    assert pod["status"]["phase"] == "Succeeded", pod["status"]
    assert json.loads(team.client.logs("task", team.namespace)) == EXPECTED


def test_what_is_wrong_is_in_the_bindings_status_and_a_run_waits_for_its_mend(team: Team) -> None:
    made = make_binding(team)
    right = made["spec"]["secrets"]
    wrong = [{**item, "template": "{{ db-usr }}"} if item["name"] == "db-url" else item for item in right]
    team.client.patch("secretbindings", "db", team.namespace, {"spec": {"secrets": wrong}})
    make_run(team)
    team.wait_condition("job", "Stalled", reason="BindingInvalid")
    found = team.client.wait_for(
        "secretbindings",
        "db",
        team.namespace,
        lambda item: item.get("status", {}).get("secrets") == "4/5",
    )
    (entry,) = [item for item in found["status"]["entries"] if not item["ready"]]
    assert entry["name"] == "db-url"
    assert "spec.secrets[2].template, entry 'db-url': it refers to 'db-usr'" in entry["message"]
    assert "A template can refer to: db-password, db-user" in entry["message"]

    team.client.patch("secretbindings", "db", team.namespace, {"spec": {"secrets": right}})
    run_found = team.wait_phase("job", "Succeeded", "Failed")
    assert json.loads(team.output(run_found)) == EXPECTED


def test_a_part_that_cannot_be_read_is_named_with_the_template_that_needs_it(team: Team) -> None:
    team.client.delete("secrets", SOURCE, team.namespace)
    make_binding(team)
    make_run(team)
    found = team.wait_condition("job", "Stalled", reason="SourceNotFound")
    message = condition(found, "Stalled")["message"]
    assert "entry 'db-user'" in message
    assert "the template of entry 'db-url' needs it" in message


def test_it_is_read_back_as_others_are(team: Team) -> None:
    make_binding(team, sealed=True)
    alice = asker(team, "alice", reveal=("db",))
    question = ask(alice, "db-url", binding="db")
    assert question.open(question.answer()["sealed"]) == URL


TELLS = """
import json, os, urllib.parse
from runkeys import secrets
url, config = secrets.get("db-url"), json.loads(secrets.get("docker-config"))["auths"]["registry.example"]
parts = urllib.parse.urlsplit(url)
print("begin", url, parts.password, urllib.parse.unquote(parts.password))
print(config, config["password"], config["auth"], json.dumps(config))
netrc = secrets.get("netrc")
print(netrc, *[line.split() for line in netrc.splitlines()], "end")
"""


def test_a_task_that_tells_all_of_it_tells_nothing(team: Team, cluster: Cluster) -> None:
    cluster.load_image(images.sdk_image())
    team.client.delete("secrets", SOURCE, team.namespace)
    user, password = canary(), canary()  # a .netrc has no blanks in a value
    team.make_source(SOURCE, user=user, password=password)
    make_binding(team)
    asked = [*ASKED, {"name": "n", "secret": "netrc", "file": "netrc"}]
    make_run(team, TELLS, asked, images.SDK_IMAGE)
    found = team.wait_phase("job", "Succeeded", "Failed")
    printed = team.output(found)
    assert phase(found) == "Succeeded", printed
    assert printed.startswith("begin")
    assert "end" in printed
    whole = base64.b64encode(f"{user}:{password}".encode()).decode()
    assert [text for text in (password, whole) if text in printed] == []
