"""The requirements on runs, and on requests to read a value back."""

from __future__ import annotations

from runkeys.api import GROUP
from runkeys.names import LAST_APPLIED
from runkeys.planning.access import REVEAL, USE
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, filled, match, may, ours, policy, text
from runkeys.policies.shared import GRANT, SUBJECT, changed, granted_by

MOST_BINDINGS = 8
"""Limit on the bindings that a run can name."""


def use(_: Account) -> Object:
    """The user who creates a run is recorded as its requester, and may use each binding that it names."""
    checks = [_requester_is_who_asks()]
    for index in range(MOST_BINDINGS):
        name = f"variables.names[{index}]"
        checks.append(
            check(
                f"size(variables.names) <= {index} || {may(USE, GROUP, 'secretbindings', name)}",
                f"the user who creates the run may not use SecretBinding number {index + 1} of spec.bindings",
                filled(
                    "<who> may not use SecretBinding <binding>; an administrator of the namespace can allow it: "
                    f"{GRANT}",
                    **granted_by(USE, name),
                ),
            )
        )
    named = "object.spec.?bindings.orValue([]).filter(b, has(b.name)).map(b, b.name)"
    return policy([ours("CREATE", "workflowruns")], checks, {"names": named, "subject": SUBJECT, **_GROUPS})


def reveal(_: Account) -> Object:
    """The user who asks for a value is recorded, and may reveal the binding. Their personal binding needs no right."""
    name = "object.spec.?binding.orValue('')"
    checks = [
        _requester_is_who_asks(),
        check(
            f"{name} == '' || {may(REVEAL, GROUP, 'secretbindings', name)}",
            "the user who asks for a value may not reveal the SecretBinding",
            filled(
                "<who> may not reveal SecretBinding <binding>; an administrator of the namespace can allow it: "
                + GRANT,
                **granted_by(REVEAL, name),
            ),
        ),
    ]
    return policy([ours("CREATE", "secretreveals")], checks, {"subject": SUBJECT, **_GROUPS})


_UNORDERED = 256
"""So many groups may be in any order. To compare sets costs the square of their size, and a policy has a budget."""

_GROUPS = {
    "said": "object.spec.?requester.?groups.orValue([])",
    "groups": "request.userInfo.?groups.orValue([])",
}


def _requester_is_who_asks() -> Object:
    return check(
        f"has(object.spec.requester) && object.spec.requester.username == {WHO}"
        " && (variables.said == variables.groups"
        f" || (size(variables.said) <= {_UNORDERED} && size(variables.groups) <= {_UNORDERED}"
        " && sets.equivalent(variables.said, variables.groups)))",
        "spec.requester must be the user who creates the object, with all groups of this user and no others",
        filled(
            "spec.requester must be <who>, who creates the object, with exactly these groups: <groups>; leave it out"
            " where the API server fills it in (Kubernetes 1.36 and later)",
            who=WHO,
            groups="variables.groups.join(', ')",
        ),
    )


def requester() -> Object:
    """Fills in who creates a run or asks for a value.

    A patch, since the sent value has to be replaced, not merged.
    """
    groups = "request.userInfo.?groups.orValue([])"
    value = f"Object.spec.requester{{username: {WHO}, groups: {groups}}}"
    expression = f'[JSONPatch{{op: "add", path: "/spec/requester", value: {value}}}]'
    return {
        "failurePolicy": "Fail",
        "matchConstraints": match(ours("CREATE", "workflowruns", "secretreveals")),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        "reinvocationPolicy": "IfNeeded",
    }


_FREE = ["suspend", "cancel", "ttlSecondsAfterFinished", "sealedInput"]


def frozen(_: Account) -> Object:
    """A run stays what was admitted. The schema's own rules cannot see into `input` and templates."""
    checks = [
        check(
            "size(variables.changed) == 0",
            "the spec of a run is immutable: create a new run",
            filled(
                # GitOps tools recognise "is immutable", and then delete the object and create it again.
                "spec.<changed> is immutable once a run exists, only suspend, cancel and ttlSecondsAfterFinished"
                " can be changed: create a new run",
                changed="variables.changed.join(', spec.')",
            ),
        ),
        check(
            "!has(object.spec.sealedInput) || (has(oldObject.spec.sealedInput)"
            " && object.spec.sealedInput == oldObject.spec.sealedInput)",
            "spec.sealedInput can only be removed from a run, as a whole: create a new run",
        ),
    ]
    return policy([ours("UPDATE", "workflowruns")], checks, {"changed": changed(_FREE)})


_ROTATE = "what was sent may now be in the audit log; treat it as known to others and replace it"
_SEALED = r'"sealed"\s*:\s*"([^r"]|r[^k"]|rk[^1"]|rk1[^."])'
# An object there names a field of a SecretStore.
_PLAIN_ENTRY = r'"secrets"\s*:\s*\[[^\]]*("(data|stringData)"\s*:|"value"\s*:\s*[^{\s])'
_SEALED_INPUT = r'"sealedInput"\s*:\s*\{(\s*"([^"\\]|\\.)*"\s*:\s*"rk1\.[^"]*"\s*,?)*\s*\}'


_HAS_SECRETS = """'%s'.format([object.spec.input]).contains('"$secrets":')"""
"""CEL that looks for the key at any depth, although CEL has no recursion: quotes inside of texts are escaped there.

To go through lists and objects item by item would take the API server seconds for a large input.
"""


def plaintext(_: Account) -> Object:
    """Nothing that should be sealed is stored in the clear, in the copy that `kubectl apply` keeps neither."""
    is_run = "request.resource.resource == 'workflowruns'"
    checks = [
        check(
            f"!({is_run}) || !has(object.spec.input) || !{_HAS_SECRETS}",
            "spec.input holds $secrets in the clear; submit it with `runkeys run`, which seals them, or put the"
            f" output of `runkeys seal` into spec.sealedInput; {_ROTATE}",
        ),
        check(
            "variables.applied == '' || !("
            f"variables.applied.contains('\"$secrets\"') || variables.applied.matches({text(_PLAIN_ENTRY)})"
            f" || variables.applied.matches({text(_SEALED)})"
            " || (variables.applied.contains('\"sealedInput\"')"
            f" && !variables.applied.matches({text(_SEALED_INPUT)})))",
            f"the annotation {LAST_APPLIED} holds a value in the clear, although the spec does not accept it;"
            f" seal it with `runkeys seal`; {_ROTATE}",
        ),
    ]
    applied = f"object.metadata.?annotations[?{text(LAST_APPLIED)}].orValue('')"
    return policy([ours("CREATE UPDATE", "workflowruns", "secretbindings")], checks, {"applied": applied})


def status(account: Account) -> Object:
    """Only the operator writes status: it trusts the status that it finds after a restart.

    That of a SecretStore it does not trust, and several operators of a cluster may write it.
    """
    only = check(
        f"{WHO} == {text(account.username)}",
        f"only the operator, {account.username}, writes the status of WorkflowRuns, SecretBindings and"
        " SecretReveals",
    )
    return policy(
        [ours("UPDATE", "workflowruns/status", "secretbindings/status", "secretreveals/status")], [only]
    )
