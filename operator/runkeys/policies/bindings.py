"""The requirements on SecretBindings."""

from __future__ import annotations

from runkeys.api import GROUP
from runkeys.api.binding import NAMESPACE
from runkeys.planning.access import RECONCILED, USE
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, filled, may, ours, policy, text, word
from runkeys.policies.shared import GRANT, NOT_COLLECTED, SUBJECT, TARGET, granted_by, granted_by_all

MOST_SOURCES = 16
"""Limit on the different Secrets that a binding can refer to, unless its author may get all of the namespace."""


def bindings(_: Account) -> Object:
    """A personal binding is its owner's. Another one takes `use` to write or delete, and `get` on what it refers to."""
    name = "variables.target.metadata.name"
    get = f"kubectl -n <namespace> create role <role> --verb=get --resource=secrets <resource>{RECONCILED}"
    bind = f"kubectl -n <namespace> create rolebinding <role> <option> <subject>{RECONCILED}"
    checks = [
        check(
            f"variables.owner == '' || variables.owner == {WHO}",
            "only its owner may write a personal SecretBinding",
            filled(
                "<who> may not write SecretBinding <binding>, the personal binding of <owner>; its owner can,"
                " or a user who may impersonate the owner: kubectl <option>",
                who=WHO,
                binding=name,
                owner="variables.owner",
                option=word("--as=<owner>", owner="variables.owner"),
            ),
        ),
        check(
            "variables.owner != '' || (request.operation == 'UPDATE' && !variables.changed)"
            f" || {may(USE, GROUP, 'secretbindings', name)}",
            "a user who writes or deletes a SecretBinding must be allowed to use it",
            filled(
                "<who> may not use SecretBinding <binding>, so may not write or delete it; an administrator of"
                f" the namespace can allow it: {GRANT}",
                **granted_by(USE, name),
            ),
        ),
        check(
            "!variables.changed || variables.owner != ''"
            f" || !object.spec.secrets.exists(e, e.?scope.orValue('') == {text(NAMESPACE)})"
            f" || {may(USE, GROUP, 'secretbindings')}",
            "a user who writes entries with `scope: Namespace` into a shared SecretBinding must be allowed to use all"
            " SecretBindings of the namespace",
            filled(
                "<who> may not use all SecretBindings of the namespace, so may not write entries with `scope:"
                " Namespace`, which open what was sealed for any of them; leave scope out and seal for this"
                f" SecretBinding, or ask an administrator of the namespace to allow it: {GRANT}",
                **granted_by_all(USE),
            ),
        ),
        check(
            f"size(variables.sources) <= {MOST_SOURCES} || variables.gets_all",
            f"spec.secrets refers to more than {MOST_SOURCES} different Secrets, more than can be checked one by one;"
            " create several bindings, or let a user write it who may get all Secrets of the namespace",
        ),
    ]
    for index in range(MOST_SOURCES):
        secret = f"variables.sources[{index}]"
        checks.append(
            check(
                f"size(variables.sources) <= {index} || variables.gets_all || {may('get', '', 'secrets', secret)}",
                "a user who writes a SecretBinding must be allowed to get each Secret that spec.secrets refers to",
                filled(
                    "<who> may not get Secret <secret>, to which spec.secrets refers, and a SecretBinding does"
                    f" not change that; an administrator of the namespace can allow it: {get} && {bind}",
                    who=WHO,
                    secret=secret,
                    role=word("get-<secret>", secret=secret),
                    resource=word("--resource-name=<secret>", secret=secret),
                    option=word("--role=get-<secret>", secret=secret),
                    namespace="request.namespace",
                    subject="variables.subject",
                ),
            )
        )
    variables = {
        "subject": SUBJECT,
        "target": TARGET,
        "owner": "variables.target.spec.?owner.?username.orValue('')",
        # Who owns it decides when it is collected, a finalizer whether it can go.
        "changed": "request.operation == 'CREATE' || (request.operation == 'UPDATE' && (object.spec != oldObject.spec"
        " || object.metadata.?ownerReferences.orValue([]) != oldObject.metadata.?ownerReferences.orValue([])"
        " || object.metadata.?finalizers.orValue([]) != oldObject.metadata.?finalizers.orValue([])))",
        "named": "variables.changed ? object.spec.secrets.filter(e, has(e.secretKeyRef))"
        ".map(e, e.secretKeyRef.name) : []",
        "sources": "variables.named.transformList(i, n, variables.named.indexOf(n) == i, n)",
        "gets_all": may("get", "", "secrets"),
    }
    return policy([ours("CREATE UPDATE DELETE", "secretbindings")], checks, variables, NOT_COLLECTED)
