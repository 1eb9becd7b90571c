"""What is demanded of Jobs, Secrets, pods and requests for certificates: only its own task has what a run is given."""

from __future__ import annotations

from runkeys.naming import LABEL_RUN, LABEL_RUN_UID, LABEL_TASK, OBJECT_PREFIX, RECIPIENT_VOLUME, SECRET_TYPE
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, every_secret, label, listed, policy, rule, text
from runkeys.policies.shared import CONTROLLER_MANAGER, NOT_COLLECTED, TARGET
from runkeys.template import SIGNER

_JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"


_RUN_LABELS = [LABEL_RUN, LABEL_RUN_UID, LABEL_TASK]


def names(account: Account) -> Object:
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
        "target": TARGET,
        "secret": "request.resource.resource == 'secrets'",
        "ours": f"variables.target.metadata.name.startsWith({text(OBJECT_PREFIX)})"
        f" || (variables.secret && variables.target.?type.orValue('') == {text(SECRET_TYPE)})",
        "labelled": f"!variables.secret && {labels}.exists(l, l in variables.target.metadata.?labels.orValue({{}}))",
    }
    rules = [
        rule("CREATE UPDATE DELETE", "secrets"),
        rule("CREATE UPDATE", "jobs", group="batch"),
    ]
    return policy(rules, checks, variables, NOT_COLLECTED)


def pods(_: Account) -> Object:
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
    made_by = listed([_JOB_CONTROLLER, CONTROLLER_MANAGER])
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
    return policy(rules, checks, variables, NOT_COLLECTED)


def recipients(_: Account) -> Object:
    """Only the kubelet of the node that a request names asks for sealed secrets: the key in it is the pod's then."""
    only = check(
        f"object.spec.signerName != {text(SIGNER)} || {WHO} == 'system:node:' + object.spec.nodeName",
        f"a PodCertificateRequest for {SIGNER} is made by the kubelet of the pod's node alone; ask for secrets in a"
        " WorkflowRun of your own",
    )
    return policy([rule("CREATE", "podcertificaterequests", group="certificates.k8s.io")], [only])
