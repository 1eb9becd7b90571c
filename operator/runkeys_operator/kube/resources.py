"""The kinds that the operator uses, as the API's paths spell them."""

from __future__ import annotations

from dataclasses import dataclass

from runkeys.names import GROUP, VERSION


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the API's paths spell it."""

    group: str
    version: str
    plural: str

    @property
    def group_version(self) -> str:
        """As `apiVersion` has it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The group version's path: `/api/v1` or `/apis/<group>/<version>`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str | None) -> str:
        """The path to list and watch its objects; `namespace` None: all namespaces."""
        return (
            f"{self.root}/namespaces/{namespace}/{self.plural}" if namespace else f"{self.root}/{self.plural}"
        )

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


RUNS = Resource(GROUP, VERSION, "workflowruns")
BINDINGS = Resource(GROUP, VERSION, "secretbindings")
STORES = Resource(GROUP, VERSION, "secretstores")
REVEALS = Resource(GROUP, VERSION, "secretreveals")
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
SECRETS = Resource("", "v1", "secrets")
EVENTS = Resource("", "v1", "events")
REQUESTS = Resource("certificates.k8s.io", "v1", "podcertificaterequests")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
CONFIG_MAPS = Resource("", "v1", "configmaps")
