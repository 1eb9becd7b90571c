"""Who gets a secret: nobody whom the binding's ``access`` does not admit, judged by the pod that was really made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from testing.cluster.client import Object
from testing.namespace import HELD_BACK, TASK_IMAGE, Team, condition, phase

pytestmark = pytest.mark.e2e

EVERYBODY: list[dict[str, Any]] = [{"runSelector": {}}]
OTHER_IMAGE = "localhost/other:1"


def denied(team: Team, reason: str = "AccessDenied") -> str:
    """What the run says once it is refused; nothing has been started for it."""
    found = team.wait_condition("job", "Stalled", "True", reason)
    assert phase(found) == "Pending"
    assert (team.jobs(), team.secret_story()) == ([], [])
    return str(condition(found, "Stalled")["message"])


def admits(team: Team, access: list[dict[str, Any]]) -> None:
    team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": access}})


def check_it_goes_on(team: Team) -> None:
    found = team.wait_phase("job", "Succeeded", "Failed")
    assert phase(found) == "Succeeded", found["status"]
    assert condition(found, "Authorized")["status"] == "True"
    assert team.secret_story() == ["made", "gone"]


@pytest.mark.parametrize(
    ("access", "says", "mended"),
    [
        pytest.param([], "has no access rules, so it admits no run", EVERYBODY, id="default-deny"),
        pytest.param(
            [{"runSelector": {"matchLabels": {"app": "other"}}}],
            "runSelector does not match the run's labels",
            [
                {"runSelector": {"matchLabels": {"app": "other"}}},
                {"runSelector": {"matchLabels": {"app": "test"}}},
            ],
            id="run-selector",
        ),
        pytest.param(
            [{"runSelector": {}, "serviceAccountNames": ["runner"]}],
            "service account default is not in serviceAccountNames",
            [{"runSelector": {}, "serviceAccountNames": ["runner", "default"]}],
            id="service-account",
        ),
        pytest.param(
            [{"images": ["ghcr.io/acme/**"]}],
            f"image {TASK_IMAGE} matches no pattern of images",
            [{"images": ["localhost/*:1"]}],
            id="images",
        ),
    ],
)
def test_a_run_is_refused_until_the_binding_admits_it(
    team: Team, access: list[dict[str, Any]], says: str, mended: list[dict[str, Any]]
) -> None:
    admits(team, access)
    team.make_run()
    message = denied(team)
    assert "spec.bindings[0].name: SecretBinding keys" in message
    assert says in message
    assert condition(team.run(), "Authorized")["status"] == "False"

    # nothing else changes, so it was the rule that kept it from running
    admits(team, mended)
    check_it_goes_on(team)


def test_an_image_that_is_mounted_as_a_volume_counts_like_that_of_a_container(team: Team) -> None:
    """What is in it may be the program. That of the pod that was really made: tests/unit/planning/test_plan.py."""
    admits(team, [{"images": [TASK_IMAGE]}])
    team.make_run(
        pod={**HELD_BACK, "volumes": [{"name": "tools", "image": {"reference": OTHER_IMAGE}}]},
    )
    assert f"image {OTHER_IMAGE} matches no pattern of images" in denied(team)

    admits(team, [{"images": [TASK_IMAGE, OTHER_IMAGE]}])
    team.wait_condition("job", "Authorized", "True")
    team.pod(team.run())


def test_a_binding_that_comes_later(team: Team) -> None:
    team.client.delete("secretbindings", "keys", team.namespace)
    team.make_run()
    assert "there is no SecretBinding keys in namespace" in denied(team, "BindingNotFound")
    team.make_binding()
    check_it_goes_on(team)


def _change_image(team: Team, pod: Object) -> None:
    change = {"spec": {"containers": [{"name": "main", "image": OTHER_IMAGE}]}}
    team.client.patch("pods", pod["metadata"]["name"], team.namespace, change, "strategic")


def _add_debugger(team: Team, pod: Object) -> None:
    debugger = {"name": "debugger", "image": OTHER_IMAGE, "imagePullPolicy": "Never"}
    change = {"spec": {"ephemeralContainers": [debugger]}}
    name = pod["metadata"]["name"]
    team.client.patch("pods", name, team.namespace, change, "strategic", "ephemeralcontainers")


def _narrow(team: Team, pod: Object) -> None:  # noqa: ARG001 -- the pod stays as it is
    admits(team, [{"images": [OTHER_IMAGE]}])


def _nothing(team: Team, pod: Object) -> None:
    """The broken twin: without the change the same pod gets its Secret."""


def pod_changes_while_it_waits_for_its_secret(team: Team, change: Callable[[Team, Object], None]) -> None:
    """A pod with a node, made for a run that was admitted; it changes while the operator is away."""
    admits(team, [{"images": [TASK_IMAGE]}])
    found = team.make_run(pod=HELD_BACK)
    team.pod(found)
    team.wait_condition("job", "Authorized", "True")
    team.operator.kill()
    team.let_go(found)
    pod = team.wait_pod(found, lambda pod: pod["spec"].get("nodeName"))
    with team.without_policies("pods"):  # which would refuse it
        change(team, pod)
    team.operator.start()


@pytest.mark.parametrize(
    ("change", "image"),
    [
        pytest.param(_change_image, OTHER_IMAGE, id="image-of-the-container"),
        pytest.param(_add_debugger, OTHER_IMAGE, id="ephemeral-container"),
        pytest.param(_narrow, TASK_IMAGE, id="binding-narrowed"),
    ],
)
def test_what_counts_is_the_pod_that_was_made_and_the_binding_as_it_is_now(
    team: Team, change: Callable[[Team, Object], None], image: str
) -> None:
    pod_changes_while_it_waits_for_its_secret(team, change)
    found = team.wait_condition("job", "Stalled", "True", "AccessDenied")
    assert f"image {image} matches no pattern of images" in condition(found, "Stalled")["message"]
    assert condition(found, "Authorized")["status"] == "False"
    assert condition(found, "SecretsReleased")["reason"] == "NotFinished"
    assert team.secret_story() == []


def test_control_the_same_pod_unchanged_gets_its_secret(team: Team) -> None:
    pod_changes_while_it_waits_for_its_secret(team, _nothing)
    check_it_goes_on(team)
