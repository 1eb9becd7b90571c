"""Checks before anything starts that the cluster answers, serves Runkeys' kinds, and grants the operator's rights.

kopf would wait silently for missing kinds, and treat missing rights as temporary.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from runkeys.names import SIGNER
from runkeys.planning.requirements import NO_SUPPORT, SealedSupport
from runkeys_operator.checks.access_review import LOCAL_REVIEWS
from runkeys_operator.errors import (
    ApiError,
    NotFound,
    StartError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from runkeys_operator.kube import (
    BINDINGS,
    EVENTS,
    JOBS,
    LEASES,
    PODS,
    REQUESTS,
    REVEALS,
    RUNS,
    SECRETS,
    STORES,
    Json,
    Kube,
    Resource,
)
from runkeys_operator.kube.selectors import EXPIRES, LIVE, OPEN
from runkeys_operator.leader_election import LeaseName
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")

PATIENCE = 30.0
_BAD_REQUEST = 400
_PAUSE = 1.0

_RULES_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectrulesreviews")
_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
# Rules are only ever reviewed for a namespace. In one of this name nobody was given anything,
# so what holds in it holds in all.
_NO_NAMESPACE = "runkeys-no-such-namespace"


class Right(NamedTuple):
    """One verb on one kind, or on a subresource of it, or on one object of a `name`."""

    verb: str
    resource: Resource
    subresource: str = ""
    name: str = ""

    @property
    def kind(self) -> str:
        """What RBAC calls the resource: `workflowruns.runkeys.dev/status`, with the object's name if there is one."""
        kind = f"{self.resource}/{self.subresource}" if self.subresource else str(self.resource)
        return f"{kind} {self.name}".rstrip()


# What the chart grants in each namespace, apart from `get` on the Secrets that the namespace opts in.
NEEDED = (
    *(Right(verb, RUNS) for verb in ("get", "list", "watch", "patch", "delete")),
    Right("patch", RUNS, "status"),
    *(Right(verb, BINDINGS) for verb in ("get", "list", "watch")),
    Right("patch", BINDINGS, "status"),
    *(Right(verb, JOBS) for verb in ("get", "list", "watch", "create", "delete")),
    *(Right(verb, PODS) for verb in ("get", "list", "watch")),
    *(Right(verb, SECRETS) for verb in ("create", "delete")),
    *(Right(verb, EVENTS) for verb in ("create", "list")),
    Right("create", LOCAL_REVIEWS),
    *(Right(verb, REVEALS) for verb in ("get", "list", "watch", "delete")),
    Right("patch", REVEALS, "status"),
)


# With sealedDelivery.enabled besides. The right to sign is for the cluster as a whole.
NEEDED_SEALED = (
    *(Right(verb, REQUESTS) for verb in ("list", "watch", "delete")),
    Right("patch", REQUESTS, "status"),
)


# With stores.enabled besides, for the cluster as a whole. Requests for tokens are granted by each namespace.
NEEDED_STORES = (
    *(Right(verb, STORES) for verb in ("get", "list", "watch")),
    Right("patch", STORES, "status"),
)


async def store_audiences(kube: Kube, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of which tokens are requested: none if the operator may not read SecretStores; said once, here."""
    missing = await _patiently(lambda: _missing(kube, None, NEEDED_STORES)) if wanted else []
    if missing:
        log.error("SecretStores are not read: %s", _refusal(None, missing))
        return ()
    return wanted


async def sealed_support(kube: Kube, wanted: SealedSupport, namespaces: tuple[str, ...]) -> SealedSupport:
    """Whether this operator and this cluster can deliver sealed; said once here, and to each run that asks for it.

    Raises StartError after half a minute without an answer.
    """
    if not wanted.image:
        return NO_SUPPORT
    problem = await _patiently(lambda: _no_sealed_delivery(kube, namespaces))
    if problem:
        log.error("sealed delivery is not available: %s", problem)
        return SealedSupport(problem=problem)
    log.info("sealed delivery is available")
    return wanted


async def _no_sealed_delivery(kube: Kube, namespaces: tuple[str, ...]) -> str:
    """Why nothing can be delivered sealed; empty if it can."""
    try:
        served = {entry["name"] for entry in await kube.discover(REQUESTS)}
    except NotFound:
        served = set()
    if not {REQUESTS.plural, f"{REQUESTS.plural}/status"} <= served:
        return (
            f"the API server does not serve {REQUESTS} in {REQUESTS.version}, which requires Kubernetes 1.37 or"
            " later with the feature gate PodCertificateRequest on"
        )
    for namespace in namespaces or (None,):
        missing = await _missing(kube, namespace, NEEDED_SEALED)
        if missing:
            return _refusal(namespace, missing)
    if not await _may_sign(kube):
        return f"the operator may not sign for {SIGNER} (see the chart's ClusterRole for sealed delivery)"
    return ""


async def _may_sign(kube: Kube) -> bool:
    attributes = {"verb": "sign", "group": REQUESTS.group, "resource": "signers", "name": SIGNER}
    review = await kube.create(_ACCESS_REVIEWS, None, {"spec": {"resourceAttributes": attributes}})
    return bool(review["status"].get("allowed"))


def rights_on(lease: LeaseName) -> tuple[Right, ...]:
    """The operator's rights on its Lease, in the Lease's namespace."""
    named = (Right(verb, LEASES, name=lease.name) for verb in ("get", "update"))
    return (Right("create", LEASES), *named)


async def check(
    kube: Kube,
    namespaces: tuple[str, ...],
    lease: LeaseName | None = None,
    patience: float = PATIENCE,
) -> tuple[str, ...]:
    """The namespaces that can be served; `()`: all. Raises StartError after `patience` seconds of trying.

    A namespace without the rights does not keep the others waiting: it is named in the log and left out,
    as long as there is one with them.
    """

    async def look() -> tuple[str, ...]:
        await _check_kinds(kube)
        served = await _check_rights(kube, namespaces)
        if lease is not None and (missing := await _missing(kube, lease.namespace, rights_on(lease))):
            raise StartError(_refusal(lease.namespace, missing))
        await _check_fields(kube, served)
        return served

    return await _patiently(look, patience)


async def _patiently(look: Callable[[], Awaitable[Result]], patience: float = PATIENCE) -> Result:
    """What `look` returns, called each second until it raises nothing. Raises StartError after `patience` seconds."""
    until = asyncio.get_running_loop().time() + patience
    told = False
    while True:
        try:
            return await look()
        except (ApiError, StartError) as error:
            problem = _explained(error)
        if asyncio.get_running_loop().time() >= until:
            raise StartError(problem)
        if not told:
            log.warning("not ready to start, trying for %.0f s: %s", patience, problem)
            told = True
        await asyncio.sleep(_PAUSE)


def _explained(error: ApiError | StartError) -> str:
    if isinstance(error, Unreachable):
        return f"the API server cannot be reached: {error.message}"
    if isinstance(error, Unauthorized):
        return f"the API server refuses the operator's credentials: {error}"
    return str(error)


async def _check_kinds(kube: Kube) -> None:
    try:
        served = {entry["name"] for entry in await kube.discover(RUNS)}
    except NotFound:
        served = set()
    if not {RUNS.plural, f"{RUNS.plural}/status", BINDINGS.plural, REVEALS.plural, STORES.plural} <= served:
        raise StartError(f"the CRDs of {RUNS.group}/{RUNS.version} are not installed: kubectl apply -f crds/")


async def _check_fields(kube: Kube, namespaces: tuple[str, ...]) -> None:
    """Older CRDs cannot select unfinished runs, and a watch would only fail for ever."""
    for namespace in namespaces[:1] or (None,):
        try:
            async for _ in kube.pages(RUNS, namespace, field_selector=f"{OPEN},{LIVE},{EXPIRES}"):
                return
        except TooManyRequests:
            return  # a kind that was just made is not served yet, and is not of an earlier version
        except ApiError as error:
            if error.status == _BAD_REQUEST:
                raise StartError(
                    f"the CRDs of {RUNS.group}/{RUNS.version} are of an earlier version: kubectl apply -f crds/"
                ) from None
            raise


async def _check_rights(kube: Kube, namespaces: tuple[str, ...]) -> tuple[str, ...]:
    missing = {namespace: await _missing(kube, namespace, NEEDED) for namespace in namespaces or (None,)}
    problems = [_refusal(namespace, rights) for namespace, rights in missing.items() if rights]
    served = tuple(namespace for namespace in namespaces if not missing[namespace])
    if len(problems) == len(missing):
        raise StartError(". ".join(problems))
    for problem in problems:
        log.error("%s. It is not served until the operator is started again", problem)
    return served


def _refusal(namespace: str | None, missing: list[Right]) -> str:
    where = f"in namespace {namespace}" if namespace else "in all namespaces"
    verbs: dict[str, list[str]] = {}
    for right in missing:
        verbs.setdefault(right.kind, []).append(right.verb)
    lacks = "; ".join(f"{', '.join(listed)} {kind}" for kind, listed in verbs.items())
    return f"the operator lacks rights {where} (see the chart's roles): {lacks}"


async def _missing(kube: Kube, namespace: str | None, needed: tuple[Right, ...]) -> list[Right]:
    body = {"spec": {"namespace": namespace or _NO_NAMESPACE}}
    review = await kube.create(_RULES_REVIEWS, None, body)
    rules = review["status"].get("resourceRules") or []
    # Some authorizers cannot list their rules; they are asked about each one that is not listed.
    unlisted = [right for right in needed if not any(_grants(rule, right) for rule in rules)]
    return [right for right in unlisted if not await _allowed(kube, namespace, right)]


def _grants(rule: Json, right: Right) -> bool:
    resource = right.resource.plural + (f"/{right.subresource}" if right.subresource else "")
    return (
        (not rule.get("resourceNames") or right.name in rule["resourceNames"])
        and not {right.verb, "*"}.isdisjoint(rule.get("verbs") or ())
        and not {right.resource.group, "*"}.isdisjoint(rule.get("apiGroups") or ())
        and not {resource, "*"}.isdisjoint(rule.get("resources") or ())
    )


async def _allowed(kube: Kube, namespace: str | None, right: Right) -> bool:
    attributes = {
        "verb": right.verb,
        "group": right.resource.group,
        "version": right.resource.version,
        "resource": right.resource.plural,
        "subresource": right.subresource,
        "name": right.name,
        "namespace": namespace or "",
    }
    review = await kube.create(_ACCESS_REVIEWS, None, {"spec": {"resourceAttributes": attributes}})
    return bool(review["status"].get("allowed"))
