"""Sealed values: that open, that do not, that users bring along; and what somebody forgot to seal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from runkeys.sealing import BindingEntry, PrivateKey, RunInput, seal
from testing.namespace import binding, condition, run
from testing.people import EVERYBODY, Person, may_use, person, sealed, sealed_entry
from tests.e2e.sealed.test_reveal import ask, asker

from .load import Scene, entry, takes_variable

Play = Iterator[None]
FORGOTTEN = "may be a secret in the clear"
ROTATE = "treat it as known to others and replace it"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
A_KEY = {"name": "source", "key": "token"}
ASKED: dict[str, Any] = {"secrets": [{"name": "api_token", "input": "token"}]}


@entry(base=True)
def sealed_in_a_binding(scene: Scene) -> Play:
    value = scene.canary(handed=True).text
    scene.team.make_binding(scene.name, secrets=[sealed_entry(scene.team, value, binding=scene.name)])
    scene.submit(command=takes_variable(value))
    yield
    scene.ends("Succeeded")


@entry()
def sealed_awkward(scene: Scene) -> Play:
    value = scene.canary(awkward=True, handed=True).text
    scene.team.make_binding(scene.name, secrets=[sealed_entry(scene.team, value, binding=scene.name)])
    scene.submit(command=takes_variable(value))
    yield
    scene.ends("Succeeded")


def _does_not_open(scene: Scene, text: str, reason: str) -> Play:
    scene.team.make_binding(scene.name, secrets=[{"name": "token", "sealed": text}])
    scene.submit()
    yield
    scene.stalls(reason)


@entry()
def sealed_for_another_place(scene: Scene) -> Play:
    place = BindingEntry(scene.team.namespace, "another", "token")
    text = sealed(scene.team, place, scene.canary().text)
    yield from _does_not_open(scene, text, "SealContextMismatch")


@entry()
def sealed_with_an_unknown_key(scene: Scene) -> Play:
    place = BindingEntry(scene.team.namespace, scene.name, "token")
    text = seal(scene.canary().text.encode(), place, PrivateKey.generate().public)
    yield from _does_not_open(scene, text, "UnknownKey")


@entry()
def sealed_and_cut_off(scene: Scene) -> Play:
    place = BindingEntry(scene.team.namespace, scene.name, "token")
    text = sealed(scene.team, place, scene.canary().text)[:-40]
    yield from _does_not_open(scene, text, "SealedInvalid")


@entry()
def sealed_with_a_nul(scene: Scene) -> Play:
    """It opens, and what it holds cannot be a variable."""
    place = BindingEntry(scene.team.namespace, scene.name, "token")
    yield from _does_not_open(scene, sealed(scene.team, place, scene.canary().text + "\0"), "ValueNotText")


@entry()
def personal_binding(scene: Scene) -> Play:
    value, owner = scene.canary(handed=True).text, _somebody(scene)
    may_use(scene.team, owner.name, scene.name)
    owner.client.create(
        binding(
            scene.team.namespace,
            scene.name,
            secrets=[sealed_entry(scene.team, value, owner=owner.name)],
            owner={"username": owner.name},
        )
    )
    owner.submit(scene.name, bindings=[{"personal": True}], command=takes_variable(value))
    yield
    scene.ends("Succeeded")


# what is read back: sealed with the key of whoever asks


@entry()
def read_back(scene: Scene) -> Play:
    """A sealed value, and one from a Secret."""
    sealed_value, kept = scene.canary(awkward=True).text, scene.canary(source=True).text
    place = f"{scene.name}-sealed"
    entry = sealed_entry(scene.team, sealed_value, binding=place)
    scene.team.make_binding(place, secrets=[entry])
    scene.bind(kept)
    user = asker(scene.team, f"{scene.name}-user", reveal=(scene.name, place))
    questions = [(ask(user, binding=place), sealed_value), (ask(user, binding=scene.name), kept)]
    for question, value in questions:  # at once, since an answer goes after a minute
        assert question.open(question.answer()["sealed"]) == value
    yield


@entry()
def not_read_back(scene: Scene) -> Play:
    """By somebody without the right, and for an entry that is not there."""
    scene.bind(scene.canary(source=True).text)
    nobody = asker(scene.team, f"{scene.name}-nobody")
    user = asker(scene.team, f"{scene.name}-user", reveal=(scene.name,))
    scene.refused(lambda: ask(nobody, binding=scene.name), "may not reveal SecretBinding")
    assert ask(user, "absent", binding=scene.name).answer()["reason"] == "SecretNotFound"
    yield


# what users bring along


def _somebody(scene: Scene) -> Person:
    return person(scene.team, f"{scene.name}-user")


def _purged(scene: Scene) -> None:
    """Nothing of what was brought along is in the run any more, in no field and no annotation."""
    assert "rk1." not in json.dumps(scene.team.run(scene.name))


@entry()
def brought_along(scene: Scene) -> Play:
    value, user = scene.canary(handed=True).text, _somebody(scene)
    unused = user.seal("unused", scene.canary().text)
    given = {"token": user.seal("token", value), "unused": unused}
    user.submit(scene.name, sealedInput=given, bindings=[], task=ASKED, command=takes_variable(value))
    yield
    assert condition(scene.ends("Succeeded"), "InputUsed")["reason"] == "InputUnused"
    _purged(scene)


@entry()
def brought_along_for_another_field(scene: Scene) -> Play:
    user = _somebody(scene)
    user.submit(
        scene.name,
        sealedInput={"token": user.seal("other", scene.canary().text)},
        bindings=[],
        task=ASKED,
    )
    yield
    scene.ends("Failed", "SealContextMismatch")
    _purged(scene)


@entry()
def brought_along_by_somebody_else(scene: Scene) -> Play:
    user = _somebody(scene)
    place = RunInput(scene.team.namespace, "somebody-else", "token")
    text = sealed(scene.team, place, scene.canary().text)
    user.submit(scene.name, sealedInput={"token": text}, bindings=[], task=ASKED)
    yield
    scene.ends("Failed", "SealContextMismatch")
    _purged(scene)


@entry()
def applied(scene: Scene) -> Play:
    """By kubectl, which keeps a copy of what it was given in an annotation."""
    value, user = scene.canary(handed=True).text, _somebody(scene)
    body = run(
        scene.team.namespace,
        scene.name,
        requester={"username": user.name, "groups": [EVERYBODY]},
        sealedInput={"token": user.seal("token", value)},
        bindings=[],
        task=ASKED,
        command=takes_variable(value),
    )
    given = json.dumps(body)
    scene.kubectl(f"--as={user.name}", "apply", "--dry-run=server", "-o", "yaml", "-f", "-", input=given)
    scene.kubectl(f"--as={user.name}", "apply", "-f", "-", input=given)
    yield
    scene.ends("Succeeded")
    _purged(scene)


@entry()
def applied_by_the_server(scene: Scene) -> Play:
    value = scene.canary(handed=True).text
    entry = sealed_entry(scene.team, value, binding=scene.name)
    body = binding(scene.team.namespace, scene.name, secrets=[entry])
    for how in ("--dry-run=server", "--field-manager=somebody"):
        scene.kubectl("apply", "--server-side", how, "-f", "-", input=json.dumps(body))
    scene.submit(command=takes_variable(value))
    yield
    scene.ends("Succeeded")


# what somebody forgot to seal


@entry(base=True)
def plaintext_in_a_run(scene: Scene) -> Play:
    """By every way of writing; each is refused without being repeated."""
    value = scene.canary(sent=True).text
    body = run(scene.team.namespace, scene.name, sealedInput={"token": value}, bindings=[], task=ASKED)
    given, client = json.dumps(body), scene.team.client
    scene.refused(lambda: client.create(body), "spec.sealedInput", FORGOTTEN)
    scene.refused(lambda: client.create(body, dryRun="All"), "spec.sealedInput", FORGOTTEN)
    scene.refused(lambda: client.apply(body), "spec.sealedInput", FORGOTTEN)
    for how in ("apply", "create", "replace"):
        for more in ((), ("--dry-run=server",)) if how != "replace" else ((),):
            scene.refused(lambda: scene.kubectl(how, *more, "-f", "-", input=given))  # noqa: B023 -- called here
    yield


@entry(base=True)
def plaintext_in_a_binding(scene: Scene) -> Play:
    value = scene.canary(sent=True).text
    body = binding(scene.team.namespace, scene.name, secrets=[{"name": "token", "sealed": value}])
    client = scene.team.client
    scene.refused(lambda: client.create(body), "spec.secrets[0].sealed", FORGOTTEN)
    scene.refused(lambda: client.apply(body), "spec.secrets[0].sealed", FORGOTTEN)
    scene.refused(lambda: scene.kubectl("apply", "-f", "-", input=json.dumps(body)), FORGOTTEN)
    yield


@entry()
def plaintext_that_has_another_form(scene: Scene) -> Play:
    """Too long, a list, an object: the schema refuses them before its rules do."""
    value = scene.canary(sent=True).text
    for wrong in (value.ljust(100_000, "."), [value], {"value": value}):
        body = run(scene.team.namespace, scene.name, sealedInput={"token": wrong}, bindings=[], task=ASKED)
        scene.refused(lambda: scene.team.client.create(body), "spec.sealedInput.token")  # noqa: B023
    yield


@entry()
def plaintext_in_the_middle(scene: Scene) -> Play:
    """Added later to a run that is there."""
    value = scene.canary(sent=True).text
    scene.team.make_binding(scene.name, access=[])
    scene.submit()
    change = {"spec": {"sealedInput": {"token": value}}}
    where = ("workflowruns", scene.name, scene.team.namespace)
    scene.refused(lambda: scene.team.client.patch(*where, change), "sealedInput")
    yield
    scene.stalls("AccessDenied")


@entry(base=True)
def plaintext_in_the_input(scene: Scene) -> Play:
    """As other systems take it: ``$secrets`` among the input, at its top and wherever else."""
    value = scene.canary(sent=True).text
    clear = {"$secrets": {"token": value}}
    for wrong in (clear, {"circuit": clear}, {"a": {"b": clear}}, {"list": [[clear]]}):
        body = run(scene.team.namespace, scene.name, input=wrong, bindings=[], task={"secrets": []})
        scene.refused(lambda: scene.team.client.create(body), "$secrets", ROTATE)  # noqa: B023
        scene.refused(lambda: scene.kubectl("apply", "-f", "-", input=json.dumps(body)), ROTATE)  # noqa: B023
    yield


@entry()
def plaintext_in_the_copy_that_kubectl_keeps(scene: Scene) -> Play:
    """In a field that is no field: the server would leave it out, and the annotation would keep it."""
    value, client = scene.canary(sent=True).text, scene.team.client
    body = binding(scene.team.namespace, scene.name, secrets=[{"name": "t", "secretKeyRef": A_KEY}])
    for wrong in ({"value": value}, {"data": value}, {"sealed": value}):
        kept = {**body, "spec": {**body["spec"], "secrets": [{"name": "t", **wrong}]}}
        note = {"annotations": {LAST_APPLIED: json.dumps(kept)}}
        annotated = {**body, "metadata": {**body["metadata"], **note}}
        scene.refused(lambda: client.create(annotated), LAST_APPLIED, ROTATE)  # noqa: B023
    scene.refused(
        lambda: scene.kubectl("apply", "--validate=ignore", "-f", "-", input=json.dumps(kept)), "sealed"
    )
    yield
