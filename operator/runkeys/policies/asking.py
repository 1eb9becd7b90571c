"""The policies on pods of any engine that ask for secrets by the label ``runkeys.dev/secrets: ask``.

The mutating one adds what delivers the values, and writes what was asked for, and by whom, into the pod's spec. The
validating one compares the pod with that, after all other admission. What the operator believes of such a pod is what
they admitted. Without the label no pod is touched.

Only JSONPatch can do it: an ApplyConfiguration may not change lists that are replaced as a whole, such as ``command``.
The types ``Object.…`` have no schema, so a misspelled field is found by a request and not when the policy is created.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runkeys.api import GROUP
from runkeys.names import (
    ASK,
    ASK_CONTAINERS,
    ASK_SEALED,
    ASK_VALUE,
    ENVIRONMENT_VOLUME,
    OBJECT_PREFIX,
    RECIPIENT_VOLUME,
    RUNTIME,
    SECRETS_VARIABLE,
    SIGNER,
    STAMP_ASKED,
    STAMP_CONTAINERS,
    STAMP_CREATED_BY,
    STAMP_SEALED,
    UNSEALER,
    is_reserved_variable,
)
from runkeys.planning import manifests
from runkeys.planning.access import USE
from runkeys.planning.asking_pod import (
    GRAMMAR,
    LONGEST_ASK,
    LONGEST_SEALED,
    MOST_BINDINGS,
    MOST_ENTRIES,
    MOST_PARAMETERS,
    SEALED_GRAMMAR,
)
from runkeys.planning.kubelet import SECRETS_VOLUME
from runkeys.planning.requirements import SealedSupport
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, filled, listed, match, policy, quoted, rule, text
from runkeys.policies.shared import GRANT, JOB_CONTROLLERS, NOT_COLLECTED, granted_by
from runkeys.policies.shown import shown_checks, shown_variables
from runkeys.sealing import unseal

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_VOLUMES = [RECIPIENT_VOLUME, ENVIRONMENT_VOLUME, SECRETS_VOLUME]
_LABEL = f"object.metadata.?labels[?{text(ASK)}]"
_CERTIFICATE = "s.?podCertificate.?signerName.orValue('') == " + text(SIGNER)
_HAS_SOURCE = f"v.?projected.?sources.orValue([]).exists(s, {_CERTIFICATE})"

# Planning and the other policies look at pods of runs, whose templates cannot have the label.
_NOT_OF_A_RUN = (
    f"!({WHO} in {listed(JOB_CONTROLLERS)} && object.metadata.?ownerReferences.orValue([]).exists(o, o.kind == 'Job'"
    f" && o.name.startsWith({text(OBJECT_PREFIX)})))"
)

_ASKED = {
    "asked": f"object.metadata.?annotations[?{text(ASK)}].orValue('')",
    "sealed": f"object.metadata.?annotations[?{text(ASK_SEALED)}].orValue('')",
    "parameters": f"size(variables.sealed) > {LONGEST_SEALED} || variables.sealed.trim() == '' ? []"
    " : variables.sealed.split(',').map(e, e.trim())",
    # A parameter is called as what carries it.
    "brought": "variables.parameters.map(p, p.split('=')[0])",
    # More is not looked at, and refused: to split it would cost more than a policy has.
    "entries": f"size(variables.asked) > {LONGEST_ASK} || (variables.asked.trim() == '' && variables.sealed != '')"
    " ? [] : variables.asked.split(',').map(e, e.trim())",
    # Step by step the variable of each entry, as runkeys.names.secret_variable has it: each with the entry before it.
    "keys": "variables.entries.map(e, [e, e.split('@')[0].split('=')[0].split('/')"
    "[size(e.split('@')[0].split('=')[0].split('/')) - 1]])",
    "plain": "variables.keys.map(k, [k[0], k[1], k[1].split('').map(c,"
    " c.matches('^[A-Za-z0-9_]$') ? c : '_').join('')])",
    "upper": "variables.plain.map(p, [p[0], p[1], p[2] == p[2].upperAscii() ? p[2] : (p[2].substring(0, 1)"
    " + p[2].substring(1).split('').map(c, c.matches('^[A-Z]$') ? '_' + c : c).join('')).upperAscii()])",
    "carriers": "variables.upper.map(u, [u[0], u[1], u[0].contains('@') ? '' : u[0].contains('=')"
    " ? u[0].split('=', 2)[1] : 'SECRET_' + u[2]])",
    "names": "variables.carriers.map(c, c[2]).filter(n, n != '') + variables.brought.filter(b, !b.startsWith('@'))",
    "files": "variables.entries.filter(e, e.contains('@')).map(e, e.split('@', 2)[1])"
    " + variables.brought.filter(b, b.startsWith('@')).map(b, b.substring(1))",
}


def inject(support: SealedSupport) -> Object:
    """Adds to a pod that asks what delivers the values, once; a pod that brings the volume itself is refused later."""
    variables = {
        **_ASKED,
        "wanted": f"object.metadata.?annotations[?{text(ASK_CONTAINERS)}]"
        f".or(object.metadata.?annotations[?{text(_DEFAULT_CONTAINER)}])"
        ".orValue(size(object.spec.containers) == 1 ? object.spec.containers[0].name : '')"
        ".split(',').map(n, n.trim()).filter(n, n != '')",
        # What code that uses the SDK asks for is an entry; this says what carries it.
        "carried": "'{' + (variables.carriers.map(c, '\"' + c[1] + '\":\"' + (c[2] == '' ? 'file:'"
        " + c[0].split('@', 2)[1] : c[2]) + '\"') + variables.brought.map(b, b.startsWith('@') ? '\"' + b.substring(1)"
        " + '\":\"file:' + b.substring(1) + '\"' : '\"' + b + '\":\"' + b + '\"')).join(',') + '}'",
    }
    certificate = manifests.certificate_source() | {
        "userAnnotations": _Map(
            {
                STAMP_ASKED: _Cel("variables.asked"),
                STAMP_SEALED: _Cel("variables.sealed"),
                STAMP_CONTAINERS: _Cel("variables.wanted.join(',')"),
                STAMP_CREATED_BY: _Cel(WHO),
            }
        )
    }
    memory = {"medium": "Memory", "sizeLimit": "1Mi"}
    recipient = {"name": RECIPIENT_VOLUME, "projected": {"sources": [{"podCertificate": certificate}]}}
    environment = {"name": ENVIRONMENT_VOLUME, "emptyDir": memory}
    files = {"name": SECRETS_VOLUME, "emptyDir": memory}
    unsealers = [
        _typed("Object.spec.initContainers", _unsealer(support, files=with_files))
        for with_files in (True, False)
    ]
    reference = {
        "name": _Cel("n"),
        "valueFrom": {
            "fileKeyRef": {
                "volumeName": ENVIRONMENT_VOLUME,
                "path": unseal.ENVIRONMENT.rpartition("/")[2],
                "key": _Cel("n"),
                "optional": False,
            }
        },
    }
    mount = {"name": SECRETS_VOLUME, "mountPath": f"{RUNTIME}/secrets", "readOnly": True}
    about = {"name": SECRETS_VARIABLE, "value": _Cel("variables.carried")}
    to_volumes, first = text("/spec/volumes/-"), text("/spec/initContainers/0")
    env_there, volumes_there = _add(_of_container("env"), "[]"), _add(_of_container("volumeMounts"), "[]")
    env, mounts = _of_container("env/-"), _of_container("volumeMounts/-")
    steps = [
        _present("spec.volumes"),
        f"[{_add(to_volumes, _typed('Object.spec.volumes', recipient))},"
        f" {_add(to_volumes, _typed('Object.spec.volumes', environment))}]",
        f"(size(variables.files) == 0 ? [] : [{_add(to_volumes, _typed('Object.spec.volumes', files))}])",
        _present("spec.initContainers"),
        f"[{_add(first, f'size(variables.files) > 0 ? {unsealers[0]} : {unsealers[1]}')}]",
        "object.spec.containers.transformList(i, c, c.name in variables.wanted,"
        f" (has(c.env) ? [] : [{env_there}])"
        f" + [{_add(env, _typed('Object.spec.containers.env', about))}]"
        f" + variables.names.map(n, {_add(env, _typed('Object.spec.containers.env', reference))})"
        f" + (size(variables.files) == 0 ? [] : (has(c.volumeMounts) ? [] : [{volumes_there}])"
        f" + [{_add(mounts, _typed('Object.spec.containers.volumeMounts', mount))}])"
        ").flatten()",
    ]
    return {
        "failurePolicy": "Fail",
        # Another policy may add containers after this one; the condition keeps it from adding things twice.
        "reinvocationPolicy": "IfNeeded",
        "matchConstraints": {
            **match(rule("CREATE", "pods")),
            "objectSelector": {"matchLabels": {ASK: ASK_VALUE}},
        },
        "matchConditions": [
            {
                "name": "is-not-done-yet",
                "expression": f"!object.spec.?volumes.orValue([]).exists(v, v.name == {text(RECIPIENT_VOLUME)})",
            }
        ],
        "variables": [{"name": name, "expression": expression} for name, expression in variables.items()],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": " + ".join(steps)}}],
    }


def asking(account: Account, support: SealedSupport) -> Object:
    """A pod that asks is as the mutating policy makes it, asks by itself, and its account may use what it asks for.

    It is for every pod with the label, with a volume of Runkeys or with its signer.
    """
    del account
    opener = _unsealer(support, files=False)
    mounts = [f"{item['name']}:{item['mountPath']}" for item in opener["volumeMounts"]]
    file_mount = f"{SECRETS_VOLUME}:{unseal.FILES}"
    fields = [f"{item['name']}={item['valueFrom']['fieldRef']['fieldPath']}" for item in opener["env"]]
    first = "v.projected.sources[0].?podCertificate"
    stamp = f"{first}.?userAnnotations"
    certificate = manifests.certificate_source()
    variables = {
        **_ASKED,
        **_each_binding(),
        "holders": f"object.spec.?volumes.orValue([]).filter(v, {_HAS_SOURCE})",
        "sources": "variables.holders.map(v, [string(v.name), string(size(v.projected.sources)),"
        f" string({first}.?keyType.orValue('')), string({first}.?credentialBundlePath.orValue('')),"
        f" string({stamp}[?{text(STAMP_ASKED)}].orValue('')), string({stamp}[?{text(STAMP_CREATED_BY)}].orValue('')),"
        f" string(size({stamp}.orValue({{}}))), string({stamp}[?{text(STAMP_CONTAINERS)}].orValue('')),"
        f" string({stamp}[?{text(STAMP_SEALED)}].orValue(''))])",
        # As it was when the pod was stamped: other policies may have added containers since.
        "wanted": "size(variables.sources) == 1 ? variables.sources[0][7].split(',').filter(n, n != '') : []",
        "openers": f"object.spec.?initContainers.orValue([]).filter(c, c.name == {text(UNSEALER)})",
        "others": "object.spec.containers + object.spec.?initContainers.orValue([])"
        f".filter(c, c.name != {text(UNSEALER)})",
        "account": "authorizer.serviceAccount(request.namespace, object.spec.serviceAccountName)",
        "username": "'system:serviceaccount:' + request.namespace + ':' + object.spec.serviceAccountName",
        "subject": "'--serviceaccount=' + "
        + quoted("(request.namespace + ':' + object.spec.serviceAccountName)"),
    }
    reserved = " || ".join(
        ["n == 'PATH'", *(f"n.startsWith({text(prefix)})" for prefix in ("LD_", "KUBERNETES_", "PYTHON"))]
    )
    if not all(is_reserved_variable(name) for name in ("PATH", "LD_X", "KUBERNETES_X", "PYTHON_X")):
        raise AssertionError("the policy and runkeys.names disagree")
    wanted_here = "c.name in variables.wanted"
    checks = [
        check(
            f"{_LABEL}.orValue('') == {text(ASK_VALUE)}",
            f"the pod has the label {ASK} with another value than {ASK_VALUE}, or a volume or signer of Runkeys without"
            f" the label; set {ASK}: {ASK_VALUE} and the annotation of that name, and leave the rest out",
        ),
        check(
            f"size(variables.asked) <= {LONGEST_ASK}"
            " && (size(variables.entries) > 0 || size(variables.parameters) > 0)"
            f" && size(variables.entries) <= {MOST_ENTRIES} && size(variables.more{MOST_BINDINGS}) == 0"
            f" && variables.entries.all(e, e.matches({text(GRAMMAR)}))",
            f"annotation {ASK} must list what the pod asks for, separated by commas, as binding/entry,"
            f" binding/entry=VARIABLE or binding/entry@file; at most {MOST_ENTRIES} entries of {MOST_BINDINGS}"
            f" SecretBindings in {LONGEST_ASK} characters",
            filled(
                f"annotation {ASK} must list what the pod asks for, separated by commas, as binding/entry,"
                f" binding/entry=VARIABLE or binding/entry@file; at most {MOST_ENTRIES} entries of {MOST_BINDINGS}"
                f" SecretBindings in {LONGEST_ASK} characters; found <found>",
                found="(variables.asked == '' ? 'nothing' : 'entry ' + string(variables.entries.map(e, e.matches("
                f"{text(GRAMMAR)})).indexOf(false) + 1) + ' of ' + string(size(variables.entries)) + ' to differ')",
            ),
        ),
        check(
            f"size(variables.sealed) <= {LONGEST_SEALED} && size(variables.parameters) <= {MOST_PARAMETERS}"
            f" && variables.parameters.all(p, p.matches({text(SEALED_GRAMMAR)}))",
            f"annotation {ASK_SEALED} must list sealed parameters, separated by commas, as VARIABLE=rk1.… or"
            f" @file=rk1.…; at most {MOST_PARAMETERS} in {LONGEST_SEALED} characters; seal them with:"
            " runkeys seal --for-pods",
        ),
        check(
            "variables.names.all(n, variables.names.filter(m, m == n).size() == 1)"
            " && variables.files.all(f, variables.files.filter(g, g == f).size() == 1)"
            f" && variables.names.all(n, !({reserved}))",
            f"annotation {ASK} or {ASK_SEALED} gives two secrets the same variable or file, or a variable that decides"
            " which program runs (PATH, LD_*, KUBERNETES_*, PYTHON*); give one of them another name:"
            " binding/entry=VARIABLE",
        ),
        check(
            "size(variables.sources) == 1",
            "the pod must ask Runkeys for exactly one certificate, and after admission it does not: this Kubernetes"
            " lacks PodCertificateRequest (1.37 and later have it) or MutatingAdmissionPolicy (1.36 and later), or the"
            f" pod brings the volume {RECIPIENT_VOLUME} itself; leave it out",
        ),
        check(
            "variables.sources.all(s, s == ["
            f"{text(RECIPIENT_VOLUME)}, '1', {text(certificate['keyType'])},"
            f" {text(certificate['credentialBundlePath'])},"
            f" variables.asked, {WHO}, '4', s[7], variables.sealed]"
            f" && s[7] == object.metadata.?annotations[?{text(ASK_CONTAINERS)}].orValue(s[7])"
            ".split(',').map(n, n.trim()).filter(n, n != '').join(','))",
            f"the certificate source in volume {RECIPIENT_VOLUME} is not the one that admission adds for this request;"
            " leave the volume out",
        ),
        check(
            f"size(variables.openers) == 1 && variables.openers.all(c, c.image == {text(support.image)}"
            f" && c.command == {listed(opener['command'])} && !has(c.args) && !has(c.lifecycle) && !has(c.envFrom)"
            " && !has(c.restartPolicy) && !has(c.workingDir) && !has(c.volumeDevices)"
            f" && c.env.map(e, e.name + '=' + e.?valueFrom.?fieldRef.?fieldPath.orValue('')) == {listed(fields)}"
            f" && c.volumeMounts.map(m, m.name + ':' + m.mountPath) == {listed(mounts)}"
            f" + (size(variables.files) > 0 ? {listed([file_mount])} : []))",
            f"the init container {UNSEALER} is not the one that admission adds; leave it out, and have policies and"
            " webhooks of the cluster leave it as it is",
        ),
        check(
            f"object.spec.?volumes.orValue([]).all(v, !(v.name in {listed(_VOLUMES[1:])})"
            " || v.?emptyDir.?medium.orValue('') == 'Memory')",
            f"the volumes {' and '.join(_VOLUMES[1:])} are in memory; leave them out, since admission adds them",
        ),
        check(
            f"variables.others.all(c, c.?volumeMounts.orValue([]).all(m, !(m.name in {listed(_VOLUMES)})"
            f" || (m.name == {text(SECRETS_VOLUME)} && {wanted_here} && m.mountPath == {text(f'{RUNTIME}/secrets')}"
            " && m.?readOnly.orValue(false)))"
            f" && c.?volumeDevices.orValue([]).all(m, !(m.name in {listed(_VOLUMES)})))",
            f"only Runkeys mounts the volumes {', '.join(_VOLUMES)}; remove these mounts",
        ),
        check(
            "size(variables.sources) != 1 || size(variables.wanted) > 0",
            f"the pod has several containers: name those that get the secrets in annotation {ASK_CONTAINERS}",
        ),
        check(
            "variables.wanted.all(n, object.spec.containers.exists(c, c.name == n))",
            f"a container that gets the secrets (annotation {ASK_CONTAINERS}) is not under spec.containers",
            filled(
                f"no container under spec.containers is called <missing> (annotation {ASK_CONTAINERS})",
                missing="variables.wanted.filter(n, !object.spec.containers.exists(c, c.name == n)).join(', ')",
            ),
        ),
        check(
            # Every reference to the file of variables is one that was asked for, and none is missing.
            "variables.others.all(c, c.?env.orValue([]).filter(e,"
            f" e.?valueFrom.?fileKeyRef.?volumeName.orValue('') in {listed(_VOLUMES)})"
            f".map(e, e.name + '=' + e.valueFrom.fileKeyRef.key) == ({wanted_here}"
            " ? variables.names.map(n, n + '=' + n) : []))"
            f" && object.spec.containers.all(c, !({wanted_here})"
            " || variables.names.all(n, c.env.filter(e, e.name == n).size() == 1))",
            "a container sets a variable itself that is to carry a secret, or reads the secrets otherwise than it was"
            f" asked for; remove it, or choose another name in annotation {ASK}: binding/entry=VARIABLE",
        ),
        check(
            "!(object.spec.?hostPID.orValue(false) || object.spec.?shareProcessNamespace.orValue(false))"
            f" || variables.others.all(c, {wanted_here})",
            "hostPID and shareProcessNamespace let the other containers read the secrets from processes; remove them,"
            f" or name all containers in annotation {ASK_CONTAINERS}",
        ),
        *(_may_use(index) for index in range(MOST_BINDINGS)),
    ]
    condition = (
        "concerns-secrets",
        f"{_NOT_OF_A_RUN} && ({_LABEL}.hasValue() || object.spec.?volumes.orValue([]).exists(v,"
        f" v.name in {listed(_VOLUMES)} || {_HAS_SOURCE}))",
    )
    return policy([rule("CREATE", "pods")], checks, variables, condition)


def _each_binding() -> dict[str, str]:
    """Each binding that is asked for, once, in a variable of its own; '' where there are no more.

    Kubernetes 1.34 does not know ``distinct`` in a policy that is created there.
    """
    found = {"more0": "variables.entries.map(e, e.split('/')[0])"}
    for index in range(MOST_BINDINGS):
        more, one = f"variables.more{index}", f"variables.binding{index}"
        found[f"binding{index}"] = f"size({more}) > 0 ? {more}[0] : ''"
        found[f"more{index + 1}"] = f"{more}.filter(b, b != {one})"
    return found


def _may_use(index: int) -> Object:
    name = f"variables.binding{index}"
    return check(
        f"{name} == '' || variables.account.group({text(GROUP)}).resource('secretbindings')"
        f".namespace(request.namespace).name({name}).check({text(USE)}).allowed()",
        f"the pod's service account may not use SecretBinding number {index + 1} of annotation {ASK}",
        filled(
            "service account <account> may not use SecretBinding <binding>; an administrator of the namespace can allow"
            f" it: {GRANT}",
            account="object.spec.serviceAccountName",
            **granted_by(USE, name),
        ),
    )


def asking_shown(account: Account) -> Object:
    """No field of a pod that asks makes the kubelet show its secrets."""
    del account
    condition = ("asks", f"{_LABEL}.orValue('') == {text(ASK_VALUE)}")
    advice = "remove it, or give the secrets to another container"
    return policy([rule("CREATE", "pods")], shown_checks("", advice), shown_variables(), condition)


def asking_frozen(account: Account) -> Object:
    """What a pod asks for stays as it was admitted, and so do its images, which a binding admitted."""
    del account
    notes = [
        f"object.metadata.?annotations[?{text(key)}] == oldObject.metadata.?annotations[?{text(key)}]"
        for key in (ASK, ASK_SEALED, ASK_CONTAINERS)
    ]
    images = " && ".join(
        f"object.spec.?{field}.orValue([]).map(c, c.image) == oldObject.spec.?{field}.orValue([]).map(c, c.image)"
        for field in ("containers", "initContainers")
    )
    checks = [
        check(
            f"{_LABEL} == oldObject.metadata.?labels[?{text(ASK)}]",
            f"the label {ASK} counts when a pod is created, and cannot be changed; create another pod",
        ),
        check(
            " && ".join(notes),
            f"the annotations {ASK}, {ASK_SEALED} and {ASK_CONTAINERS} count when a pod is created, and cannot be"
            " changed; create another pod",
        ),
        check(
            images,
            "the images of a pod that asks for secrets are those that its bindings admitted, and cannot be changed;"
            " create another pod",
        ),
    ]
    condition = (
        "asks",
        f"[object, oldObject].exists(o, o.metadata.?labels[?{text(ASK)}].hasValue()) && ({NOT_COLLECTED[1]})",
    )
    rules = [rule("UPDATE", "pods", "pods/status")]
    return policy(rules, checks, None, condition)


def _unsealer(support: SealedSupport, *, files: bool) -> dict[str, Any]:
    """The unseal container of a pod that is not of a run."""
    container = manifests.unseal_container(support, files=files)
    container["resources"] = _Cel(resources_cel(support.resources))
    # Over the token that the API server mounts into every container that has no mount there.
    over_token = {
        "name": ENVIRONMENT_VOLUME,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
        "readOnly": True,
    }
    mounts = container["volumeMounts"]
    container["volumeMounts"] = [*mounts[:2], over_token, *mounts[2:]]
    container["securityContext"]["runAsUser"] = 65532
    return container


RESOURCES = "Object.spec.initContainers.resources"


def resources_cel(resources: Mapping[str, Mapping[str, str]]) -> str:
    """CEL: the resources of the unseal container, as the chart's helper ``runkeys.unsealResources`` writes them."""
    kinds = []
    for kind, amounts in sorted(resources.items()):
        parts = [f"{_quoted(name)}: {_quoted(str(amount))}" for name, amount in sorted(amounts.items())]
        kinds.append(f"{kind}: {{{', '.join(parts)}}}")
    return f"{RESOURCES}{{{', '.join(kinds)}}}"


def _quoted(word: str) -> str:
    return json.dumps(word)


class _Cel(str):
    """A text of CEL in an object that is otherwise as written."""

    __slots__ = ()


class _Map(dict[str, Any]):
    """A map, and no object with fields."""


def _typed(kind: str, value: Any) -> str:
    """CEL: a value as an object of Kubernetes' types, such as ``Object.spec.volumes``."""
    if isinstance(value, _Cel):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return f"[{', '.join(_typed(kind, item) for item in value)}]"
    if isinstance(value, _Map):
        return "{" + ", ".join(f"{text(key)}: {_typed('', item)}" for key, item in value.items()) + "}"
    fields = ", ".join(f"{key}: {_typed(f'{kind}.{key}', item)}" for key, item in value.items())
    return f"{kind}{{{fields}}}"


def _add(path: str, value: str) -> str:
    return f'JSONPatch{{op: "add", path: {path}, value: {value}}}'


def _of_container(field: str) -> str:
    """CEL: a path below the container number ``i``."""
    return f"'/spec/containers/' + string(i) + {text('/' + field)}"


def _present(path: str) -> str:
    """CEL: the list at a path is there, empty if it was not."""
    return f"(has(object.{path}) ? [] : [{_add(text('/' + path.replace('.', '/')), '[]')}])"
