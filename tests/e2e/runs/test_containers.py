"""Which containers get the variables, under which names, and that a Secret stays only for those."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from testing.cluster.client import PATIENCE, Object
from testing.namespace import CHECKS_ITS_VARIABLE, TASK_IMAGE, Team, exposures, phase, python

pytestmark = pytest.mark.e2e

SHOWS_WHAT_IT_HAS = (
    "import os, hashlib;"
    "print({name: hashlib.sha256(value.encode()).hexdigest() for name, value in sorted(os.environ.items())"
    " if 'token' in name.lower()})"
)
"""Prints names of variables and hashes of what they hold."""
RUNS_UNTIL_TOLD = "import os, time\nwhile not os.path.exists('/tmp/finish'): time.sleep(0.05)"


def containers(**code: str) -> dict[str, Any]:
    """Part of a pod spec: containers by name, and what each runs."""
    return {
        "containers": [
            {"name": name, "image": TASK_IMAGE, "imagePullPolicy": "IfNotPresent", "command": python(text)}
            for name, text in code.items()
        ]
    }


def what_they_had(team: Team, found: Object, *names: str) -> list[str]:
    return [team.output(found, name).strip() for name in names]


def shown(team: Team, *variables: str) -> str:
    digest = hashlib.sha256(team.value.encode()).hexdigest()
    return str(dict.fromkeys(sorted(variables), digest))


@pytest.mark.parametrize(
    ("listed", "main", "helper"),
    [
        pytest.param([], ["SECRET_API_TOKEN"], [], id="the-first-unless-said-otherwise"),
        pytest.param(["helper"], [], ["SECRET_API_TOKEN"], id="the-listed-one"),
        pytest.param(["main", "helper"], ["SECRET_API_TOKEN"], ["SECRET_API_TOKEN"], id="both"),
    ],
)
def test_only_the_listed_containers_have_the_variable(
    team: Team, listed: list[str], main: list[str], helper: list[str]
) -> None:
    team.make_run(
        task={
            "containers": listed,
            "template": {"spec": containers(main=SHOWS_WHAT_IT_HAS, helper=SHOWS_WHAT_IT_HAS)},
        }
    )
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert what_they_had(team, found, "main", "helper") == [shown(team, *main), shown(team, *helper)]


def test_a_variable_has_exactly_the_name_that_env_gives(team: Team) -> None:
    team.make_run(
        task={
            "secrets": [
                {"name": "api_token", "secret": "token", "env": "my_token"},
                {"name": "apiToken", "secret": "token"},
            ]
        },
        command=python(SHOWS_WHAT_IT_HAS),
    )
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert what_they_had(team, found, "main") == [shown(team, "my_token", "SECRET_API_TOKEN")]


def container_state(pod: Object, name: str) -> str:
    """``waiting``, ``running`` or ``terminated``."""
    states = [item["state"] for item in pod["status"].get("containerStatuses", []) if item["name"] == name]
    return next(iter(states[0])) if states else "waiting"


def main_ends_while_the_helper_runs(team: Team, *listed: str) -> Object:
    """A run whose first container has ended; the second runs until it is told to finish."""
    spec = {
        "terminationGracePeriodSeconds": 1,
        **containers(main=CHECKS_ITS_VARIABLE, helper=RUNS_UNTIL_TOLD),
    }
    found = team.make_run(task={"containers": list(listed), "template": {"spec": spec}})
    team.wait_pod(
        found,
        lambda pod: (
            (container_state(pod, "main"), container_state(pod, "helper")) == ("terminated", "running")
        ),
    )
    return found


def check_the_secret_goes_while_the_helper_runs(team: Team, found: Object, timeout: float) -> None:
    team.client.wait_gone("secrets", team.object_name(found), team.namespace, timeout)
    pod = team.pod(found)
    assert (pod["status"]["phase"], container_state(pod, "helper")) == ("Running", "running")
    assert team.secret_story() == ["made", "gone"]


def test_the_secret_goes_when_the_container_that_carries_it_has_ended(team: Team) -> None:
    found = main_ends_while_the_helper_runs(team)
    check_the_secret_goes_while_the_helper_runs(team, found, timeout=PATIENCE)

    found = team.wait_run(
        "job", lambda item: item["status"].get("live") == 0 and exposures(item), says="released"
    )
    assert phase(found) == "Running"
    team.tell_to_finish(found, "helper")
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert team.secret_story() == ["made", "gone"]


def test_control_a_container_that_carries_it_too_keeps_it(team: Team) -> None:
    found = main_ends_while_the_helper_runs(team, "main", "helper")
    with pytest.raises(AssertionError):
        check_the_secret_goes_while_the_helper_runs(team, found, timeout=3)
    assert team.live_secrets() == [team.object_name(found)]
    team.tell_to_finish(found, "helper")
    team.wait_phase("job", "Succeeded")
    assert team.secret_story() == ["made", "gone"]
