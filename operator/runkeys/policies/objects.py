"""Policies on Jobs, Secrets, pods and certificate requests: only a run's own task gets the run's secrets."""

from __future__ import annotations

from runkeys.api import GROUP
from runkeys.names import (
    LABEL_RUN,
    LABEL_RUN_UID,
    LABEL_TASK,
    OBJECT_PREFIX,
    RECIPIENT_VOLUME,
    SECRET_TYPE,
    SIGNER,
)
from runkeys.planning.secret_paths import VOLUME, every_secret
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, listed, ours, policy, rule, text
from runkeys.policies.shared import JOB_CONTROLLERS, NOT_COLLECTED, TARGET

_RUN_LABELS = [LABEL_RUN, LABEL_RUN_UID, LABEL_TASK]

# It writes each object unchanged, so that it is stored in another version or under another key.
_MIGRATOR = "system:serviceaccount:kube-system:storage-version-migrator-controller"

_JOB_UID_LABEL = "batch.kubernetes.io/controller-uid"
"""By this label the Job controller finds the pods of a Job. It adopts a pod with it that has no owner."""

_JOB_NAME_LABELS = ["batch.kubernetes.io/job-name", "job-name"]
_JOB_FINALIZER = "batch.kubernetes.io/job-tracking"

_IS_OURS = f"^{OBJECT_PREFIX}.*-[0-9]+-[0-9a-f]{{10}}$"
"""Pattern of the names of attempts, for volumes: they belong to the cluster and not to a served namespace."""


def names(account: Account) -> Object:
    """Only the operator creates and changes Jobs and Secrets with names or labels of Runkeys.

    A run is deleted with its Jobs, a Job with its pod and Secret.
    """
    is_operator = f"{WHO} == {text(account.username)}"
    labels = listed(_RUN_LABELS)
    checks = [
        check(
            f"request.operation != 'CREATE' || !(variables.ours || variables.labelled) || {is_operator}",
            "only the operator of Runkeys creates Jobs and Secrets whose names begin with rk-, Secrets of type"
            f" {SECRET_TYPE}, and Jobs with the labels {', '.join(_RUN_LABELS)}; choose another name, and leave the"
            " labels out",
        ),
        check(
            f"!(request.operation == 'DELETE' && variables.secret && variables.ours) || {is_operator}",
            "only the operator of Runkeys deletes the Secret of a run, or the Secret is deleted with its Job;"
            " to delete it now, cancel the run (spec.cancel) or delete the run",
        ),
        check(
            "!(request.operation == 'UPDATE' && variables.secret && variables.ours)"
            f" || {WHO} == {text(_MIGRATOR)}",
            "nobody can change the Secret of a run: the API server would answer with the whole Secret, and it"
            " is deleted in time only with its labels, finalizers and owner as they are",
        ),
        check(
            "!(request.operation == 'UPDATE' && variables.job && variables.ours)"
            f" || {WHO} in {listed([*JOB_CONTROLLERS, _MIGRATOR])}",
            "only the Job controller can change the Job of a run; to end the run set its spec.cancel, to pause"
            " it set its spec.suspend, and for anything else create a new run",
        ),
        check(
            "!(request.operation == 'DELETE' && variables.job && variables.ours)"
            " || (request.?options.?propagationPolicy.orValue('') in ['Background', 'Foreground']"
            " && !request.?options.?orphanDependents.orValue(false))",
            "the Job of a run can only be deleted together with its pod and its Secret, and this request would"
            " leave them behind; use kubectl delete job without --cascade (in a request: propagationPolicy"
            " Background), or cancel the run (spec.cancel)",
        ),
        check(
            # Unset means Background for a run.
            "!(request.operation == 'DELETE' && variables.run)"
            " || (request.?options.?propagationPolicy.orValue('') != 'Orphan'"
            " && !request.?options.?orphanDependents.orValue(false))",
            "a WorkflowRun can only be deleted together with its Jobs and their Secrets, and this request would"
            " leave them behind; use kubectl delete workflowrun without --cascade (in a request:"
            " propagationPolicy Background)",
        ),
        check(
            # The garbage collector obeys this finalizer too.
            "request.operation == 'DELETE' || !variables.run || !('orphan' in object.metadata.?finalizers.orValue([]))"
            " || (request.operation == 'UPDATE' && 'orphan' in oldObject.metadata.?finalizers.orValue([]))",
            "with the finalizer orphan, a WorkflowRun would leave its Jobs and their Secrets behind when it is"
            " deleted; leave the finalizer out",
        ),
        check(
            "request.operation != 'UPDATE' || !variables.job"
            f" || {labels}.all(l, object.metadata.?labels[?l] == oldObject.metadata.?labels[?l])",
            f"the labels {', '.join(_RUN_LABELS)} say which Jobs belong to a run, and cannot be changed",
        ),
    ]
    variables = {
        "target": TARGET,
        "secret": "request.resource.resource == 'secrets'",
        "job": "request.resource.resource == 'jobs'",
        "run": "request.resource.resource == 'workflowruns'",
        "ours": f"!variables.run && (variables.target.metadata.name.startsWith({text(OBJECT_PREFIX)})"
        f" || (variables.secret && variables.target.?type.orValue('') == {text(SECRET_TYPE)}))",
        "labelled": f"variables.job && {labels}.exists(l, l in variables.target.metadata.?labels.orValue({{}}))",
    }
    rules = [
        rule("CREATE UPDATE DELETE", "secrets"),
        rule("CREATE UPDATE DELETE", "jobs", group="batch"),
        rule("UPDATE", "jobs/status", group="batch"),
        ours("CREATE UPDATE DELETE", "workflowruns"),
    ]
    return policy(rules, checks, variables, NOT_COLLECTED)


MOST_CONTAINERS, MOST_VARIABLES = 100, 1000
"""Limits on what is searched for the Secret of a run: containers of a pod, and variables of each container."""


def pods(_: Account) -> Object:
    """Only the pod of a run's Job can refer to the run's Secret or count for the Job, and it stays as it was created.

    The policy covers every way to change its metadata: directly, with its status, or when the pod gets its node.
    """
    labels = listed(_RUN_LABELS)
    prefix = text(OBJECT_PREFIX)
    own = every_secret(
        "object.spec", lambda name: f"(!{name}.startsWith({prefix}) || {name} == variables.job)"
    )
    none_of_ours = every_secret("object.spec", lambda name: f"!{name}.matches({text(_IS_OURS)})", VOLUME)
    images = " && ".join(
        f"object.spec.?{field}.orValue([]).map(c, c.image) == oldObject.spec.?{field}.orValue([]).map(c, c.image)"
        for field in ("containers", "initContainers")
    )
    of_before, of_now = (
        f"{of}.metadata.?ownerReferences.orValue([]).filter(o, o.?controller.orValue(false))"
        for of in ("oldObject", "object")
    )
    tracked, still_tracked = (
        f"{text(_JOB_FINALIZER)} in {of}.metadata.?finalizers.orValue([])" for of in ("oldObject", "object")
    )
    notes = [f"{of}.metadata.?annotations.orValue({{}})" for of in ("object", "oldObject")]
    same_notes = " && ".join(
        f"{one}.all(k, !k.startsWith({text(f'{GROUP}/')}) || (k in {other} && {one}[k] == {other}[k]))"
        for one, other in (notes, notes[::-1])
    )
    uid = text(_JOB_UID_LABEL)
    of_uid = [f"{of}[?{uid}].orValue('')" for of in ("variables.now", "variables.before")]
    of_name = [f"{of}[?l].orValue('')" for of in ("variables.now", "variables.before")]
    checks = [
        check(
            f"!variables.named || (size(variables.containers) <= {MOST_CONTAINERS}"
            f" && variables.containers.all(c, size(c.?env.orValue([])) <= {MOST_VARIABLES}))",
            f"the pod names something that begins with {OBJECT_PREFIX}, and has more than {MOST_CONTAINERS} containers"
            f" or {MOST_VARIABLES} variables in one: too many to check whether that is the Secret of a run",
        ),
        check(
            f"!variables.named || ({own})",
            "the pod refers to a Secret whose name begins with rk-: that is the Secret of one attempt of a run,"
            " only for the pod of that attempt's Job; to get secrets, create a WorkflowRun of your own",
        ),
        check(
            "!variables.pod || request.operation != 'CREATE' || variables.job.startsWith("
            f"{prefix}) || !{labels}.exists(l, l in variables.now)",
            f"the labels {', '.join(_RUN_LABELS)} are for pods of runs, which the Job controller creates; leave"
            " them out",
        ),
        check(
            f"!variables.pod || variables.by_controller || {of_uid[0]} == {of_uid[1]}"
            f" || ({of_uid[0]} == '' && !variables.of_run)",
            f"the label {_JOB_UID_LABEL} makes a pod part of a Job, and only the Job controller sets it, or"
            " removes it from the pod of a run; leave it as it is",
        ),
        check(
            "!variables.pod || request.operation != 'CREATE' || !variables.by_controller"
            f" || !({uid} in variables.now) || variables.uids == [variables.now[{uid}]]",
            f"the label {_JOB_UID_LABEL} names another Job than the one that the pod is created for, and that"
            " Job would count the pod as its own; remove the label from the Job's template",
        ),
        check(
            f"!variables.pod || variables.by_controller || {listed(_JOB_NAME_LABELS)}.all(l,"
            f" {of_name[0]} == {of_name[1]}"
            f" || (!{of_name[0]}.startsWith({prefix}) && !{of_name[1]}.startsWith({prefix})))",
            f"only the Job controller sets or removes the labels {', '.join(_JOB_NAME_LABELS)} with the name of"
            " a run's Job; leave them as they are",
        ),
        check(
            f"request.?subResource.orValue('') != 'ephemeralcontainers' || ({own})",
            "the pod has the Secret of a run, so no container can be added to it: that container could read the"
            " secrets of the others",
        ),
        check(
            "request.?subResource.orValue('') != 'ephemeralcontainers'"
            f" || !object.spec.?volumes.orValue([]).exists(v, v.name == {text(RECIPIENT_VOLUME)})",
            "the pod has the secrets of a run, so no container can be added to it: that container could mount"
            " the volume that holds them",
        ),
        check(
            "!variables.pod || request.operation != 'UPDATE' || "
            f"{labels}.all(l, variables.now[?l] == variables.before[?l])",
            f"the labels {', '.join(_RUN_LABELS)} say which pods belong to a run, and cannot be changed",
        ),
        check(
            f"!variables.pod || request.operation != 'UPDATE' || !variables.of_run || ({images})",
            "the images of a run's pod cannot be changed, because the run's bindings admitted these images:"
            " create a new run",
        ),
        check(
            "!variables.pod || request.operation != 'UPDATE' || !variables.of_run || variables.by_controller"
            f" || ({of_before} == {of_now} && ({tracked}) == ({still_tracked}))",
            "the pod of a run belongs to its Job: the owner that controls it and the finalizer"
            f" {_JOB_FINALIZER} cannot be changed",
        ),
        check(
            f"!variables.pod || request.operation != 'UPDATE' || !variables.of_run || ({same_notes})",
            f"annotations of a run's pod that begin with {GROUP}/ are the input of its task, and cannot be changed",
        ),
        check(
            f"!variables.volume || ({none_of_ours})",
            "the volume refers to the Secret of an attempt of a run, which is only for the pod of that attempt;"
            " name another Secret",
        ),
        check(
            "!variables.placed || !variables.now.exists(l,"
            f" l.startsWith({text(f'{GROUP}/')}) || l in {listed([_JOB_UID_LABEL, *_JOB_NAME_LABELS])})",
            f"a Binding assigns a pod to a node and adds labels to it, but labels that begin with {GROUP}/ and"
            f" those of the Job controller ({', '.join([_JOB_UID_LABEL, *_JOB_NAME_LABELS])}) say which run or"
            " Job the pod belongs to; leave them out",
        ),
        check(
            # Volcano sends all annotations of the pod back. No policy can see whether they are the same.
            f"!variables.placed || !{notes[0]}.exists(k, k.startsWith({text(f'{GROUP}/')}))"
            " || authorizer.group('').resource('pods').subresource('binding').check('create').allowed()",
            f"a Binding assigns a pod to a node and adds annotations to it, but those that begin with {GROUP}/"
            " are the input of a task; leave them out (a scheduler that may create pods/binding in all"
            " namespaces can send them back)",
        ),
    ]
    jobs = (
        "object.metadata.?ownerReferences.orValue([]).filter(o, o.kind == 'Job' && o.apiVersion == 'batch/v1'"
        " && o.?controller.orValue(false))"
    )
    variables = {
        # A Binding, created as subresource of the pod or, in the old way, as an object: it has no spec.
        "placed": "request.resource.resource == 'bindings' || request.?subResource.orValue('') == 'binding'",
        "volume": "request.resource.resource == 'persistentvolumes'",
        "pod": "!variables.placed && !variables.volume",
        "containers": "object.spec.containers + object.spec.?initContainers.orValue([])",
        # Whether it can refer to one at all. A search of all fields costs the square of their number.
        "named": "variables.pod && request.operation == 'CREATE'"
        f""" && '%s'.format([object.spec]).contains('"{OBJECT_PREFIX}')""",
        "by_controller": f"{WHO} in {listed(JOB_CONTROLLERS)}",
        "jobs": f"{jobs}.map(o, o.name)",
        "uids": f"{jobs}.map(o, o.uid)",
        # The Job that controls it; empty unless the Job controller says so.
        "job": "request.operation == 'CREATE' && variables.by_controller && size(variables.jobs) == 1"
        " ? variables.jobs[0] : ''",
        "now": "object.metadata.?labels.orValue({})",
        "before": "request.operation == 'CREATE' ? {} : oldObject.metadata.?labels.orValue({})",
        "of_run": f"{text(LABEL_RUN)} in variables.before",
    }
    rules = [
        rule("CREATE UPDATE", "pods"),
        # Through its status, too, labels, annotations and finalizers of a pod can be changed.
        rule("UPDATE", "pods/ephemeralcontainers", "pods/status"),
        rule("CREATE", "pods/binding", "bindings"),
        rule("CREATE UPDATE", "persistentvolumes"),
    ]
    return policy(rules, checks, variables, NOT_COLLECTED)


def recipients(_: Account) -> Object:
    """Only the kubelet of the node that a request names can ask for sealed secrets. So the key in it is the pod's."""
    only = check(
        f"object.spec.signerName != {text(SIGNER)} || {WHO} == 'system:node:' + object.spec.nodeName",
        f"only the kubelet of the pod's node can create a PodCertificateRequest for {SIGNER}; to get secrets,"
        " create a WorkflowRun of your own",
    )
    return policy([rule("CREATE", "podcertificaterequests", group="certificates.k8s.io")], [only])
