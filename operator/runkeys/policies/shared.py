"""The parts that policies on several kinds share."""

from __future__ import annotations

from collections.abc import Sequence

from runkeys._text.words import shell
from runkeys.api import SecretBinding, SecretStore
from runkeys.names import SERVICE_ACCOUNT
from runkeys.planning.access import RECONCILED, role, role_name
from runkeys.policies.cel import WHO, filled, in_quotes, listed, quoted, text, word

_COLLECTORS = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
]
# All controllers, where they have no accounts of their own (--use-service-account-credentials=false).
CONTROLLER_MANAGER = "system:kube-controller-manager"
JOB_CONTROLLERS = ["system:serviceaccount:kube-system:job-controller", CONTROLLER_MANAGER]
"""The accounts that create the pods of Jobs."""


SUBJECT = (
    f"{WHO}.startsWith({text(SERVICE_ACCOUNT)})"
    f" ? '--serviceaccount=' + {quoted(f'{WHO}.substring({len(SERVICE_ACCOUNT)})')}"
    f" : '--user=' + {quoted(WHO)}"
)
"""How `kubectl create rolebinding` names the requester; the same as :func:`runkeys.planning.access.subject_of`."""


GRANT = "<grant>"
"""Where a message has the command of `granted_by`."""


def granted_by(
    verb: str, binding: str, kind: type[SecretBinding | SecretStore] = SecretBinding
) -> dict[str, str]:
    """Return the texts for a message with `GRANT`: the same command as that of :func:`runkeys.planning.access.grant`.

    The name is quoted, since the author of the object chooses it and somebody else may run the command.
    """
    in_json = f"{binding}.replace('\\\\', '\\\\\\\\').replace('\"', '\\\\\"')"
    name = role_name(verb, "<binding>", kind)
    command = filled(
        f"echo <role> | kubectl -n <namespace> apply -f - && kubectl -n <namespace> create rolebinding <name> <option>"
        f" <subject>{RECONCILED}",
        role=in_quotes(f"({filled(role(verb, '<binding>', kind), binding=in_json)})"),
        namespace="request.namespace",
        name=word(name, binding=binding),
        option=word(f"--role={name}", binding=binding),
        subject="variables.subject",
    )
    return {"who": WHO, "binding": binding, "grant": command}


def granted_by_all(verb: str) -> dict[str, str]:
    """The same for all bindings of the namespace: nothing of that command is anybody's choice."""
    name = f"{verb}-all-bindings"
    command = filled(
        f"{shell('echo', role(verb, ''))} | kubectl -n <namespace> apply -f - && kubectl -n <namespace>"
        f" {shell('create', 'rolebinding', name, f'--role={name}')} <subject>{RECONCILED}",
        namespace="request.namespace",
        subject="variables.subject",
    )
    return {"who": WHO, "grant": command}


TARGET = "request.operation == 'DELETE' ? oldObject : object"
NOT_COLLECTED = (
    "is-not-a-collector",
    f"!({WHO} in {listed(_COLLECTORS)})"
    f" && !({WHO} == {text(CONTROLLER_MANAGER)} && request.operation != 'CREATE')",
)


def changed(free: Sequence[str]) -> str:
    """CEL: which keys of the spec are not what they were, apart from ``free``."""
    others = f"!(k in {listed(free)})"
    same = "(k in oldObject.spec && object.spec[k] == oldObject.spec[k])"
    return (
        f"object.spec.filter(k, {others} && !{same})"
        f" + oldObject.spec.filter(k, {others} && !(k in object.spec))"
    )
