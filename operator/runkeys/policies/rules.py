"""What each policy demands. A function for each, which says in its docstring why it is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runkeys.access import RECONCILED, REVEAL, USE, grant
from runkeys.api import GROUP
from runkeys.api.binding import NAMESPACE
from runkeys.naming import (
    LABEL_RUN,
    LABEL_RUN_UID,
    LABEL_TASK,
    OBJECT_PREFIX,
    RECIPIENT_VOLUME,
    SEALING_KEYS,
    SECRET_TYPE,
    SERVICE_ACCOUNT,
)
from runkeys.policies.account import Account
from runkeys.policies.cel import (
    WHO,
    Object,
    check,
    every_secret,
    filled,
    label,
    listed,
    match,
    may,
    ours,
    policy,
    quoted,
    rule,
    text,
)
from runkeys.status import FINAL_PHASES
from runkeys.template import SIGNER

MOST_BINDINGS = 8
"""As many can a run name."""

MOST_SOURCES = 16
"""So many different Secrets can a binding refer to, unless its author may get all of the namespace."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
_COLLECTORS = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
]
# All controllers, where they have no accounts of their own (--use-service-account-credentials=false).
_CONTROLLER_MANAGER = "system:kube-controller-manager"

_RUN_LABELS = [LABEL_RUN, LABEL_RUN_UID, LABEL_TASK]


_SUBJECT = (
    f"{WHO}.startsWith({text(SERVICE_ACCOUNT)})"
    f" ? '--serviceaccount=' + {quoted(f'{WHO}.substring({len(SERVICE_ACCOUNT)})')}"
    f" : '--user=' + {quoted(WHO)}"
)
"""How `kubectl create rolebinding` names whoever asks; the same as :func:`runkeys.access.subject_of`."""

_GRANT = grant(USE, "<namespace>", "<binding>", "<subject>")
_GRANT_ALL = grant(USE, "<namespace>", "", "<subject>")


def _use_granted_by(binding: str) -> dict[str, str]:
    return {
        "who": WHO,
        "binding": binding,
        "namespace": "request.namespace",
        "subject": "variables.subject",
    }


_TARGET = "request.operation == 'DELETE' ? oldObject : object"
_NOT_COLLECTED = (
    "is-not-a-collector",
    f"!({WHO} in {listed(_COLLECTORS)})"
    f" && !({WHO} == {text(_CONTROLLER_MANAGER)} && request.operation != 'CREATE')",
)


def _runs_use(_: Account) -> Object:
    """Whoever makes a run is on record as its requester, and may use each binding that it names."""
    checks = [_requester_is_who_asks()]
    for index in range(MOST_BINDINGS):
        name = f"variables.names[{index}]"
        checks.append(
            check(
                f"size(variables.names) <= {index} || {may(USE, GROUP, 'secretbindings', name)}",
                f"whoever makes the run may not use the SecretBinding that spec.bindings names as number {index + 1}",
                filled(
                    "<who> may not use SecretBinding <binding>; whoever administers the namespace can allow it: "
                    f"{_GRANT}",
                    **_use_granted_by(name),
                ),
            )
        )
    named = "object.spec.?bindings.orValue([]).filter(b, has(b.name)).map(b, b.name)"
    return policy([ours("CREATE", "workflowruns")], checks, {"names": named, "subject": _SUBJECT})


def _requester_is_who_asks() -> Object:
    return check(
        f"has(object.spec.requester) && object.spec.requester.username == {WHO}"
        " && sets.equivalent(object.spec.requester.?groups.orValue([]), request.userInfo.?groups.orValue([]))",
        "spec.requester must be whoever makes the object, with all groups and no others",
        filled(
            "spec.requester must be <who>, who makes the object, with exactly these groups: <groups>; leave it out"
            " where the API server fills it in (Kubernetes 1.36 and later)",
            who=WHO,
            groups="request.userInfo.?groups.orValue([]).join(', ')",
        ),
    )


def _reveals(_: Account) -> Object:
    """Whoever asks for a value is on record, and may reveal the binding. One's own personal binding needs no right."""
    name = "object.spec.?binding.orValue('')"
    checks = [
        _requester_is_who_asks(),
        check(
            f"{name} == '' || {may(REVEAL, GROUP, 'secretbindings', name)}",
            "whoever asks for a value may not reveal the SecretBinding",
            filled(
                "<who> may not reveal SecretBinding <binding>; whoever administers the namespace can allow it: "
                + grant(REVEAL, "<namespace>", "<binding>", "<subject>"),
                **_use_granted_by(name),
            ),
        ),
    ]
    return policy([ours("CREATE", "secretreveals")], checks, {"subject": _SUBJECT})


_FREE = ["suspend", "cancel", "ttlSecondsAfterFinished", "sealedInput"]
_SAME = "(k in oldObject.spec && object.spec[k] == oldObject.spec[k])"


def _changed(free: Sequence[str]) -> str:
    """CEL: which keys of the spec are not what they were, apart from ``free``."""
    others = f"!(k in {listed(free)})"
    return (
        f"object.spec.filter(k, {others} && !{_SAME})"
        f" + oldObject.spec.filter(k, {others} && !(k in object.spec))"
    )


def _runs_frozen(_: Account) -> Object:
    """A run stays what was admitted. The schema's own rules cannot see into `input` and templates."""
    checks = [
        check(
            "size(variables.changed) == 0",
            "the spec of a run is immutable: make a new run",
            filled(
                # GitOps tools know by "is immutable" that they have to delete it and make it again.
                "spec.<changed> is immutable once a run exists, only suspend, cancel and ttlSecondsAfterFinished"
                " can be changed: make a new run",
                changed="variables.changed.join(', spec.')",
            ),
        ),
        check(
            "!has(object.spec.sealedInput) || (has(oldObject.spec.sealedInput)"
            " && object.spec.sealedInput == oldObject.spec.sealedInput)",
            "spec.sealedInput can only be taken out of a run, as a whole: make a new run",
        ),
    ]
    return policy([ours("UPDATE", "workflowruns")], checks, {"changed": _changed(_FREE)})


_ROTATE = "whatever was sent may be in the audit log now; treat it as known to others and replace it"
_SEALED = r'"sealed"\s*:\s*"([^r"]|r[^k"]|rk[^1"]|rk1[^."])'
_PLAIN_ENTRY = r'"secrets"\s*:\s*\[[^\]]*"(value|data|stringData)"\s*:'
_SEALED_INPUT = r'"sealedInput"\s*:\s*\{(\s*"([^"\\]|\\.)*"\s*:\s*"rk1\.[^"]*"\s*,?)*\s*\}'


def _plaintext(_: Account) -> Object:
    """Nothing that should be sealed is stored in the clear, in the copy that `kubectl apply` keeps neither."""
    is_run = "request.resource.resource == 'workflowruns'"
    value = "object.spec.input[k]"
    checks = [
        check(
            f"!({is_run}) || !has(object.spec.input) || (!('$secrets' in object.spec.input)"
            f" && object.spec.input.all(k, type({value}) != map || !('$secrets' in {value})))",
            "spec.input holds $secrets in the clear; submit it with `runkeys run`, which seals them, or put what"
            f" `runkeys seal` gives into spec.sealedInput; {_ROTATE}",
        ),
        check(
            "variables.applied == '' || !("
            f"variables.applied.contains('\"$secrets\"') || variables.applied.matches({text(_PLAIN_ENTRY)})"
            f" || variables.applied.matches({text(_SEALED)})"
            " || (variables.applied.contains('\"sealedInput\"')"
            f" && !variables.applied.matches({text(_SEALED_INPUT)})))",
            f"the annotation {LAST_APPLIED} holds a value in the clear, although the spec does not take it; seal it"
            f" with `runkeys seal`; {_ROTATE}",
        ),
    ]
    applied = f"object.metadata.?annotations[?{text(LAST_APPLIED)}].orValue('')"
    return policy([ours("CREATE UPDATE", "workflowruns", "secretbindings")], checks, {"applied": applied})


def _bindings(_: Account) -> Object:
    """A personal binding is its owner's. Another one takes `use` to write or delete, and `get` on what it refers to."""
    name = "variables.target.metadata.name"
    get = (
        "kubectl -n <namespace> create role get-<secret> --verb=get --resource=secrets --resource-name=<secret>"
        f"{RECONCILED}"
    )
    bind = f"kubectl -n <namespace> create rolebinding get-<secret> --role=get-<secret> <subject>{RECONCILED}"
    checks = [
        check(
            f"variables.owner == '' || variables.owner == {WHO}",
            "a personal SecretBinding is written by its owner only",
            filled(
                "<who> may not write SecretBinding <binding>, the personal binding of <owner>; its owner can, or"
                " whoever may act as the owner: kubectl --as=<owner>",
                who=WHO,
                binding=name,
                owner=quoted("variables.owner"),
            ),
        ),
        check(
            "variables.owner != '' || (request.operation == 'UPDATE' && !variables.changed)"
            f" || {may(USE, GROUP, 'secretbindings', name)}",
            "whoever writes or deletes a SecretBinding must be allowed to use it",
            filled(
                "<who> may not use SecretBinding <binding>, so may not write or delete it; whoever administers the"
                f" namespace can allow it: {_GRANT}",
                **_use_granted_by(name),
            ),
        ),
        check(
            "!variables.changed || variables.owner != ''"
            f" || !object.spec.secrets.exists(e, e.?scope.orValue('') == {text(NAMESPACE)})"
            f" || {may(USE, GROUP, 'secretbindings')}",
            "whoever writes entries with `scope: Namespace` into a shared SecretBinding must be allowed to use all"
            " SecretBindings of the namespace",
            filled(
                "<who> may not use all SecretBindings of the namespace, so may not write entries with `scope:"
                " Namespace`, which open what was sealed for any of them; leave scope out and seal for this"
                f" SecretBinding, or have whoever administers the namespace allow it: {_GRANT_ALL}",
                **_use_granted_by(name),
            ),
        ),
        check(
            f"size(variables.sources) <= {MOST_SOURCES} || variables.gets_all",
            f"spec.secrets refers to more than {MOST_SOURCES} different Secrets, more than can be checked one by one;"
            " make several bindings, or have it written by somebody who may get all Secrets of the namespace",
        ),
    ]
    for index in range(MOST_SOURCES):
        secret = f"variables.sources[{index}]"
        checks.append(
            check(
                f"size(variables.sources) <= {index} || variables.gets_all || {may('get', '', 'secrets', secret)}",
                "whoever writes a SecretBinding must be allowed to get each Secret that spec.secrets refers to",
                filled(
                    "<who> may not get Secret <secret>, to which spec.secrets refers, and a SecretBinding is no way"
                    f" round that; whoever administers the namespace can allow it: {get} && {bind}",
                    who=WHO,
                    secret=secret,
                    namespace="request.namespace",
                    subject="variables.subject",
                ),
            )
        )
    variables = {
        "subject": _SUBJECT,
        "target": _TARGET,
        "owner": "variables.target.spec.?owner.?username.orValue('')",
        "changed": "request.operation == 'CREATE'"
        " || (request.operation == 'UPDATE' && object.spec != oldObject.spec)",
        "named": "variables.changed ? object.spec.secrets.filter(e, has(e.secretKeyRef))"
        ".map(e, e.secretKeyRef.name) : []",
        "sources": "variables.named.transformList(i, n, variables.named.indexOf(n) == i, n)",
        "gets_all": may("get", "", "secrets"),
    }
    return policy([ours("CREATE UPDATE DELETE", "secretbindings")], checks, variables, _NOT_COLLECTED)


def _status(account: Account) -> Object:
    """What happened is told by the operator alone: it trusts what it finds there after a restart."""
    only = check(
        f"{WHO} == {text(account.username)}",
        f"only the operator, {account.username}, writes the status of WorkflowRuns, SecretBindings and"
        " SecretReveals",
    )
    return policy(
        [ours("UPDATE", "workflowruns/status", "secretbindings/status", "secretreveals/status")], [only]
    )


def _names(account: Account) -> Object:
    """Jobs and Secrets with names or labels of Runkeys are made by its operator."""
    is_operator = f"{WHO} == {text(account.username)}"
    labels = listed(_RUN_LABELS)
    same = " && ".join(
        f"object.metadata.?{field}.orValue({empty}) == oldObject.metadata.?{field}.orValue({empty})"
        for field, empty in (("labels", "{}"), ("finalizers", "[]"), ("ownerReferences", "[]"))
    )
    checks = [
        check(
            f"request.operation != 'CREATE' || !(variables.ours || variables.labelled) || {is_operator}",
            "only the operator of Runkeys makes Jobs and Secrets whose names begin with rk-, Secrets of type"
            f" {SECRET_TYPE}, and Jobs with the labels {', '.join(_RUN_LABELS)}; choose another name, and leave the"
            " labels out",
        ),
        check(
            f"!(request.operation == 'DELETE' && variables.secret && variables.ours) || {is_operator}",
            "the Secret of a run is deleted by the operator of Runkeys, or with its Job; to take it away now, cancel"
            " the run (spec.cancel) or delete it",
        ),
        check(
            f"!(request.operation == 'UPDATE' && variables.secret && variables.ours) || ({same})",
            "labels, finalizers and owner of a run's Secret are what removes it in time, and cannot be changed",
        ),
        check(
            "request.operation != 'UPDATE' || variables.secret"
            f" || {labels}.all(l, object.metadata.?labels[?l] == oldObject.metadata.?labels[?l])",
            f"the labels {', '.join(_RUN_LABELS)} say which Jobs are a run's, and cannot be changed",
        ),
    ]
    variables = {
        "target": _TARGET,
        "secret": "request.resource.resource == 'secrets'",
        "ours": f"variables.target.metadata.name.startsWith({text(OBJECT_PREFIX)})"
        f" || (variables.secret && variables.target.?type.orValue('') == {text(SECRET_TYPE)})",
        "labelled": f"!variables.secret && {labels}.exists(l, l in variables.target.metadata.?labels.orValue({{}}))",
    }
    rules = [
        rule("CREATE UPDATE DELETE", "secrets"),
        rule("CREATE UPDATE", "jobs", group="batch"),
    ]
    return policy(rules, checks, variables, _NOT_COLLECTED)


def _pods(_: Account) -> Object:
    """Only the pod of a run's Job can refer to the run's Secret, and it stays as it was made."""
    labels = listed(_RUN_LABELS)
    prefix = text(OBJECT_PREFIX)
    own = every_secret(
        "object.spec", lambda name: f"(!{name}.startsWith({prefix}) || {name} == variables.job)"
    )
    images = " && ".join(
        f"object.spec.?{field}.orValue([]).map(c, c.image) == oldObject.spec.?{field}.orValue([]).map(c, c.image)"
        for field in ("containers", "initContainers")
    )
    checks = [
        check(
            f"request.operation != 'CREATE' || ({own})",
            "the pod refers to a Secret whose name begins with rk-: that is the Secret of one attempt of a run, for the"
            " pod of that attempt's Job alone; ask for secrets in a WorkflowRun of your own",
        ),
        check(
            "request.operation != 'CREATE' || variables.job.startsWith("
            f"{prefix}) || !{labels}.exists(l, l in object.metadata.?labels.orValue({{}}))",
            f"the labels {', '.join(_RUN_LABELS)} are for pods of runs, which the Job controller makes; leave them out",
        ),
        check(
            f"request.?subResource.orValue('') != 'ephemeralcontainers' || ({own})",
            "the pod has the Secret of a run, so no container can be added to it: it could read what the others were"
            " given",
        ),
        check(
            "request.?subResource.orValue('') != 'ephemeralcontainers'"
            f" || !object.spec.?volumes.orValue([]).exists(v, v.name == {text(RECIPIENT_VOLUME)})",
            "the secrets of a run are delivered into the pod, so no container can be added to it: it could mount what"
            " holds them",
        ),
        check(
            f"request.operation != 'UPDATE' || {labels}.all(l,"
            " object.metadata.?labels[?l] == oldObject.metadata.?labels[?l])",
            f"the labels {', '.join(_RUN_LABELS)} say which pods are a run's, and cannot be changed",
        ),
        check(
            f"request.operation != 'UPDATE' || {label('oldObject', LABEL_RUN)} == '' || ({images})",
            "the images of a run's pod are those that its bindings admitted, and cannot be changed: make a new run",
        ),
    ]
    made_by = listed([_JOB_CONTROLLER, _CONTROLLER_MANAGER])
    jobs = (
        "object.metadata.?ownerReferences.orValue([]).filter(o, o.kind == 'Job' && o.apiVersion == 'batch/v1'"
        " && o.?controller.orValue(false)).map(o, o.name)"
    )
    variables = {
        "jobs": jobs,
        # The Job that controls it; empty unless the Job controller says so.
        "job": f"request.operation == 'CREATE' && {WHO} in {made_by} && size(variables.jobs) == 1"
        " ? variables.jobs[0] : ''",
    }
    rules = [rule("CREATE UPDATE", "pods"), rule("UPDATE", "pods/ephemeralcontainers")]
    return policy(rules, checks, variables, _NOT_COLLECTED)


def _operator(account: Account) -> Object:
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
            f" || (size({_changed(['sealedInput'])}) == 0 && {kept} && {same_notes})",
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
        "target": _TARGET,
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


def _recipients(_: Account) -> Object:
    """Only the kubelet of the node that a request names asks for sealed secrets: the key in it is the pod's then."""
    only = check(
        f"object.spec.signerName != {text(SIGNER)} || {WHO} == 'system:node:' + object.spec.nodeName",
        f"a PodCertificateRequest for {SIGNER} is made by the kubelet of the pod's node alone; ask for secrets in a"
        " WorkflowRun of your own",
    )
    return policy([rule("CREATE", "podcertificaterequests", group="certificates.k8s.io")], [only])


def requester() -> Object:
    """Fills in who makes a run or asks for a value.

    A patch, since what was sent has to be replaced and not merged with.
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


VALIDATING_RULES: dict[str, Callable[[Account], Object]] = {
    "use": _runs_use,
    "reveal": _reveals,
    "frozen": _runs_frozen,
    "plaintext": _plaintext,
    "bindings": _bindings,
    "status": _status,
    "names": _names,
    "pods": _pods,
    "operator": _operator,
    "recipients": _recipients,
}
