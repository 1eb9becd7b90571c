"""Sealed parameters: a value that a pod brings along, sealed for its service account until a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from runkeys.sealing import PodParameter
from runkeys.sealing.parameter import seal_parameter
from testing.cluster.base import Cluster, wait_until
from testing.cluster.client import Object
from testing.namespace import Team
from testing.people import public_key
from tests.e2e.delivery.test_main_path import places_of
from tests.e2e.pods.conftest import ACCOUNT, asking, events_of, wait_ended

pytestmark = pytest.mark.e2e

PRINTS = (
    "import hashlib, os\n"
    "print(hashlib.sha256(os.environ['API_TOKEN'].encode()).hexdigest())\n"
    "print(os.environ['RUNKEYS_SECRETS'])\n"
)


def parameter(team: Team, value: str, account: str = ACCOUNT, lives: timedelta = timedelta(hours=1)) -> str:
    expires = datetime.now(UTC) + lives
    return seal_parameter(value.encode(), PodParameter(team.namespace, account), expires, public_key(team))


def bringing(team: Team, annotation: str, name: str = "task", asked: str = "", code: str = PRINTS) -> Object:
    return asking(team, name, asked=asked, code=code, annotations={"runkeys.dev/sealed": annotation})


def test_a_pod_has_the_parameter_that_it_brings(team: Team, node: Cluster) -> None:
    text = parameter(team, team.value)
    content = (
        "content = open('/var/runtime/secrets/token.txt').read()\n"
        "print(hashlib.sha256(content.encode()).hexdigest())\n"
        "print('SECRET_TOKEN' in os.environ)\n"
    )
    annotation = f"API_TOKEN={text}, @token.txt={text}"
    team.client.create(bringing(team, annotation, asked="keys/token", code=PRINTS + content))
    found = wait_ended(team, "task")
    assert found["status"]["phase"] == "Succeeded", found["status"]
    carried = '{"token":"SECRET_TOKEN","API_TOKEN":"API_TOKEN","token.txt":"file:token.txt"}'
    assert team.client.logs("task", team.namespace) == f"{team.digest}\n{carried}\n{team.digest}\nTrue\n"
    assert places_of(team, node) == set()
    (event,) = [item for item in events_of(team, "task") if item["reason"] == "SecretsDelivered"]
    assert event["message"] == "1 secrets of SecretBinding keys and 2 sealed parameters of its own, for main"


def test_no_binding_is_needed(team: Team) -> None:
    pod = bringing(team, f"API_TOKEN={parameter(team, team.value)}")
    del pod["metadata"]["annotations"]["runkeys.dev/secrets"]
    team.client.create(pod)
    assert wait_ended(team, "task")["status"]["phase"] == "Succeeded"
    assert team.client.logs("task", team.namespace).splitlines()[0] == team.digest


def denied(team: Team, name: str) -> str:
    """The refusal of the pod's request, which is final for this pod; once it is there."""
    found: list[str] = []

    def is_denied() -> bool:
        for request in team.client.list("podcertificaterequests", team.namespace):
            if request["spec"]["podName"] == name:
                conditions = request.get("status", {}).get("conditions", [])
                found[:] = [item["message"] for item in conditions if item["type"] == "Denied"]
        return bool(found)

    wait_until(f"the request of pod {name} to be denied", is_denied)
    return found[0]


def test_one_that_expired_or_is_for_others_opens_nothing(team: Team) -> None:
    late = parameter(team, team.value, lives=timedelta(hours=-1))
    others = parameter(team, team.value, account="default")
    team.client.create(bringing(team, f"API_TOKEN={late}", "late"))
    team.client.create(bringing(team, f"API_TOKEN={others}", "others"))
    team.client.create(bringing(team, f"API_TOKEN={parameter(team, team.value)}", "current"))
    told = denied(team, "late")
    assert "the sealed parameter 'API_TOKEN': expired at " in told
    assert "create the pod again" in told
    assert "--service-account runner" in denied(team, "others")
    assert wait_ended(team, "current")["status"]["phase"] == "Succeeded", "the same in time has its value"
    for name in ("late", "others"):
        assert team.client.get("pods", name, team.namespace)["status"]["phase"] == "Pending"
    assert team.value not in team.operator.text()


def test_one_that_is_changed_on_its_way_opens_nothing(team: Team) -> None:
    text = parameter(team, team.value)
    changed = text[:-2] + ("AA" if text[-2:] != "AA" else "BB")
    team.client.create(bringing(team, f"API_TOKEN={changed}"))
    assert "the sealed parameter 'API_TOKEN'" in denied(team, "task")
