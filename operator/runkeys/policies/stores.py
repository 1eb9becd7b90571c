"""The requirements on who uses SecretStores, and on the tokens that the operator requests for pods."""

from __future__ import annotations

import json

from runkeys.api import GROUP, SecretStore
from runkeys.names import LABEL_STORE
from runkeys.planning.access import USE
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, filled, may, ours, policy, rule, text
from runkeys.policies.shared import GRANT, SUBJECT, granted_by

MOST_STORES = 8
"""Limit on the different SecretStores that a binding can name, unless its author may use all of them."""

LONGEST_TOKEN = 600
"""Seconds. The API server gives none for less."""

_STORES = SecretStore.CRD.plural
_NAMED = "e.?value.?store.orValue(e.?lease.?store.orValue(''))"
_NAMES_STORES = f"object.spec.secrets.exists(e, {_NAMED} != '')"
_AUDIENCE = "params.spec.?vault.?auth.?audience.orValue(params.spec.?csi.?audience.orValue(''))"
_CHANGED = "(request.operation == 'CREATE' || object.spec.secrets != oldObject.spec.secrets)"


def stores(_: Account) -> Object:
    """A user who writes entries of a SecretStore into a SecretBinding must be allowed to use that store."""
    all_of_them = may(USE, GROUP, _STORES)
    checks = [
        check(
            f"size(variables.stores) <= {MOST_STORES} || {all_of_them}",
            f"spec.secrets names more than {MOST_STORES} different SecretStores, more than can be checked one by one;"
            " create several bindings",
        )
    ]
    for index in range(MOST_STORES):
        name = f"variables.stores[{index}]"
        checks.append(
            check(
                f"size(variables.stores) <= {index} || {may(USE, GROUP, _STORES, name)}",
                "a user who writes a SecretBinding must be allowed to use each SecretStore that spec.secrets names",
                filled(
                    "<who> may not use SecretStore <binding>, which spec.secrets names; an administrator of the cluster"
                    f" can allow it in this namespace: {GRANT}",
                    **granted_by(USE, name, SecretStore),
                ),
            )
        )
    variables = {
        "subject": SUBJECT,
        "named": f"object.spec.secrets.map(e, {_NAMED}).filter(s, s != '')",
        "stores": "variables.named.transformList(i, n, variables.named.indexOf(n) == i, n)",
    }
    return policy(
        [ours("CREATE UPDATE", "secretbindings")],
        checks,
        variables,
        ("names-stores", f"{_CHANGED} && {_NAMES_STORES}"),
    )


def tokens(account: Account) -> Object:
    """The operator requests tokens for pods that wait for values of a store, and no others, if its token is stolen."""
    bound = "object.spec.?boundObjectRef"
    audiences = "object.spec.?audiences.orValue([])"
    checks = [
        check(
            f"{bound}.?kind.orValue('') == 'Pod' && {bound}.?uid.orValue('') != ''",
            "the operator requests only tokens that are bound to a pod, by its uid",
        ),
        check(
            f"object.spec.?expirationSeconds.orValue(3600) <= {LONGEST_TOKEN}",
            f"the operator requests only tokens that expire after {LONGEST_TOKEN} s",
        ),
        check(
            f"size({audiences}) == 1 && {audiences}[0] in {json.dumps(list(account.audiences))}",
            "the operator requests only tokens for one audience, that of a SecretStore which it may serve"
            " (stores.audiences of the chart)",
        ),
        check(
            f"object.metadata.?labels[?{text(LABEL_STORE)}].orValue('') != ''",
            f"the operator requests only tokens that name their SecretStore in the label {LABEL_STORE}",
        ),
    ]
    return policy(
        [rule("CREATE", "serviceaccounts/token")],
        checks,
        condition=("is-the-operator", f"{WHO} == {text(account.username)}"),
    )


def store_namespaces(_: Account) -> Object:
    """A SecretStore serves the namespaces that it selects: asked of bindings, and again of each token.

    The operator cannot read namespaces, and need not: the API server knows both, and sees each change of either.
    """
    named = f"object.spec.secrets.exists(e, {_NAMED} == params.metadata.name)"
    condition = ("names-stores", f"{_CHANGED} && {_NAMES_STORES}")
    return _of_each_store(
        policy([ours("CREATE UPDATE", "secretbindings")], [_serves()], {"named": named}, condition)
    )


def store_tokens(account: Account) -> Object:
    """The operator's tokens for a store are for its audience, and for pods of the namespaces that it selects.

    Only requests with the label are looked at, which another policy demands of the operator. For while the API server
    does not know the kind SecretStore, as after its start, it refuses everything that a policy on that kind matches:
    that must not be the tokens of all other pods.
    """
    audience = check(
        f"!variables.named || object.spec.?audiences.orValue([]) == [{_AUDIENCE}]",
        "the audience of the token is not that of the SecretStore",
    )
    found = policy(
        [rule("CREATE", "serviceaccounts/token")],
        [_serves(), audience],
        {"named": f"object.metadata.?labels[?{text(LABEL_STORE)}].orValue('') == params.metadata.name"},
        ("is-the-operator", f"{WHO} == {text(account.username)}"),
    )
    labelled = {"matchExpressions": [{"key": LABEL_STORE, "operator": "Exists"}]}
    return _of_each_store(
        {**found, "matchConstraints": {**found["matchConstraints"], "objectSelector": labelled}}
    )


def _of_each_store(found: Object) -> Object:
    return {**found, "paramKind": {"apiVersion": f"{GROUP}/v1alpha1", "kind": SecretStore.__name__}}


def _serves() -> Object:
    labels, selector = "namespaceObject.metadata.?labels.orValue({})", "params.spec.namespaces"
    values = "e.?values.orValue([])"
    holds = (
        f"e.operator == 'In' ? (e.key in {labels} && {labels}[e.key] in {values})"
        f" : e.operator == 'NotIn' ? (!(e.key in {labels}) || !({labels}[e.key] in {values}))"
        f" : e.operator == 'Exists' ? e.key in {labels}"
        f" : e.operator == 'DoesNotExist' && !(e.key in {labels})"
    )
    return check(
        f"!variables.named || ({selector}.?matchLabels.orValue({{}}).all(k, k in {labels}"
        f" && {labels}[k] == {selector}.matchLabels[k])"
        f" && {selector}.?matchExpressions.orValue([]).all(e, {holds}))",
        "the SecretStore does not serve this namespace",
        filled(
            "SecretStore <store> does not serve namespace <namespace>: its spec.namespaces does not select the"
            " labels of the namespace; an administrator of the cluster can change either",
            store="params.metadata.name",
            namespace="request.namespace",
        ),
    )
