"""The requirements on the operator itself."""

from __future__ import annotations

from runkeys._text.words import shell
from runkeys.api import GROUP
from runkeys.api.run_status import FINAL_PHASES
from runkeys.names import FINALIZER, LAST_APPLIED, OBJECT_PREFIX, SEALING_KEYS, SECRET_TYPE, SIGNER
from runkeys.planning.secret_paths import IMAGE_PULL_SECRETS, POD, every_secret
from runkeys.policies import baseline
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, listed, ours, policy, rule, text
from runkeys.policies.shared import TARGET, changed

LABEL_RUNS = f"{GROUP}/runs"
"""Label of the operator's own namespace: "allowed" lets the operator create Jobs there."""

_SECRET_VERBS = ["get", "list", "watch", "update", "patch", "delete", "deletecollection"]
"""Those whose answer is the Secret, in one way or another."""


def _jobs(account: Account) -> list[Object]:
    """Where, as whom and how near to its node a pod runs that the operator has created."""
    made = "variables.kind == 'jobs' && request.operation == 'CREATE'"
    allowed = f"namespaceObject.metadata.?labels[?{text(LABEL_RUNS)}].orValue('') == 'allowed'"
    service_account = (
        "authorizer.serviceAccount(request.namespace, variables.account).group('').resource('secrets')"
    )
    keys = f"{service_account}.namespace({text(account.namespace)}).name({text(SEALING_KEYS)}).check('get').allowed()"
    allow = ("kubectl", "label", "namespace", account.namespace, f"{LABEL_RUNS}=allowed")
    return [
        check(
            f"!({made}) || request.namespace != 'kube-system'",
            "the operator creates no Jobs in kube-system, where service accounts may do anything; create the"
            " run in a namespace of your own",
        ),
        check(
            f"!({made}) || request.namespace != {text(account.namespace)} || {allowed}",
            "the operator creates no Jobs in its own namespace, where its keys are; create the run in another"
            f" namespace, or label this one: {shell(*allow)}",
        ),
        *baseline.checks(made),
        *(
            check(
                f"!({made}) || !{service_account}.namespace(request.namespace).check({text(verb)}).allowed()",
                f"the operator creates no pod with a service account that may {verb} Secrets of the namespace; use an"
                " account that may not (spec.serviceAccountName of the run)",
            )
            for verb in _SECRET_VERBS
        ),
        check(
            f"!({made}) || !{keys}",
            "the operator creates no pod with a service account that may get its sealing keys; use another account"
            " (spec.serviceAccountName of the run)",
        ),
    ]


def operator(account: Account) -> Object:
    """The operator's own account can do what the operator does and nothing else, even if its token is stolen."""
    own = every_secret(
        "object.spec.template.spec",
        lambda name: f"({name} == '' || {name} == variables.name)",
        [path for path in POD if path != IMAGE_PULL_SECRETS],
    )
    owned = "object.metadata.?ownerReferences.orValue([])"
    kept = " && ".join(
        f"object.metadata.?{field}.orValue({empty}){but} == oldObject.metadata.?{field}.orValue({empty}){but}"
        for field, empty, but in (
            ("labels", "{}", ""),
            ("finalizers", "[]", f".filter(f, f != {text(FINALIZER)})"),
            ("ownerReferences", "[]", ""),
        )
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
            f"the operator creates only Secrets of type {SECRET_TYPE} that are immutable and owned by the Job"
            " with the same name",
        ),
        check(
            "!(variables.kind == 'secrets' && request.operation == 'UPDATE')"
            f" || (variables.name == {text(SEALING_KEYS)} && request.namespace == {text(account.namespace)})",
            f"the operator changes no Secret except {SEALING_KEYS} in namespace {account.namespace}",
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
            "the operator deletes Secrets at once: the answer to a dry run, or to a deletion that waits for"
            " dependents, would be the whole Secret",
        ),
        check(
            "!(variables.kind == 'jobs' && request.operation == 'CREATE')"
            f" || (variables.ours && size({owned}) == 1 && {owned}[0].kind == 'WorkflowRun'"
            f" && {owned}[0].?controller.orValue(false) && {own})",
            "the operator creates only Jobs whose names begin with rk-, that belong to a WorkflowRun and refer"
            " to no Secret except the one with the same name",
        ),
        *_jobs(account),
        check(
            "!(variables.kind == 'jobs' && request.operation != 'CREATE')"
            " || (request.operation == 'DELETE' && variables.ours)",
            "the operator changes no Job, and deletes only those whose names begin with rk-",
        ),
        check(
            "!(variables.kind == 'workflowruns' && request.operation == 'UPDATE')"
            f" || (size({changed(['sealedInput'])}) == 0 && {kept} && {same_notes})",
            f"the operator changes only the status of a run and its finalizer {FINALIZER}, and removes its sealedInput",
        ),
        check(
            "!(variables.kind == 'workflowruns' && request.operation == 'DELETE')"
            " || (has(oldObject.spec.ttlSecondsAfterFinished)"
            f" && oldObject.?status.?phase.orValue('') in {listed(FINAL_PHASES)})",
            "the operator deletes only runs that have finished and have ttlSecondsAfterFinished",
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
        "account": "object.spec.template.spec.?serviceAccountName.orValue('') == '' ? 'default'"
        " : object.spec.template.spec.serviceAccountName",
        **baseline.VARIABLES,
    }
    rules = [
        rule("CREATE UPDATE DELETE", "secrets"),
        rule("CREATE UPDATE DELETE", "jobs", group="batch"),
        ours("UPDATE DELETE", "workflowruns"),
        rule("DELETE", "podcertificaterequests", group="certificates.k8s.io"),
        rule("UPDATE", "podcertificaterequests/status", group="certificates.k8s.io"),
    ]
    return policy(rules, checks, variables, ("is-the-operator", f"{WHO} == {text(account.username)}"))
