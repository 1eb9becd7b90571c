"""With the rights that people have, `plan` works; without them a command says what grants them, and `doctor` too."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from testing.cluster.base import wait_until
from testing.cluster.client import ApiError
from testing.namespace import Team, run
from testing.people import sealed_entry
from tests.e2e.cli.conftest import UserMaker, allow_store, bind, charts_role
from tests.e2e.cli.test_preview import checks, deployment, told, write
from tests.unit.cli.terminal import Terminal

pytestmark = pytest.mark.e2e

ROLES: dict[str, Callable[[Team], tuple[str, ...]]] = {
    "edit": lambda team: ("edit", charts_role(team, "view"), charts_role(team, "edit")),
    "admin": lambda team: ("admin", charts_role(team, "view"), charts_role(team, "edit")),
    "user": lambda team: (charts_role(team, "user"),),
}


def administrator(team: Team, folder: Path) -> Terminal:
    """Who may do everything in the cluster."""
    kubeconfig = str(team.cluster.kubeconfig)
    return Terminal(folder, {"KUBECONFIG": kubeconfig, "RUNKEYS_OPERATOR_NAMESPACE": team.namespace})


@pytest.fixture
def with_roles(team: Team, user: UserMaker) -> Callable[[str], Terminal]:
    """Make users who have these ClusterRoles and may use the team's binding."""

    def make(which: str) -> Terminal:
        made = user(which, may=False)
        for role in ROLES[which](team):
            bind(team, which, role)
        wait_until(f"{which} to be let in", lambda: made.run("status").code == 0)
        return made

    return make


class TestPlan:
    @pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
    @pytest.mark.parametrize("which", sorted(ROLES))
    def test_works_with_the_roles_of_people(
        self, team: Team, with_roles: Callable[[str], Terminal], which: str, delivery: str
    ) -> None:
        person = with_roles(which)
        done = person.run("plan", "-f", write(person, run(team.namespace, task={"delivery": delivery})))

        assert (done.code, "Problem" in done.out) == (0, False), done

    @pytest.mark.parametrize("delivery", ["Secret", "Sealed"])
    def test_works_as_administrator_of_the_cluster(self, team: Team, tmp_path: Path, delivery: str) -> None:
        admin = administrator(team, tmp_path)
        file = write(admin, run(team.namespace, task={"delivery": delivery}))
        done = admin.run("-n", team.namespace, "plan", "-f", file)

        assert (done.code, "Problem" in done.out) == (0, False), done

    def test_the_api_server_still_has_its_say(
        self, team: Team, with_roles: Callable[[str], Terminal]
    ) -> None:
        """The control: what the namespace does not admit is seen, and the policy that was in the way is in force."""
        person = with_roles("edit")
        file = write(person, run(team.namespace))
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        [job] = json.loads(person.ok("plan", "-f", file, "-o", "json"))["jobs"]
        account = f"system:serviceaccount:{team.namespace}:edit"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": team.namespace}}
        with pytest.raises(ApiError, match="refers to a Secret whose name begins with rk-"):
            team.client.as_user(account).create({**pod, "spec": job["spec"]["template"]["spec"]})

        team.client.patch("namespaces", team.namespace, None, {"metadata": {"labels": labels}})
        done = person.run("plan", "-f", file)

        assert done.code == 5
        assert 'the API server refuses the pod of task work: pods "runkeys-plan-' in done.out
        assert 'violates PodSecurity "restricted' in done.out

    def test_of_a_run_that_is_there(self, team: Team, alice: Terminal) -> None:
        nobody = [{"serviceAccountNames": ["another"]}]
        team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": nobody}})
        alice.ok("run", "-f", write(alice, run(team.namespace)))
        team.wait_condition("job", "Stalled")
        before = team.run()

        waits = alice.run("plan", "job")
        team.client.patch(
            "secretbindings", "keys", team.namespace, {"spec": {"access": [{"runSelector": {}}]}}
        )
        goes = alice.run("plan", "job")

        assert waits.code == 5
        [told] = [text for text in waits.out.splitlines() if text.startswith("The operator says: work: ")]
        assert "SecretBinding keys does not admit this run" in told
        assert "Problem: " in waits.out
        assert goes.code == 0, goes
        assert "Starts at once: work" in goes.out
        assert team.run()["spec"] == before["spec"]
        assert alice.run("plan", "absent").code == 3
        assert alice.run("plan").code == 2


def command_in(text: str, before: str) -> str:
    """The command that stands behind these words, to the end of its line."""
    return text.partition(before)[2].splitlines()[0]


class TestMissingRights:
    @pytest.mark.parametrize(
        ("words", "stdin"),
        [
            (("status",), ""),
            (("watch", "job", "--timeout", "1"), ""),
            (("logs", "job"), ""),
            (("cancel", "job"), ""),
            (("run", "--image", "x"), ""),
            (("secret", "set", "a"), "x"),
            (("secret", "get", "a"), ""),
            (("secret", "list"), ""),
            (("kv", "set", "a", "1"), ""),
            (("kv", "get", "a"), ""),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
    )
    def test_one_line_has_the_command_that_grants_them(
        self, team: Team, user: UserMaker, words: tuple[str, ...], stdin: str
    ) -> None:
        bob = user("bob", may=False)
        role = charts_role(team, "user")
        made = run(team.namespace)
        made["spec"]["suspend"] = True
        team.client.create(made)

        done = bob.run(*words, stdin=stdin)

        assert done.code == 4, done
        error = done.err.splitlines()[-1]
        assert f"system:serviceaccount:{team.namespace}:bob may not " in error
        assert error.endswith("# what else is missing: runkeys doctor")
        command = command_in(done.err, "allows it with: ")
        if words[0] != "kv":
            assert "create rolebinding runkeys-user --clusterrole=runkeys-user" in command
        team.cluster.run("sh", "-c", command.replace("runkeys-user", role))
        wait_until("the right to be there", lambda: bob.run(*words, stdin=stdin).code != 4)

    def test_it_is_for_administrators_what_is_of_the_cluster(self, team: Team, user: UserMaker) -> None:
        bob = user("bob")

        def may(error: str = "") -> bool:
            """Whether the command works, or misses another right than before."""
            done = bob.run("who-can", "use", "keys")
            return done.code == 0 or (error != "" and done.err != error)

        for _ in range(4):  # each kind of role is asked for by itself
            done = bob.run("who-can", "use", "keys")
            if done.code == 0:
                break
            team.cluster.run("sh", "-c", command_in(done.err, "allows it with: "))
            wait_until("another answer", partial(may, done.err))
        assert bob.run("who-can", "use", "keys").code == 0
        for kind in ("clusterrole", "clusterrolebinding"):
            team.cluster.kubectl(
                "delete", kind, "runkeys-list-clusterroles", "runkeys-list-clusterrolebindings"
            )


class TestDoctor:
    def test_its_advice_is_enough_for_all_commands(self, team: Team, user: UserMaker) -> None:
        name = f"runkeys-{secrets.token_hex(3)}"
        found = deployment(team, version="0.1.0")
        team.client.create({**found, "metadata": {**found["metadata"], "name": name}})  # type: ignore[dict-item]
        bob = user("bob", may=False)
        state, remedy = checks(bob)["rights"]
        assert (state, "--clusterrole=runkeys-user" in remedy) == ("problem", True)

        # An operator of another name has roles of another name, if one may see it.
        role = charts_role(team, "user")
        team.cluster.run("sh", "-c", remedy.replace("runkeys-user", role))
        wait_until("the rights to be there", lambda: checks(bob)["rights"][0] == "ok")
        state, remedy = checks(bob)["rights for kv"]
        assert state == "warning"
        team.cluster.run("sh", "-c", remedy.partition("`runkeys kv`: ")[2])
        wait_until("the rights for kv to be there", lambda: checks(bob)["rights for kv"][0] == "ok")

        bob.ok("secret", "set", "mine", stdin="a value")
        assert bob.ok("secret", "get", "mine") == "a value"
        bob.ok("secret", "list")
        bob.ok("secret", "delete", "mine")
        bob.ok("kv", "set", "k", "1")
        assert bob.ok("kv", "get", "k") == "1\n"
        bob.ok("kv", "list")
        bob.ok("kv", "delete", "k")
        bob.ok("run", "-f", write(bob, run(team.namespace)), "--wait")
        bob.ok("logs", "job")
        bob.ok("delete", "job")

    def test_control_one_right_less_is_seen(self, team: Team, user: UserMaker) -> None:
        bob = user("bob")
        allow_store(team, "bob")
        role = team.client.get("roles", "user-bob", team.namespace)
        rules = [
            {**rule, "resources": [item for item in rule["resources"] if item != "secretreveals"]}
            for rule in role["rules"]
        ]
        told(bob, "rights", "ok", "may start and see runs, and set and read secrets")
        team.client.patch("roles", "user-bob", team.namespace, {"rules": rules})
        told(bob, "rights", "problem", "create secretreveals.runkeys.dev, get secretreveals.runkeys.dev")

    def test_it_speaks_of_sealed_delivery(self, team: Team, tmp_path: Path) -> None:
        admin = administrator(team, tmp_path)
        more = {**admin.more}
        there = Terminal(tmp_path, more)
        namespaced = ("-n", team.namespace)
        assert said(there, "sealed delivery", *namespaced)["state"] == "ok"
        team.make_binding("sealed", secrets=[sealed_entry(team, "x", binding="sealed")], delivery="Sealed")

        off = said(there, "sealed delivery", *namespaced)
        image = "--sealed-delivery-image=localhost/runkeys-operator:dev"
        found: dict[str, Any] = deployment(team, version="0.1.0")
        found["spec"]["template"]["spec"]["containers"][0]["args"] = [image]
        team.client.create(found)
        on = said(there, "sealed delivery", *namespaced)

        assert (off["state"], "SecretBinding sealed" in off["found"]) == ("problem", True)
        assert "sealedDelivery.enabled=true" in off["remedy"]
        assert on["state"] == "ok"
        assert on["found"] == "on; asked for here by: SecretBinding sealed"

    def test_it_speaks_of_stalled_runs(self, team: Team, alice: Terminal) -> None:
        nobody = [{"serviceAccountNames": ["another"]}]
        team.client.patch("secretbindings", "keys", team.namespace, {"spec": {"access": nobody}})
        alice.ok("run", "-f", write(alice, run(team.namespace)))
        team.wait_condition("job", "Stalled")
        waits = said(alice, "runs")
        assert waits["state"] == "warning"
        assert waits["remedy"].startswith("job: AccessDenied, ")

        alice.ok("delete", "job", "--yes")
        team.client.wait_gone("workflowruns", "job", team.namespace)
        assert said(alice, "runs")["state"] == "ok"

    def test_it_speaks_of_runs_that_the_operator_says_nothing_of(self, team: Team, alice: Terminal) -> None:
        team.operator.kill()
        alice.ok("run", "-f", write(alice, run(team.namespace)))
        assert said(alice, "runs")["state"] == "ok", "a run that was just created may have none"
        wait_until("doctor to name it", lambda: said(alice, "runs")["state"] == "problem", every=1)
        found = said(alice, "runs")
        assert "no status for more than 30 s to: job" in found["found"]
        assert "| grep job" in found["remedy"]

        team.operator.start()
        team.wait_phase("job", "Succeeded", "Failed")
        assert said(alice, "runs")["state"] == "ok"


def said(user: Terminal, check: str, *words: str) -> dict[str, str]:
    """What doctor says of this check."""
    items = json.loads(user.run(*words, "doctor", "-o", "json").out)["findings"]
    [found] = [item for item in items if item["check"] == check]
    assert isinstance(found, dict)
    return found
