"""Tasks that ask for their secrets in a pod: with nothing of ours, and with the SDK."""

from __future__ import annotations

from typing import Any

import pytest

from testing.cluster.client import Object
from testing.namespace import Team, run

pytestmark = pytest.mark.e2e


def sdk_run(team: Team, image: str, code: str, **task: Any) -> Object:
    """A run of one task that runs Python ``code`` in the image with the SDK."""
    made = run(team.namespace, command=["python3", "-c", code], task=task or None)
    for container in made["spec"]["tasks"][0]["template"]["spec"]["containers"]:
        container["image"] = image
    return team.client.create(made)


def test_a_plain_image_with_nothing_of_ours_reads_its_variable(team: Team) -> None:
    made = team.make_run(
        command=[
            "sh",
            "-c",
            'printf %s "$SECRET_API_TOKEN" | sha256sum; find / -name "runkeys*" -not -path "/proc/*"',
        ]
    )
    team.wait_phase("job", "Succeeded")
    assert team.output(made).split() == [team.digest, "-"], "the digest, and nothing of ours in the image"


READS = """
import hashlib, os, subprocess, sys
from runkeys import secrets

def digest(name, **named):
    return hashlib.sha256(secrets.get(name, **named).encode()).hexdigest()

print("first", digest("api_token"))
print("again", digest("api_token", config_name="nope", workspace_id="nope"))
print("by its name in the binding", digest("token"))
print("left in the environment", [name for name in os.environ if name.startswith("SECRET_")])
child = "import os; print([name for name in os.environ if name.startswith('SECRET_')])"
print("of a child", subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip())
print("list", secrets.list())
print("shown", secrets.get("api_token"), flush=True)
for call in (lambda: secrets.get("other"), lambda: secrets.set("other", "x")):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_row_22_a_pod_with_the_sdk_reads_it_by_name_with_no_configuration(team: Team, sdk_image: str) -> None:
    made = sdk_run(team, sdk_image, READS)
    team.wait_phase("job", "Succeeded")
    lines = team.output(made).splitlines()
    assert lines[:7] == [
        f"first {team.digest}",
        f"again {team.digest}",
        f"by its name in the binding {team.digest}",
        "left in the environment []",
        "of a child []",
        "list ['api_token', 'token']",
        "shown [redacted]",
    ]
    assert lines[7].startswith(
        "NotFoundError task work did not get a secret 'other'; it has: api_token, token. "
    )
    assert lines[7].endswith("- {name: other, secret: other}")
    assert lines[8].startswith("UnauthorizedError this pod has no token")
    team.wait_condition("job", "SecretsReleased")
    assert team.live_secrets() == []


def test_a_task_that_was_not_given_it_does_not_find_it(team: Team, sdk_image: str) -> None:
    """The same code, and the line under ``secrets`` taken away: nothing else is looked at."""
    code = "from runkeys import secrets; secrets.get('api_token', config_name='lab')"
    made = sdk_run(team, sdk_image, code, secrets=[])
    team.wait_phase("job", "Failed")
    text = team.output(made)
    assert "NotFoundError: task work did not get a secret 'api_token'; it has: none." in text
    assert "- {name: api_token, secret: api_token}" in text


def test_a_secret_in_a_file_is_read_by_its_name_too(team: Team, sdk_image: str) -> None:
    code = (
        "import hashlib; from runkeys import secrets;"
        "print(hashlib.sha256(secrets.get('account').encode()).hexdigest())"
    )
    asked = [{"name": "account", "secret": "token", "file": "account.json"}]
    made = sdk_run(team, sdk_image, code, secrets=asked)
    team.wait_phase("job", "Succeeded")
    assert team.output(made).split() == [team.digest]
