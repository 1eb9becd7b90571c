"""Whether a run's requester may use the bindings that it names. Asked again before each Secret (I6).

The policy asks the same when the run is created. A right that was revoked since, or a run that was created while the
policy was missing, is noticed here. Personal bindings need no right: they are their owner's
(:mod:`runkeys.planning.access`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runkeys.api import WorkflowRun
from runkeys.api.run import Requester
from runkeys.planning.access import USE, grant, subject_of
from runkeys.planning.bindings import Bindings
from runkeys.planning.refusal import Reason, Refusal
from runkeys.planning.requirements import SecretReference
from runkeys_operator.kube import BINDINGS, Kube, Resource

LOCAL_REVIEWS = Resource("authorization.k8s.io", "v1", "localsubjectaccessreviews")


class Authorizer:
    """Asks the API server, every time."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def refusal(
        self, run: WorkflowRun, references: Sequence[SecretReference], bindings: Bindings
    ) -> Refusal | None:
        """Why the requester may not use one of the bindings that `references` are from; None if it may.

        :raises ApiError: if the API server could not be asked.
        """
        first: dict[str, SecretReference] = {}
        for reference in references:
            found = bindings.found.get(reference.binding)
            if found is not None and found.spec.owner is None:
                first.setdefault(reference.binding, reference)
        requester = run.spec.requester
        if not first:
            return None
        if requester is None:
            return Refusal(
                Reason.REQUESTER_UNKNOWN,
                next(iter(first.values())).field,
                "the run does not record who created it (spec.requester), so it is not known what it may use;"
                " create the run again",
                permanent=True,
            )
        namespace = run.metadata.namespace
        allowed = await asyncio.gather(*(self._may(namespace, requester, USE, name) for name in first))
        for (name, reference), may in zip(first.items(), allowed, strict=True):
            if not may:
                return Refusal(
                    Reason.USE_DENIED,
                    reference.field,
                    f"{requester.username}, who created the run, may not use SecretBinding {name}; an"
                    " administrator of the namespace can allow it:"
                    f" {grant(USE, namespace, name, subject_of(requester.username))}",
                    permanent=False,
                )
        return None

    async def denied(self, namespace: str, requester: Requester | None, verb: str, name: str) -> str | None:
        """Why the requester may not do ``verb`` with the binding, and the command that allows it; None if it may."""
        if requester is not None and await self._may(namespace, requester, verb, name):
            return None
        username = requester.username if requester is not None else "an unknown user"
        return (
            f"{username} may not {verb} SecretBinding {name}; an administrator of the namespace can allow it:"
            f" {grant(verb, namespace, name, subject_of(username))}"
        )

    async def _may(self, namespace: str, requester: Requester, verb: str, name: str) -> bool:
        body = {
            "metadata": {"namespace": namespace},
            "spec": {
                "user": requester.username,
                "groups": requester.groups,
                "resourceAttributes": {
                    "verb": verb,
                    "group": BINDINGS.group,
                    "version": BINDINGS.version,
                    "resource": BINDINGS.plural,
                    "namespace": namespace,
                    "name": name,
                },
            },
        }
        review = await self._kube.create(LOCAL_REVIEWS, namespace, body)
        return bool(review["status"].get("allowed"))
