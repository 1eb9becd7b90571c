"""What operators asked for during a whole test run, against what they may ever ask for (I4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runkeys.names import SERVICE_ACCOUNT
from runkeys_operator.checks.preflight import NEEDED, NEEDED_SEALED, NEEDED_STORES
from runkeys_operator.values.keys import PRIVATE, PUBLIC
from testing.cluster.audit import AuditEvent, AuditLog
from testing.operators import RELEASE

_RUN_SECRET = "rk-"
# The chart's hooks speak with accounts of their own, whose rights test_chart.py looks at.
_HOOKS = ("-drain", "-selftest")
_REVIEWS = ("selfsubjectrulesreviews", "selfsubjectaccessreviews", "selfsubjectreviews")
_POLICIES = tuple(
    f"{kind}admission{what}" for kind in ("validating", "mutating") for what in ("policies", "policybindings")
)
_GRANTED = {
    (right.verb, f"{right.resource.plural}/{right.subresource}".rstrip("/"))
    for right in (*NEEDED, *NEEDED_SEALED, *NEEDED_STORES)
}


def is_an_operators(event: AuditEvent) -> bool:
    """Whether an operator process sent it, and not a test that has got hold of its token."""
    return (
        event.user.startswith("system:serviceaccount:")
        and event.user.rpartition(":")[2].startswith("runkeys")
        and not event.user.endswith(_HOOKS)
        and event.raw.get("userAgent") == "runkeys-operator"
    )


def allowed(event: AuditEvent) -> bool:
    """Whether the operator is ever to send such a request."""
    verb, resource, name = event.verb, event.resource, event.name
    if not resource or resource in _REVIEWS:
        return event.verb in ("get", "create")
    if resource == "secrets":
        if verb == "create" and not name and event.status == 403:
            return True  # a test took the right away: refused before anybody looked at what it was
        if name == PRIVATE:
            return verb in ("get", "patch")
        # `get` is for the sources that a namespace opted in; never for what the operator has made itself
        return (verb in ("create", "delete") and name.startswith(_RUN_SECRET)) or (
            verb == "get" and bool(name) and not name.startswith(_RUN_SECRET)
        )
    if resource == "configmaps":
        return name == PUBLIC and verb in ("get", "patch")
    if resource == "serviceaccounts/token":
        return verb == "create"  # what it may be is for a policy, and a Role for each account
    if resource in _POLICIES:
        return verb == "get" and name.endswith(
            f".{event.user.removeprefix(SERVICE_ACCOUNT).replace(':', '.')}"
        )
    if resource == "leases":  # its own, which has the name of the release
        return verb in ("get", "create", "update") and name.startswith(RELEASE)
    return (verb, resource) in _GRANTED


def not_allowed(events: Iterable[AuditEvent]) -> Iterator[AuditEvent]:
    """Those requests of operators that they are never to send."""
    return (event for event in events if is_an_operators(event) and not allowed(event))


def check_all(log: AuditLog) -> None:
    """Raises AssertionError if any operator has ever asked for what it must not."""
    seen, bad = 0, []
    for event in log.events(where=is_an_operators):
        seen += 1
        if not allowed(event):
            bad.append(str(event))
    print(f"audit log: {seen} requests of operators, {len(bad)} that are not allowed")
    assert not bad, f"operators asked for what they must not: {bad[:20]}"
