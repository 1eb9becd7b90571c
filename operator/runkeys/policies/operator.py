"""What the operator itself is held to."""

from __future__ import annotations

from runkeys.naming import OBJECT_PREFIX, SEALING_KEYS, SECRET_TYPE
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, every_secret, listed, ours, policy, rule, text
from runkeys.policies.shared import LAST_APPLIED, TARGET, changed
from runkeys.status import FINAL_PHASES
from runkeys.template import SIGNER


def operator(account: Account) -> Object:
    """The operator's own account does what the operator does and nothing else, whoever holds its token."""
    own = every_secret(
        "object.spec.template.spec", lambda name: f"({name} == '' || {name} == variables.name)"
    )
    owned = "object.metadata.?ownerReferences.orValue([])"
    kept = " && ".join(
        f"object.metadata.?{field}.orValue({empty}) == oldObject.metadata.?{field}.orValue({empty})"
        for field, empty in (("labels", "{}"), ("finalizers", "[]"), ("ownerReferences", "[]"))
    )
    notes = [f"{of}.metadata.?annotations.orValue({{}})" for of in ("object", "oldObject")]
    same_notes = " && ".join(
        f"{one}.all(k, k == {text(LAST_APPLIED)} || (k in {other} && {one}[k] == {other}[k]))"
        for one, other in (notes, notes[::-1])
    )
    checks = [
        check(
            "!(variables.kind == 'secrets' && request.operation == 'CREATE')"
            f" || (variables.ours && object.?type.orValue('') == {text(SECRET_TYPE)}"
            f" && object.?immutable.orValue(false) && !has(object.metadata.finalizers)"
            f" && size({owned}) == 1 && {owned}[0].kind == 'Job'"
            f" && {owned}[0].name == variables.name && {owned}[0].?controller.orValue(false))",
            f"the operator makes only Secrets of type {SECRET_TYPE} that are immutable and owned by the Job of their"
            " name",
        ),
        check(
            "!(variables.kind == 'secrets' && request.operation == 'UPDATE')"
            f" || (variables.name == {text(SEALING_KEYS)} && request.namespace == {text(account.namespace)})",
            f"the operator changes no Secret but {SEALING_KEYS} in namespace {account.namespace}",
        ),
        check(
            "!(variables.kind == 'secrets' && request.operation == 'DELETE')"
            f" || (variables.ours && oldObject.?type.orValue('') == {text(SECRET_TYPE)})",
            f"the operator deletes only Secrets of type {SECRET_TYPE} whose names begin with rk-",
        ),
        check(
            "!(variables.kind == 'secrets' && request.operation == 'DELETE')"
            " || (!request.?dryRun.orValue(false)"
            " && request.?options.?propagationPolicy.orValue('Background') == 'Background'"
            " && !request.?options.?orphanDependents.orValue(false))",
            "the operator deletes Secrets at once: a deletion that is tried out, or waits for dependents, would answer"
            " with the Secret",
        ),
        check(
            "!(variables.kind == 'jobs' && request.operation == 'CREATE')"
            f" || (variables.ours && size({owned}) == 1 && {owned}[0].kind == 'WorkflowRun'"
            f" && {owned}[0].?controller.orValue(false) && {own})",
            "the operator makes only Jobs whose names begin with rk-, that belong to a WorkflowRun and refer to no"
            " Secret but that of their name",
        ),
        check(
            "!(variables.kind == 'jobs' && request.operation != 'CREATE')"
            " || (request.operation == 'DELETE' && variables.ours)",
            "the operator changes no Job, and deletes only those whose names begin with rk-",
        ),
        check(
            "!(variables.kind == 'workflowruns' && request.operation == 'UPDATE')"
            f" || (size({changed(['sealedInput'])}) == 0 && {kept} && {same_notes})",
            "the operator changes nothing of a run but its status, and takes its sealedInput out",
        ),
        check(
            "!(variables.kind == 'workflowruns' && request.operation == 'DELETE')"
            " || (has(oldObject.spec.ttlSecondsAfterFinished)"
            f" && oldObject.?status.?phase.orValue('') in {listed(FINAL_PHASES)})",
            "the operator deletes only runs that have ended and have ttlSecondsAfterFinished",
        ),
        check(
            "variables.kind != 'podcertificaterequests'"
            f" || variables.target.spec.signerName == {text(SIGNER)}",
            f"the operator answers and deletes only PodCertificateRequests for {SIGNER}",
        ),
    ]
    variables = {
        "kind": "request.resource.resource",
        "target": TARGET,
        "name": "variables.target.metadata.name",
        "ours": f"variables.name.startsWith({text(OBJECT_PREFIX)})",
    }
    rules = [
        rule("CREATE UPDATE DELETE", "secrets"),
        rule("CREATE UPDATE DELETE", "jobs", group="batch"),
        ours("UPDATE DELETE", "workflowruns"),
        rule("DELETE", "podcertificaterequests", group="certificates.k8s.io"),
        rule("UPDATE", "podcertificaterequests/status", group="certificates.k8s.io"),
    ]
    return policy(rules, checks, variables, ("is-the-operator", f"{WHO} == {text(account.username)}"))
