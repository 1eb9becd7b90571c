"""The admission policies: who may create, change and use what. The API server evaluates them, so nothing can be down.

:func:`build` gives them as objects for one operator: it is the one source of the chart's templates, of the manifests
in ``policies/`` (``make policies``) and of what the operator compares with what is installed. Pure.

One call of CEL's ``authorizer`` costs 350,000; an expression may cost 1,000,000 and a policy 10,000,000. So the checks
are unrolled, one expression for each index. Only functions that Kubernetes 1.33 knows are used: an API server takes
those of its own version only from what is stored already.

Every default of the API server is written out, so that what is installed can be compared exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from runkeys.planning.requirements import SealedSupport
from runkeys.policies import asking, bindings, objects, operator, runs, stores
from runkeys.policies.account import Account
from runkeys.policies.cel import Object
from runkeys.policies.shown import shown

__all__ = [
    "API",
    "MUTATING",
    "VALIDATING",
    "VALIDATING_RULES",
    "Account",
    "build",
    "build_asking",
    "difference",
    "served",
]

API = "admissionregistration.k8s.io/v1"
VALIDATING, MUTATING = "ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"

VALIDATING_RULES: dict[str, Callable[[Account], Object]] = {
    "use": runs.use,
    "reveal": runs.reveal,
    "frozen": runs.frozen,
    "plaintext": runs.plaintext,
    "bindings": bindings.bindings,
    "status": runs.status,
    "names": objects.names,
    "pods": objects.pods,
    "shown": shown,
    "operator": operator.operator,
    "recipients": objects.recipients,
    "stores": stores.stores,
    "tokens": stores.tokens,
}
"""The requirements of each policy: functions, whose docstrings say why they exist."""


STORE_RULES = {"store-namespaces": stores.store_namespaces, "store-tokens": stores.store_tokens}
"""The policies that are there only where stores are used."""

_OF_THE_OPERATOR = ("operator", "tokens")


def build(account: Account, namespaces: Sequence[str] = (), *, mutating: bool = True) -> list[Object]:
    """All policies, each followed by its binding: plain JSON types, new on every call.

    :param namespaces: those that the operator serves; none: all.
    :param mutating: include the policy that fills in who created a run, for servers that have such a kind (since 1.36).
    """
    policies = [
        *((VALIDATING, name, make(account)) for name, make in VALIDATING_RULES.items()),
        *((VALIDATING, name, make(account)) for name, make in STORE_RULES.items() if account.audiences),
        *([(MUTATING, "requester", runs.requester())] if mutating else []),
    ]
    return [
        item for kind, name, spec in policies for item in _with_binding(kind, name, spec, account, namespaces)
    ]


def build_asking(
    account: Account, namespaces: Sequence[str] = (), *, mutating: bool = True, support: SealedSupport
) -> list[Object]:
    """The policies on pods of any engine that ask for secrets, each with its binding, as :func:`build` has them.

    :param support: image and resources of the container that unseals the values in the pod.
    """
    policies = [
        (VALIDATING, "asking", asking.asking(account, support)),
        (VALIDATING, "asking-shown", asking.asking_shown(account)),
        (VALIDATING, "asking-frozen", asking.asking_frozen(account)),
        *([(MUTATING, "inject", asking.inject(support))] if mutating else []),
    ]
    return [
        item for kind, name, spec in policies for item in _with_binding(kind, name, spec, account, namespaces)
    ]


def difference(expected: object, found: object, path: str = "spec") -> str | None:
    """Path at which ``found`` differs from what was expected; None if it does not.

    Empty counts as absent, so that a field which a later API server adds does no harm.
    """
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            where = difference(expected.get(key), found.get(key), f"{path}.{key}")
            if where is not None:
                return where
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        steps = (difference(one, other, f"{path}[{index}]") for index, (one, other) in pairs)
        return next((where for where in steps if where is not None), None)
    return None if expected == found or (not expected and not found) else path


def served(binding: Object) -> list[str] | None:
    """The namespaces that a policy's binding selects; None: all, ``[]``: unknown."""
    selector = (binding.get("spec", {}).get("matchResources") or {}).get("namespaceSelector")
    if not selector:
        return None
    values = (selector.get("matchExpressions") or [{}])[0].get("values") or []
    return [str(value) for value in values] if selector == _in(values) else []


def _with_binding(
    kind: str, name: str, spec: Object, account: Account, namespaces: Sequence[str]
) -> Iterator[Object]:
    metadata = {"name": account.name_of(name)}
    yield {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}
    # The operator is held to its job wherever it acts.
    selector = _in(namespaces) if namespaces and name not in _OF_THE_OPERATOR else {}
    binding: Object = {"policyName": account.name_of(name)}
    if "paramKind" in spec:  # each object of that kind is asked, and all must agree
        binding["paramRef"] = {"parameterNotFoundAction": "Allow", "selector": {}}
    if kind == VALIDATING:
        binding["validationActions"] = ["Deny"]
    binding["matchResources"] = {
        "matchPolicy": "Equivalent",
        "namespaceSelector": selector,
        "objectSelector": {},
    }
    yield {"apiVersion": API, "kind": f"{kind}Binding", "metadata": dict(metadata), "spec": binding}


def _in(namespaces: Sequence[str]) -> Object:
    values = sorted(namespaces)
    return {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": values}]}
