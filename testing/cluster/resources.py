"""The paths of kinds on the API server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """One kind, with the parts of its path on the API server."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """Return the path of one object, or without ``name`` of all (``namespace=None``: in every namespace)."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        within = ("namespaces", namespace) if self.namespaced and namespace else ()
        return root + "/".join(
            part for part in (self.api_version, *within, self.plural, name, subresource) if part
        )


def _table(api_version: str, kinds: dict[str, str], namespaced: bool = True) -> list[Resource]:
    return [Resource(api_version, kind, plural, namespaced) for kind, plural in kinds.items()]


KNOWN = (
    *_table(
        "v1", {"Namespace": "namespaces", "Node": "nodes", "PersistentVolume": "persistentvolumes"}, False
    ),
    *_table(
        "v1",
        {
            "Pod": "pods",
            "Secret": "secrets",
            "ConfigMap": "configmaps",
            "Event": "events",
            "Service": "services",
            "ServiceAccount": "serviceaccounts",
            "LimitRange": "limitranges",
            "ResourceQuota": "resourcequotas",
            "PersistentVolumeClaim": "persistentvolumeclaims",
        },
    ),
    *_table("batch/v1", {"Job": "jobs", "CronJob": "cronjobs"}),
    *_table("apps/v1", {"Deployment": "deployments", "ReplicaSet": "replicasets"}),
    *_table("rbac.authorization.k8s.io/v1", {"Role": "roles", "RoleBinding": "rolebindings"}),
    *_table(
        "rbac.authorization.k8s.io/v1",
        {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"},
        False,
    ),
    *_table("coordination.k8s.io/v1", {"Lease": "leases"}),
    *_table("certificates.k8s.io/v1", {"PodCertificateRequest": "podcertificaterequests"}),
    *_table("apiextensions.k8s.io/v1", {"CustomResourceDefinition": "customresourcedefinitions"}, False),
    *_table(
        "admissionregistration.k8s.io/v1",
        {
            "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
            "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
            "MutatingAdmissionPolicy": "mutatingadmissionpolicies",
            "MutatingAdmissionPolicyBinding": "mutatingadmissionpolicybindings",
        },
        False,
    ),
    *_table(
        "runkeys.dev/v1alpha1",
        {"WorkflowRun": "workflowruns", "SecretBinding": "secretbindings", "SecretReveal": "secretreveals"},
    ),
    *_table("argoproj.io/v1alpha1", {"Workflow": "workflows"}),
    *_table("tekton.dev/v1", {"TaskRun": "taskruns"}),
    *_table("jobset.x-k8s.io/v1alpha2", {"JobSet": "jobsets"}),
    *_table("runkeys.dev/v1alpha1", {"SecretStore": "secretstores"}, False),
)


def by_plural(plural: str) -> Resource:
    """Find a kind by its plural, such as ``jobs``.

    :raises KeyError: there is none.
    """
    for resource in KNOWN:
        if resource.plural == plural:
            return resource
    raise KeyError(f"{plural!r} is not in the table of resources.py")


def by_kind(api_version: str, kind: str) -> Resource:
    """Find a kind by ``apiVersion`` and ``kind`` of a manifest.

    :raises KeyError: there is none.
    """
    for resource in KNOWN:
        if (resource.api_version, resource.kind) == (api_version, kind):
            return resource
    raise KeyError(f"{api_version} {kind} is not in the table of resources.py")
