"""Runs that go well, and those that end before their time: with values that a namespace keeps in Secrets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from testing.namespace import HELD_BACK, Team, python
from testing.people import may_not_use, may_use, person
from testing.workflows import make, outcomes, task, wait_pod
from tests.e2e.runs.kills import Hit, Kill, Killer, When
from tests.e2e.runs.test_faults import FAULTS, of_run
from tests.e2e.trust.test_shown import FIELDS, WORK, main

from .load import ENTRIES, UNTIL_TOLD, Entry, Scene, Stage, entry, takes_file, takes_variable

Play = Iterator[None]
AS_FILE = {"secrets": [{"name": "api_token", "secret": "token", "file": "token"}]}


@entry(base=True)
def live(scene: Scene) -> Play:
    """Goes on during the search: a variable and a file."""
    value = scene.given(live=True).text
    both = takes_variable(value)[2] + takes_file(value, "token", UNTIL_TOLD)[2]
    asked = [{"name": "api_token", "secret": "token"}, {"name": "f", "secret": "token", "file": "token"}]
    made = scene.submit(command=python(both), task={"secrets": asked})
    yield
    scene.team.wait_running(made)
    assert scene.team.object_name(made) in scene.team.live_secrets()
    yield
    scene.team.tell_to_finish(made)
    scene.ends("Succeeded")


@entry(base=True)
def variable(scene: Scene) -> Play:
    scene.submit(command=takes_variable(scene.given().text))
    yield
    scene.ends("Succeeded")


@entry()
def file(scene: Scene) -> Play:
    made = scene.submit(command=takes_file(scene.given(as_file=True).text, "token"), task=AS_FILE)
    yield
    scene.ends("Succeeded")
    scene.volumes_gone(made)


@entry()
def awkward_characters(scene: Scene) -> Play:
    """Every encoding of this one differs from the others."""
    value = scene.given(awkward=True).text
    asked = [{"name": "api_token", "secret": "token"}, {"name": "f", "secret": "token", "file": "token"}]
    both = takes_variable(value)[2] + takes_file(value, "token")[2]
    made = scene.submit(command=python(both), task={"secrets": asked})
    yield
    scene.ends("Succeeded")
    scene.volumes_gone(made)


@entry()
def in_a_template(scene: Scene) -> Play:
    """Two forms of it are put together; only the result is delivered."""
    value = scene.canary(source=True, handed=True).text
    part = {"name": "part", "secretKeyRef": {"name": scene.name, "key": "token"}}
    made_of = {"name": "token", "template": "https://user:{{ part | url }}@host/?again={{ part }}"}
    scene.bind(value, secrets=[part, made_of])
    scene.submit(command=takes_variable(f"https://user:{value}@host/?again={value}"))
    yield
    scene.ends("Succeeded")


@entry()
def on_start(scene: Scene) -> Play:
    command = takes_variable(scene.given().text, then="time.sleep(2)")
    scene.submit(command=command, task={"releasePolicy": "OnStart"})
    yield
    scene.ends("Succeeded")


@entry()
def workflow(scene: Scene) -> Play:
    """Three tasks; the first is tried again and hands something on."""
    value = scene.given().text
    check = takes_variable(value)[2]
    first = f'{check}\nwrite("a note")\nif os.environ["HOSTNAME"].split("-")[3] == "1": sys.exit(1)'
    make(
        scene.team,
        task("a", first, secret=True, backoffLimit=1, recordOutput=True),
        task("b", check, secret=True, dependsOn=["a"], input=[{"name": "n", "from": "tasks.a.output"}]),
        task("c", dependsOn=["b"]),
        name=scene.name,
        bindings=[{"name": scene.name}],
    )
    yield
    assert outcomes(scene.ends("Succeeded"), "a") == ["Failed", "Succeeded"]


@entry()
def fails(scene: Scene) -> Play:
    scene.submit(command=takes_variable(scene.given().text, then="sys.exit(3)"))
    yield
    scene.ends("Failed", "JobFailed")


@entry()
def cancelled(scene: Scene) -> Play:
    made = scene.submit(command=takes_variable(scene.given().text, then=UNTIL_TOLD))
    yield
    scene.team.wait_running(made)
    scene.team.client.patch("workflowruns", scene.name, scene.team.namespace, {"spec": {"cancel": True}})
    scene.ends("Cancelled")


@entry()
def suspended(scene: Scene) -> Play:
    """And resumed, so that it gets its Secret twice."""
    say = scene.team.client.patch
    where = ("workflowruns", scene.name, scene.team.namespace)
    value = scene.given().text
    then = "if os.environ['HOSTNAME'].split('-')[3] == '1': time.sleep(600)"
    make(
        scene.team,
        task("w", takes_variable(value, then=then)[2], secret=True),
        name=scene.name,
        bindings=[{"name": scene.name}],
    )
    yield
    wait_pod(scene.team, scene.team.run(scene.name), "w")
    say(*where, {"spec": {"suspend": True}})
    scene.team.wait_phase(scene.name, "Suspended")
    say(*where, {"spec": {"suspend": False}})
    scene.ends("Succeeded")


@entry()
def deadline(scene: Scene) -> Play:
    command = takes_variable(scene.given().text, then="time.sleep(600)")
    found = scene.submit(command=command, task={"activeDeadlineSeconds": 1234})
    yield
    pod = scene.team.wait_running(found)
    # Brought near from outside: seconds from the start would be over before a slow start.
    soon = {"spec": {"activeDeadlineSeconds": 1}}
    scene.team.client.patch("pods", pod["metadata"]["name"], scene.team.namespace, soon)
    scene.ends("Failed", "DeadlineExceeded")


@entry()
def never_starts(scene: Scene) -> Play:
    scene.given()
    main = {"name": "main", "image": "localhost/nowhere:1", "imagePullPolicy": "Never"}
    scene.submit(task={"startDeadlineSeconds": 20}, pod={"containers": [main]})
    yield
    scene.ends("Failed", "StartDeadlineExceeded")


@entry()
def no_such_program(scene: Scene) -> Play:
    """The runtime refuses to start the container, and says so in words of its own."""
    scene.given()
    scene.submit(command=["/no/such/program"])
    yield
    scene.ends("Failed")


@entry()
def run_deleted(scene: Scene) -> Play:
    made = scene.submit(command=takes_variable(scene.given().text, then=UNTIL_TOLD))
    yield
    scene.team.wait_running(made)
    scene.team.client.delete("workflowruns", scene.name, scene.team.namespace)
    scene.team.client.wait_gone("secrets", scene.team.object_name(made), scene.team.namespace)


@entry()
def pod_deleted(scene: Scene) -> Play:
    made = scene.submit(command=takes_variable(scene.given().text, then=UNTIL_TOLD))
    yield
    pod = scene.team.wait_running(made)
    scene.team.client.delete("pods", pod["metadata"]["name"], scene.team.namespace)
    scene.team.client.wait_gone("secrets", scene.team.object_name(made), scene.team.namespace)
    scene.team.client.patch("workflowruns", scene.name, scene.team.namespace, {"spec": {"cancel": True}})
    scene.team.wait_phase(scene.name, "Cancelled", "Failed")


@entry()
def namespace_deleted(scene: Scene) -> Play:
    team = Team(scene.node, scene.others[0], scene.team.operator)
    doomed = Scene(scene.name, team, scene.node, scene.mint)
    made = doomed.submit(command=takes_variable(doomed.given().text, then=UNTIL_TOLD))
    yield
    team.wait_running(made)
    team.client.delete("namespaces", team.namespace)
    team.client.wait_gone("namespaces", team.namespace, None)


# what cannot be had


@entry()
def access_denied(scene: Scene) -> Play:
    value = scene.canary(source=True).text
    scene.bind(value, access=[{"runSelector": {"matchLabels": {"app": "another"}}}])
    scene.submit()
    yield
    scene.stalls("AccessDenied")


@entry()
def use_denied(scene: Scene) -> Play:
    """At admission; and later, once the right has been taken away from whoever made the run."""
    scene.bind(scene.canary(source=True).text)
    ours: dict[str, Any] = {"bindings": [{"name": scene.name}], "pod": HELD_BACK}
    who, other = person(scene.team, f"{scene.name}-user"), person(scene.team, f"{scene.name}-other")
    scene.refused(lambda: other.submit(scene.name, **ours), "may not use SecretBinding")
    may_use(scene.team, who.name, scene.name)
    made = who.submit(scene.name, **ours)
    yield
    scene.team.pod(made)
    may_not_use(scene.team, who.name, scene.name)
    scene.team.let_go(made)
    scene.stalls("UseDenied")


@entry()
def no_source(scene: Scene) -> Play:
    """It goes away while the pod waits for its node."""
    scene.bind(scene.canary(source=True).text)
    made = scene.submit(pod=HELD_BACK)
    yield
    scene.team.pod(made)
    scene.team.client.delete("secrets", scene.name, scene.team.namespace)
    scene.team.let_go(made)
    scene.stalls("SourceNotFound")


@entry()
def no_key(scene: Scene) -> Play:
    scene.bind(scene.canary(source=True).text, key="password")
    scene.submit()
    yield
    scene.stalls("SourceKeyMissing")


@entry()
def too_large(scene: Scene) -> Play:
    scene.bind(scene.canary(source=True).text.ljust(120 * 1024 + 1, "."))
    scene.submit()
    yield
    scene.stalls("ValueTooLarge")


@entry()
def nul(scene: Scene) -> Play:
    scene.bind(scene.canary(source=True).text.encode() + b"\0")
    scene.submit()
    yield
    scene.stalls("ValueNotText")


@entry()
def latin1(scene: Scene) -> Play:
    scene.bind("é".encode("latin-1") + scene.canary(source=True).text.encode())
    scene.submit()
    yield
    scene.stalls("ValueNotText")


@entry()
def name_collision(scene: Scene) -> Play:
    scene.bind(scene.canary(source=True).text)
    asked = [{"name": "apiToken", "secret": "token"}, {"name": "api_token", "secret": "token"}]
    scene.submit(task={"secrets": asked})
    yield
    scene.ends("Failed", "NameCollision")


@entry()
def on_the_command_line(scene: Scene) -> Play:
    scene.bind(scene.canary(source=True).text)
    scene.submit(command=["echo", "$(SECRET_API_TOKEN)"])
    yield
    scene.ends("Failed", "TemplateRefused")


@entry()
def what_the_kubelet_would_show(scene: Scene) -> Play:
    """Every field by which it would: entries_leaking.py has what comes of each where nothing refuses it."""
    scene.bind(scene.canary(source=True).text)
    for number, fields in enumerate(FIELDS.values()):
        pod = {"containers": [main(**fields)], "volumes": [WORK]}
        scene.team.make_run(f"{scene.name}-{number}", bindings=[{"name": scene.name}], pod=pod)
    yield
    for number in range(len(FIELDS)):
        scene.ends("Failed", "TemplateRefused", name=f"{scene.name}-{number}")


@entry()
def round_the_binding(scene: Scene) -> Play:
    """A template that refers to the source itself."""
    scene.bind(scene.canary(source=True).text)
    reference = {"secretKeyRef": {"name": scene.name, "key": "token"}}
    main = {
        "name": "main",
        "image": "localhost/runkeys-task:1",
        "env": [{"name": "A", "valueFrom": reference}],
    }
    scene.submit(pod={"containers": [main]})
    yield
    scene.ends("Failed", "TemplateRefused")


# faults: each on every write of one run


WRITES = (
    ("create", "jobs"),
    ("create", "secrets"),
    ("delete", "secrets"),
    ("patch", "workflowruns/status"),
)


def _with_fault(fault: str) -> Any:
    def play(scene: Scene) -> Play:
        assert scene.proxy is not None
        rules = [scene.proxy.rule(of_run(scene.name, *write), FAULTS[fault]) for write in WRITES]
        scene.submit(command=takes_variable(scene.given().text))
        yield
        scene.ends("Succeeded")
        assert [len(rule.hits) for rule in rules] == [1] * len(WRITES), "a fault that did not come"

    return play


for _fault in FAULTS:
    ENTRIES.append(Entry(f"fault-{_fault}", _with_fault(_fault), Stage.FAULTY))


@entry(Stage.KILLED)
def killed_between_calls(scene: Scene) -> Play:
    assert scene.proxy is not None
    hits: list[Hit] = []
    kills = [
        Kill(When.BEFORE, "create secrets", 1),
        Kill(When.AFTER, "create secrets", 2),
        Kill(When.BEFORE, "delete secrets", 1),
        Kill(When.AFTER, "delete secrets", 2),
    ]
    killer = Killer(scene.proxy, scene.team.operator, kills, hits)
    scene.submit(command=takes_variable(scene.given().text, then="time.sleep(3)"))
    yield
    scene.ends("Succeeded")
    killer.disarm()
    assert len(hits) == len(kills), f"only {list(map(str, hits))}"
