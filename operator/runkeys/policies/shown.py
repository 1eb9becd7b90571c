"""The policy on what the kubelet would show of a pod with a run's secrets; written from the list of these fields."""

from __future__ import annotations

from runkeys.api import GROUP
from runkeys.names import OBJECT_PREFIX
from runkeys.planning.kubelet import COPIED, EXPANDED, OURS, SECRETS_VOLUME, Copied
from runkeys.policies.account import Account
from runkeys.policies.cel import WHO, Object, check, listed, policy, rule, text
from runkeys.policies.shared import JOB_CONTROLLERS

_FROM_A_RUN = (
    "is-of-a-run",
    # Any other pod that refers to a run's Secret is refused: nobody has this policy go through a large pod of theirs.
    f"{WHO} in {listed(JOB_CONTROLLERS)} && object.metadata.?ownerReferences.orValue([]).exists(o, o.kind == 'Job'"
    f" && o.name.startsWith({text(OBJECT_PREFIX)}))",
)
_CARRIES = (
    f"(e.?valueFrom.?secretKeyRef.?name.orValue('').startsWith({text(OBJECT_PREFIX)})"
    f" || e.?valueFrom.?fileKeyRef.?volumeName.orValue('').startsWith({text(OURS)}))"
)
_CHANGED = (
    f"the WorkflowRun ({GROUP}) does not have it, so look for a mutating policy or webhook that changes pods of"
    " this namespace when they are created"
)


MOST_EXPANSIONS = 1000
"""In one text. To go through more takes the API server a time that grows with the square."""


def shown(_: Account) -> Object:
    """No field of a run's pod makes the kubelet show the run's secrets.

    Planning refuses these fields already. This is for what others make of the pod after that: a mutating policy, a
    webhook, somebody with the operator's token.
    """
    whole = check(
        "(object.spec.?initContainers.orValue([]) + object.spec.containers).all(c,"
        f" !c.?envFrom.orValue([]).exists(e, e.?secretRef.?name.orValue('').startsWith({text(OBJECT_PREFIX)})))",
        "a container may not get the Secret of a run with envFrom, under names that are not checked: Runkeys lists"
        f" each variable in env; {_CHANGED}",
    )
    checks = [*shown_checks(" of a run", _CHANGED), whole]
    return policy([rule("CREATE", "pods")], checks, shown_variables(), _FROM_A_RUN)


def shown_checks(of: str, advice: str) -> list[Object]:
    """The requirements on containers that have secrets.

    :param of: whose secrets, in words. :param advice: what to do about a container that breaks them.
    """
    checks = [
        check(
            f"variables.having.all(c, {_harmless(field)})",
            f"a container that has secrets{of} may not have {field.path}: {field.message}; {advice}",
        )
        for field in COPIED
    ]
    checks.append(
        check(
            f"variables.texts.all(c, c['texts'].all(t, size(t.split('$(')) <= {MOST_EXPANSIONS}"
            " && ('(' + t.replace('$$', '')).split('$(').all(p,"
            " !p.contains(')') || !(p.substring(0, p.indexOf(')')) in c['names']))))",
            f"{', '.join(EXPANDED)} of a container may not have $(NAME) of a variable that holds a secret{of}: others"
            f" would see its value; {advice}",
        )
    )
    return checks


def shown_variables() -> dict[str, str]:
    """What the requirements refer to."""
    texts = " + ".join(_texts(path) for path in EXPANDED)
    return {
        "having": "(object.spec.?initContainers.orValue([]) + object.spec.containers).filter(c,"
        f" c.?env.orValue([]).exists(e, {_CARRIES})"
        f" || c.?volumeMounts.orValue([]).exists(m, m.name == {text(SECRETS_VOLUME)}))",
        # Built once for each container: in the check itself it would be built again for each text.
        "texts": f"variables.having.map(c, {{'names': c.?env.orValue([]).filter(e, {_CARRIES}).map(e, e.name),"
        f" 'texts': ({texts}).filter(t, t.contains('$('))}})",
    }


def _harmless(field: Copied) -> str:
    if field.harmless:
        return f"c{_steps(field.path)}.orValue({text(field.harmless)}) in {listed(field.admitted)}"
    return f"!c{_steps(field.path)}.hasValue()"


def _texts(path: str) -> str:
    """CEL: all texts at a path like ``env[].value`` of the container ``c``."""
    items, _, rest = path.partition("[]")
    each = f".map(x, x{_steps(rest[1:])}.orValue(''))" if rest else ""
    return f"c{_steps(items)}.orValue([]){each}"


def _steps(path: str) -> str:
    return "".join(f".?{name}" for name in path.split("."))
