"""The admission policies: who may make, change and use what. Evaluated inside the API server, so nothing can be down.

:func:`build` gives them as objects for one operator: it is the one source of the chart's templates, of the manifests
in ``policies/`` (``make policies``) and of what the operator compares with what is installed. Pure.

One call of CEL's ``authorizer`` costs 350,000; an expression may cost 1,000,000 and a policy 10,000,000. So the checks
are unrolled, one expression for each index. Only functions that Kubernetes 1.33 knows are used: an API server takes
those of its own version only from what is stored already.

Every default of the API server is written out, so that what is installed can be compared exactly.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runkeys.access import grant_use, subject_of
from runkeys.api import GROUP, VERSION
from runkeys.naming import (
    LABEL_RUN,
    LABEL_RUN_UID,
    LABEL_TASK,
    OBJECT_PREFIX,
    SECRET_TYPE,
    SEALING_KEYS,
    SERVICE_ACCOUNT,
)
from runkeys.status import FINAL_PHASES

Object = dict[str, Any]

API = "admissionregistration.k8s.io/v1"
VALIDATING, MUTATING = "ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"

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

_WHO = "request.userInfo.username"
_RUN_LABELS = [LABEL_RUN, LABEL_RUN_UID, LABEL_TASK]


@dataclass(frozen=True)
class Account:
    """Whom the policies know as the operator.

    :ivar username: as the API server knows it. :ivar namespace: where its sealing keys are.
    """

    username: str
    namespace: str

    @classmethod
    def service_account(cls, namespace: str, name: str) -> Account:
        """A service account of the operator's own namespace."""
        return cls(f"{SERVICE_ACCOUNT}{namespace}:{name}", namespace)

    @property
    def suffix(self) -> str:
        """What the names of this operator's policies end with."""
        if self.username.startswith(SERVICE_ACCOUNT):
            return self.username.removeprefix(SERVICE_ACCOUNT).replace(":", ".")
        return re.sub(r"[^a-z0-9]+", "-", self.username.lower()).strip("-")

    def name_of(self, policy: str) -> str:
        """Name of a policy, and of its binding: each operator has its own."""
        return f"runkeys-{policy}.{self.suffix}"


def build(account: Account, namespaces: Sequence[str] = (), *, mutating: bool = True) -> list[Object]:
    """All policies, each followed by its binding: plain JSON types, new on every call.

    :param namespaces: those that the operator serves; none: all.
    :param mutating: with the one that fills in who made a run, for servers that know such a kind (since 1.36).
    """
    policies = [
        *((VALIDATING, name, make(account)) for name, make in _VALIDATING.items()),
        *([(MUTATING, "requester", _requester())] if mutating else []),
    ]
    return [item for kind, name, spec in policies for item in _with_binding(kind, name, spec, account, namespaces)]


def difference(expected: object, found: object, path: str = "spec") -> str | None:
    """Where ``found`` is not what was expected, as a path; None if it is.

    What is empty counts as absent, so that a field which a later API server adds does no harm.
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
    """The namespaces that a policy's binding is for; None: all, ``[]``: cannot be told."""
    selector = (binding.get("spec", {}).get("matchResources") or {}).get("namespaceSelector")
    if not selector:
        return None
    match selector:
        case {"matchExpressions": [{"operator": "In", "values": [*values]}], **rest} if not rest:
            return [str(value) for value in values]
    return []


# objects


def _with_binding(
    kind: str, name: str, spec: Object, account: Account, namespaces: Sequence[str]
) -> Iterator[Object]:
    metadata = {"name": account.name_of(name)}
    yield {"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec}
    # The operator is held to its job wherever it acts.
    selector = _in(namespaces) if namespaces and name != "operator" else {}
    binding: Object = {"policyName": account.name_of(name)}
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


def _rule(operations: str, *resources: str, group: str = "", version: str = "v1") -> Object:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": operations.split(),
        "resources": list(resources),
        "scope": "*",
    }


def _ours(operations: str, *resources: str) -> Object:
    return _rule(operations, *resources, group=GROUP, version=VERSION)


def _match(*rules: Object) -> Object:
    return {
        "matchPolicy": "Equivalent",
        "namespaceSelector": {},
        "objectSelector": {},
        "resourceRules": list(rules),
    }


def _policy(
    rules: Sequence[Object],
    validations: Sequence[Object],
    variables: dict[str, str] | None = None,
    condition: tuple[str, str] | None = None,
) -> Object:
    spec: Object = {"failurePolicy": "Fail", "matchConstraints": _match(*rules)}
    if condition is not None:
        spec["matchConditions"] = [{"name": condition[0], "expression": condition[1]}]
    if variables:
        spec["variables"] = [{"name": name, "expression": text} for name, text in variables.items()]
    return {**spec, "validations": list(validations)}


def _check(expression: str, message: str, told: str = "") -> Object:
    """One validation. ``message`` is fixed; ``told`` is CEL for what can only be said of the request at hand."""
    found = {"expression": expression, "message": message, "reason": "Forbidden"}
    return {**found, "messageExpression": told} if told else found


# CEL


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(_text(value) for value in values)}]"


def _filled(template: str, **parts: str) -> str:
    """CEL for ``template``, in which each ``<name>`` stands for an expression."""
    pieces = re.split(r"<(\w+)>", template)
    terms = [parts[piece] if index % 2 else _text(piece) for index, piece in enumerate(pieces) if piece]
    return " + ".join(terms)


def _may(verb: str, group: str, resource: str, name: str = "") -> str:
    named = f".name({name})" if name else ""
    return (
        f"authorizer.group({_text(group)}).resource({_text(resource)}).namespace(request.namespace)"
        f"{named}.check({_text(verb)}).allowed()"
    )


def _label(of: str, label: str) -> str:
    return f"{of}.metadata.?labels[?{_text(label)}].orValue('')"


_SUBJECT = (
    f"{_WHO}.startsWith({_text(SERVICE_ACCOUNT)})"
    f" ? {_text(subject_of(SERVICE_ACCOUNT))} + {_WHO}.substring({len(SERVICE_ACCOUNT)})"
    f" : {_text(subject_of(''))} + {_WHO}"
)
"""How `kubectl create rolebinding` names whoever asks; the same as :func:`runkeys.access.subject_of`."""

_GRANT = grant_use("<namespace>", "<binding>", "<subject>")


def _use_granted_by(binding: str) -> dict[str, str]:
    return {
        "who": _WHO,
        "binding": binding,
        "namespace": "request.namespace",
        "subject": "variables.subject",
    }


_SUBJECT_IS = "request.operation == 'DELETE' ? oldObject : object"
_NOT_COLLECTED = (
    "is-not-a-collector",
    f"!({_WHO} in {_list(_COLLECTORS)})"
    f" && !({_WHO} == {_text(_CONTROLLER_MANAGER)} && request.operation != 'CREATE')",
)

# What may refer to a Secret in a pod, besides its containers.
_VOLUME_SECRETS = (
    "v.?secret.?secretName",
    "v.?csi.?nodePublishSecretRef.?name",
    "v.?flexVolume.?secretRef.?name",
    "v.?cephfs.?secretRef.?name",
    "v.?rbd.?secretRef.?name",
    "v.?iscsi.?secretRef.?name",
    "v.?scaleIO.?secretRef.?name",
    "v.?storageos.?secretRef.?name",
    "v.?azureFile.?secretName",
)


def _every_secret(spec: str, admitted: Callable[[str], str]) -> str:
    """CEL: each Secret that a pod spec refers to is admitted. ``admitted`` gives the condition on one name."""
    containers = " + ".join(
        f"{spec}.?{field}.orValue([])" for field in ("containers", "initContainers", "ephemeralContainers")
    )
    of_env = admitted("e.?valueFrom.?secretKeyRef.?name.orValue('')")
    of_env_from = admitted("e.?secretRef.?name.orValue('')")
    volumes = ", ".join(f"{path}.orValue('')" for path in _VOLUME_SECRETS)
    of_sources = admitted("s.?secret.?name.orValue('')")
    return (
        f"({containers}).all(c, c.?env.orValue([]).all(e, {of_env}) && c.?envFrom.orValue([]).all(e, {of_env_from}))"
        f" && {spec}.?volumes.orValue([]).all(v, [{volumes}].all(n, {admitted('n')})"
        f" && v.?projected.?sources.orValue([]).all(s, {of_sources}))"
    )


# the policies


def _runs_use(_: Account) -> Object:
    """Whoever makes a run is on record as its requester, and may use each binding that it names."""
    checks = [
        _check(
            f"has(object.spec.requester) && object.spec.requester.username == {_WHO}"
            " && sets.equivalent(object.spec.requester.?groups.orValue([]), request.userInfo.?groups.orValue([]))",
            "spec.requester must be whoever makes the run, with all groups and no others",
            _filled(
                "spec.requester must be <who>, who makes the run, with exactly these groups: <groups>; leave it out"
                " where the API server fills it in (Kubernetes 1.36 and later)",
                who=_WHO,
                groups="request.userInfo.?groups.orValue([]).join(', ')",
            ),
        )
    ]
    for index in range(MOST_BINDINGS):
        name = f"variables.names[{index}]"
        checks.append(
            _check(
                f"size(variables.names) <= {index} || {_may('use', GROUP, 'secretbindings', name)}",
                f"whoever makes the run may not use the SecretBinding that spec.bindings names as number {index + 1}",
                _filled(
                    "<who> may not use SecretBinding <binding>; whoever administers the namespace can allow it: "
                    f"{_GRANT}",
                    **_use_granted_by(name),
                ),
            )
        )
    named = "object.spec.?bindings.orValue([]).filter(b, has(b.name)).map(b, b.name)"
    return _policy([_ours("CREATE", "workflowruns")], checks, {"names": named, "subject": _SUBJECT})


_FREE = ["suspend", "cancel", "ttlSecondsAfterFinished", "sealedInput"]
_SAME = "(k in oldObject.spec && object.spec[k] == oldObject.spec[k])"


def _changed(free: Sequence[str]) -> str:
    """CEL: which keys of the spec are not what they were, apart from ``free``."""
    others = f"!(k in {_list(free)})"
    return (
        f"object.spec.filter(k, {others} && !{_SAME})"
        f" + oldObject.spec.filter(k, {others} && !(k in object.spec))"
    )


def _runs_frozen(_: Account) -> Object:
    """A run stays what was admitted. The schema's own rules cannot see into `input` and templates."""
    checks = [
        _check(
            "size(variables.changed) == 0",
            "the spec of a run is fixed once it exists: make a new run",
            _filled(
                "spec.<changed> cannot be changed once a run exists, only suspend, cancel and ttlSecondsAfterFinished"
                " can: make a new run",
                changed="variables.changed.join(', spec.')",
            ),
        ),
        _check(
            "!has(object.spec.sealedInput) || (has(oldObject.spec.sealedInput)"
            " && object.spec.sealedInput == oldObject.spec.sealedInput)",
            "spec.sealedInput can only be taken out of a run, as a whole: make a new run",
        ),
    ]
    return _policy([_ours("UPDATE", "workflowruns")], checks, {"changed": _changed(_FREE)})


_ROTATE = "it may be in the audit log now: treat it as known to others and replace it"
_SEALED = r'"sealed"\s*:\s*"([^r"]|r[^k"]|rk[^1"]|rk1[^."])'
_PLAIN_ENTRY = r'"secrets"\s*:\s*\[[^\]]*"(value|data|stringData)"\s*:'
_SEALED_INPUT = r'"sealedInput"\s*:\s*\{(\s*"([^"\\]|\\.)*"\s*:\s*"rk1\.[^"]*"\s*,?)*\s*\}'


def _plaintext(_: Account) -> Object:
    """Nothing that should be sealed is stored in the clear, in the copy that `kubectl apply` keeps neither."""
    is_run = "request.resource.resource == 'workflowruns'"
    value = "object.spec.input[k]"
    checks = [
        _check(
            f"!({is_run}) || !has(object.spec.input) || (!('$secrets' in object.spec.input)"
            f" && object.spec.input.all(k, type({value}) != map || !('$secrets' in {value})))",
            "spec.input holds $secrets in the clear; submit it with `runkeys run`, which seals them, or put what"
            f" `runkeys seal` gives into spec.sealedInput. Whatever was sent: {_ROTATE}",
        ),
        _check(
            "variables.applied == '' || !("
            f"variables.applied.contains('\"$secrets\"') || variables.applied.matches({_text(_PLAIN_ENTRY)})"
            f" || variables.applied.matches({_text(_SEALED)})"
            f" || (variables.applied.contains('\"sealedInput\"') && !variables.applied.matches({_text(_SEALED_INPUT)})))",
            f"the annotation {LAST_APPLIED} holds a value in the clear, although the spec does not take it; seal it"
            f" with `runkeys seal`. Whatever was sent: {_ROTATE}",
        ),
    ]
    applied = f"object.metadata.?annotations[?{_text(LAST_APPLIED)}].orValue('')"
    return _policy(
        [_ours("CREATE UPDATE", "workflowruns", "secretbindings")], checks, {"applied": applied}
    )


def _bindings(_: Account) -> Object:
    """A personal binding is its owner's. Another one takes `use` to write, and any `get` on what it refers to."""
    name = "variables.subject_is.metadata.name"
    get = "kubectl -n <namespace> create role get-<secret> --verb=get --resource=secrets --resource-name=<secret>"
    bind = "kubectl -n <namespace> create rolebinding get-<secret> --role=get-<secret> <subject>"
    checks = [
        _check(
            f"variables.owner == '' || variables.owner == {_WHO}",
            "a personal SecretBinding is written by its owner only",
            _filled(
                "<who> may not write SecretBinding <binding>, the personal binding of <owner>; its owner can, or"
                " whoever may act as the owner: kubectl --as=<owner>",
                who=_WHO,
                binding=name,
                owner="variables.owner",
            ),
        ),
        _check(
            f"!variables.changed || variables.owner != '' || {_may('use', GROUP, 'secretbindings', name)}",
            "whoever writes a SecretBinding must be allowed to use it",
            _filled(
                "<who> may not use SecretBinding <binding>, so may not write it either; whoever administers the"
                f" namespace can allow it: {_GRANT}",
                **_use_granted_by(name),
            ),
        ),
        _check(
            f"size(variables.sources) <= {MOST_SOURCES} || variables.gets_all",
            f"spec.secrets refers to more than {MOST_SOURCES} different Secrets, more than can be checked one by one;"
            " make several bindings, or have it written by somebody who may get all Secrets of the namespace",
        ),
    ]
    for index in range(MOST_SOURCES):
        secret = f"variables.sources[{index}]"
        checks.append(
            _check(
                f"size(variables.sources) <= {index} || variables.gets_all || {_may('get', '', 'secrets', secret)}",
                "whoever writes a SecretBinding must be allowed to get each Secret that spec.secrets refers to",
                _filled(
                    "<who> may not get Secret <secret>, to which spec.secrets refers, and a SecretBinding is no way"
                    f" round that; whoever administers the namespace can allow it: {get} && {bind}",
                    who=_WHO,
                    secret=secret,
                    namespace="request.namespace",
                    subject="variables.subject",
                ),
            )
        )
    variables = {
        "subject": _SUBJECT,
        "subject_is": _SUBJECT_IS,
        "owner": "variables.subject_is.spec.?owner.?username.orValue('')",
        "changed": "request.operation == 'CREATE'"
        " || (request.operation == 'UPDATE' && object.spec != oldObject.spec)",
        "named": "variables.changed ? object.spec.secrets.filter(e, has(e.secretKeyRef))"
        ".map(e, e.secretKeyRef.name) : []",
        "sources": "variables.named.transformList(i, n, variables.named.indexOf(n) == i, n)",
        "gets_all": _may("get", "", "secrets"),
    }
    return _policy([_ours("CREATE UPDATE DELETE", "secretbindings")], checks, variables, _NOT_COLLECTED)


def _status(account: Account) -> Object:
    """What happened is told by the operator alone: it trusts what it finds there after a restart."""
    check = _check(
        f"{_WHO} == {_text(account.username)}",
        f"only the operator, {account.username}, writes the status of WorkflowRuns and SecretBindings",
    )
    return _policy([_ours("UPDATE", "workflowruns/status", "secretbindings/status")], [check])


def _names(account: Account) -> Object:
    """Jobs and Secrets with names or labels of Runkeys are made by its operator."""
    is_operator = f"{_WHO} == {_text(account.username)}"
    labels = _list(_RUN_LABELS)
    same = " && ".join(
        f"object.metadata.?{field}.orValue({empty}) == oldObject.metadata.?{field}.orValue({empty})"
        for field, empty in (("labels", "{}"), ("finalizers", "[]"), ("ownerReferences", "[]"))
    )
    checks = [
        _check(
            f"request.operation != 'CREATE' || !(variables.ours || variables.labelled) || {is_operator}",
            "only the operator of Runkeys makes Jobs and Secrets whose names begin with rk-, Secrets of type"
            f" {SECRET_TYPE}, and Jobs with the labels {', '.join(_RUN_LABELS)}; choose another name, and leave the"
            " labels out",
        ),
        _check(
            f"!(request.operation == 'DELETE' && variables.secret && variables.ours) || {is_operator}",
            "the Secret of a run is deleted by the operator of Runkeys, or with its Job; to take it away now, cancel"
            " the run (spec.cancel) or delete it",
        ),
        _check(
            f"!(request.operation == 'UPDATE' && variables.secret && variables.ours) || ({same})",
            "labels, finalizers and owner of a run's Secret are what removes it in time, and cannot be changed",
        ),
        _check(
            "request.operation != 'UPDATE' || variables.secret"
            f" || {labels}.all(l, object.metadata.?labels[?l] == oldObject.metadata.?labels[?l])",
            f"the labels {', '.join(_RUN_LABELS)} say which Jobs are a run's, and cannot be changed",
        ),
    ]
    variables = {
        "subject_is": _SUBJECT_IS,
        "secret": "request.resource.resource == 'secrets'",
        "ours": f"variables.subject_is.metadata.name.startsWith({_text(OBJECT_PREFIX)})"
        f" || (variables.secret && variables.subject_is.?type.orValue('') == {_text(SECRET_TYPE)})",
        "labelled": f"!variables.secret && {labels}.exists(l, l in variables.subject_is.metadata.?labels.orValue({{}}))",
    }
    rules = [
        _rule("CREATE UPDATE DELETE", "secrets"),
        _rule("CREATE UPDATE", "jobs", group="batch"),
    ]
    return _policy(rules, checks, variables, _NOT_COLLECTED)


def _pods(_: Account) -> Object:
    """Only the pod of a run's Job can refer to the run's Secret, and it stays as it was made."""
    labels = _list(_RUN_LABELS)
    prefix = _text(OBJECT_PREFIX)
    own = _every_secret(
        "object.spec", lambda name: f"(!{name}.startsWith({prefix}) || {name} == variables.job)"
    )
    images = " && ".join(
        f"object.spec.?{field}.orValue([]).map(c, c.image) == oldObject.spec.?{field}.orValue([]).map(c, c.image)"
        for field in ("containers", "initContainers")
    )
    checks = [
        _check(
            f"request.operation != 'CREATE' || ({own})",
            "the pod refers to a Secret whose name begins with rk-: that is the Secret of one attempt of a run, for the"
            " pod of that attempt's Job alone; ask for secrets in a WorkflowRun of your own",
        ),
        _check(
            "request.operation != 'CREATE' || variables.job.startsWith("
            f"{prefix}) || !{labels}.exists(l, l in object.metadata.?labels.orValue({{}}))",
            f"the labels {', '.join(_RUN_LABELS)} are for pods of runs, which the Job controller makes; leave them out",
        ),
        _check(
            f"request.subResource != 'ephemeralcontainers' || ({own})",
            "the pod has the Secret of a run, so no container can be added to it: it could read what the others were"
            " given",
        ),
        _check(
            f"request.operation != 'UPDATE' || {labels}.all(l,"
            " object.metadata.?labels[?l] == oldObject.metadata.?labels[?l])",
            f"the labels {', '.join(_RUN_LABELS)} say which pods are a run's, and cannot be changed",
        ),
        _check(
            f"request.operation != 'UPDATE' || {_label('oldObject', LABEL_RUN)} == '' || ({images})",
            "the images of a run's pod are those that its bindings admitted, and cannot be changed: make a new run",
        ),
    ]
    made_by = _list([_JOB_CONTROLLER, _CONTROLLER_MANAGER])
    jobs = (
        "object.metadata.?ownerReferences.orValue([]).filter(o, o.kind == 'Job' && o.apiVersion == 'batch/v1'"
        " && o.?controller.orValue(false)).map(o, o.name)"
    )
    variables = {
        "jobs": jobs,
        # The Job that controls it; empty unless the Job controller says so.
        "job": f"request.operation == 'CREATE' && {_WHO} in {made_by} && size(variables.jobs) == 1"
        " ? variables.jobs[0] : ''",
    }
    rules = [_rule("CREATE UPDATE", "pods"), _rule("UPDATE", "pods/ephemeralcontainers")]
    return _policy(rules, checks, variables, _NOT_COLLECTED)


def _operator(account: Account) -> Object:
    """The operator's own account does what the operator does and nothing else, whoever holds its token."""
    own = _every_secret("object.spec.template.spec", lambda name: f"{name} in ['', variables.name]")
    owned = "object.metadata.?ownerReferences.orValue([])"
    kept = " && ".join(
        f"object.metadata.?{field}.orValue({empty}) == oldObject.metadata.?{field}.orValue({empty})"
        for field, empty in (("labels", "{}"), ("finalizers", "[]"), ("ownerReferences", "[]"))
    )
    notes = [f"{of}.metadata.?annotations.orValue({{}})" for of in ("object", "oldObject")]
    same_notes = " && ".join(
        f"{one}.all(k, k == {_text(LAST_APPLIED)} || (k in {other} && {one}[k] == {other}[k]))"
        for one, other in (notes, notes[::-1])
    )
    checks = [
        _check(
            "!(variables.kind == 'secrets' && request.operation == 'CREATE')"
            f" || (variables.ours && object.?type.orValue('') == {_text(SECRET_TYPE)} && object.?immutable.orValue(false)"
            f" && !has(object.metadata.finalizers) && size({owned}) == 1 && {owned}[0].kind == 'Job'"
            f" && {owned}[0].name == variables.name && {owned}[0].?controller.orValue(false))",
            f"the operator makes only Secrets of type {SECRET_TYPE} that are immutable and owned by the Job of their name",
        ),
        _check(
            "!(variables.kind == 'secrets' && request.operation == 'UPDATE')"
            f" || (variables.name == {_text(SEALING_KEYS)} && request.namespace == {_text(account.namespace)})",
            f"the operator changes no Secret but {SEALING_KEYS} in namespace {account.namespace}",
        ),
        _check(
            "!(variables.kind == 'secrets' && request.operation == 'DELETE')"
            f" || (variables.ours && oldObject.?type.orValue('') == {_text(SECRET_TYPE)})",
            f"the operator deletes only Secrets of type {SECRET_TYPE} whose names begin with rk-",
        ),
        _check(
            "!(variables.kind == 'secrets' && request.operation == 'DELETE')"
            " || (!request.?dryRun.orValue(false)"
            " && request.?options.?propagationPolicy.orValue('Background') == 'Background'"
            " && !has(request.options.orphanDependents))",
            "the operator deletes Secrets at once: a deletion that is tried out, or waits for dependents, would answer"
            " with the Secret",
        ),
        _check(
            "!(variables.kind == 'jobs' && request.operation == 'CREATE')"
            f" || (variables.ours && size({owned}) == 1 && {owned}[0].kind == 'WorkflowRun'"
            f" && {owned}[0].?controller.orValue(false) && {own})",
            "the operator makes only Jobs whose names begin with rk-, that belong to a WorkflowRun and refer to no"
            " Secret but that of their name",
        ),
        _check(
            "!(variables.kind == 'jobs' && request.operation != 'CREATE')"
            " || (request.operation == 'DELETE' && variables.ours)",
            "the operator changes no Job, and deletes only those whose names begin with rk-",
        ),
        _check(
            "!(variables.kind == 'workflowruns' && request.operation == 'UPDATE')"
            f" || (size({_changed(['sealedInput'])}) == 0 && {kept} && {same_notes})",
            "the operator changes nothing of a run but its status, and takes its sealedInput out",
        ),
        _check(
            "!(variables.kind == 'workflowruns' && request.operation == 'DELETE')"
            " || (has(oldObject.spec.ttlSecondsAfterFinished)"
            f" && oldObject.?status.?phase.orValue('') in {_list(FINAL_PHASES)})",
            "the operator deletes only runs that have ended and have ttlSecondsAfterFinished",
        ),
    ]
    variables = {
        "kind": "request.resource.resource",
        "subject_is": _SUBJECT_IS,
        "name": "variables.subject_is.metadata.name",
        "ours": f"variables.name.startsWith({_text(OBJECT_PREFIX)})",
    }
    rules = [
        _rule("CREATE UPDATE DELETE", "secrets"),
        _rule("CREATE UPDATE DELETE", "jobs", group="batch"),
        _ours("UPDATE DELETE", "workflowruns"),
    ]
    return _policy(rules, checks, variables, ("is-the-operator", f"{_WHO} == {_text(account.username)}"))


def _requester() -> Object:
    """Fills in who makes a run. A patch, since what was sent has to be replaced and not merged with."""
    groups = "request.userInfo.?groups.orValue([])"
    value = f"Object.spec.requester{{username: {_WHO}, groups: {groups}}}"
    expression = f'[JSONPatch{{op: "add", path: "/spec/requester", value: {value}}}]'
    return {
        "failurePolicy": "Fail",
        "matchConstraints": _match(_ours("CREATE", "workflowruns")),
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        "reinvocationPolicy": "IfNeeded",
    }


_VALIDATING: dict[str, Callable[[Account], Object]] = {
    "use": _runs_use,
    "frozen": _runs_frozen,
    "plaintext": _plaintext,
    "bindings": _bindings,
    "status": _status,
    "names": _names,
    "pods": _pods,
    "operator": _operator,
}


# files

HEADER = "# Generated from operator/runkeys/policies.py by `make policies`. Do not edit.\n"

_NAMESPACE, _NAME, _SERVED = "RELEASE-NAMESPACE", "ACCOUNT-NAME", "SERVED-NAMESPACE"
_SELECTOR = re.compile(r"( +)namespaceSelector:\n(?:\1 +.*\n|\1- .*\n)*?\1 +.*" + _SERVED + r"\n")


def plain_files(account: Account, namespaces: Sequence[str] = ()) -> dict[str, str]:
    """By name, the files of ``policies/``: those for every server, and those for servers since 1.36."""
    texts = {"validating.yaml": HEADER, "mutating.yaml": f"{HEADER}# For Kubernetes 1.36 and later.\n"}
    for item in build(account, namespaces):
        labelled = {**item, "metadata": {**item["metadata"], "labels": {"app.kubernetes.io/name": "runkeys"}}}
        texts["mutating.yaml" if _is_mutating(item) else "validating.yaml"] += f"---\n{_yaml(labelled)}"
    return texts


def chart_template() -> str:
    """The template of the chart: the same for the release's own account and the namespaces that it serves."""
    text = HEADER + "{{- if .Values.installPolicies }}\n"
    for item in build(Account.service_account(_NAMESPACE, _NAME), [_SERVED]):
        served_here = _SELECTOR.sub(
            lambda found: f'{found[1]}namespaceSelector:\n{found[1]}  {{{{- include "runkeys.served" $ | nindent {len(found[1]) + 2} }}}}\n',
            _yaml(item),
        )
        labels = '  labels:\n    {{- include "runkeys.labels" $ | nindent 4 }}\n'
        one = "---\n" + served_here.replace("\nspec:", f"\n{labels}spec:", 1)
        if _is_mutating(item):
            has = f'.Capabilities.APIVersions.Has "{API}/{MUTATING}"'
            one = f"{{{{- if {has} }}}}\n{one}{{{{- end }}}}\n"
        text += one
    text = text.replace(_NAMESPACE, "{{ $.Release.Namespace }}").replace(_NAME, '{{ include "runkeys.name" $ }}')
    return text + "{{- end }}\n"


def _is_mutating(item: Object) -> bool:
    return str(item["kind"]).startswith(MUTATING)


def _yaml(item: Object) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            del data
            return True

    text: str = yaml.dump(item, Dumper=Dumper, sort_keys=False, width=110, allow_unicode=True)
    return text


def main(arguments: list[str]) -> int:
    """Write ``policies/`` and the chart's template, or print the policies for another account."""
    match arguments:
        case ["write", folder, template]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            for name, text in plain_files(Account.service_account("runkeys-system", "runkeys")).items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            Path(template).write_text(chart_template(), encoding="utf-8")
        case ["print", username, namespace, *namespaces] if not username.startswith("-"):
            files = plain_files(Account(username, namespace), namespaces)
            sys.stdout.write("".join(files.values()))
        case _:
            sys.stderr.write(
                "usage: python -m runkeys.policies write FOLDER TEMPLATE\n"
                "       python -m runkeys.policies print USERNAME OPERATOR-NAMESPACE [SERVED-NAMESPACE...]\n"
            )
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
