"""A namespace to measure in, with an operator that has the chart's rights, and runs to make there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runkeys.api import SecretBinding, WorkflowRun
from runkeys.planning import manifests
from runkeys.planning.bindings import Bindings
from runkeys.planning.requirements import TaskRequirements, task_requirements
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team, binding, make_namespace, team_in

_LONGEST = 300.0


@contextmanager
def team(
    node: NodeCluster, hint: str, *arguments: str, clean_up: bool = False, sets: tuple[str, ...] = ()
) -> Iterator[Team]:
    """A fresh namespace with a source and a binding; its operator is not started yet, and ended afterwards.

    :param arguments: of the operator. :param tidy: remove the namespace afterwards and wait until it is gone, so that
        nothing of it is still being done while something else is measured. :param sets: values of the chart.
    """
    namespace = make_namespace(node.client, hint)
    with team_in(node, namespace, node.scratch, "--log-level", "info", *arguments, sets=sets) as made:
        made.make_source()
        made.make_binding()
        yield made
    if clean_up:
        node.client.delete("namespaces", namespace)
        node.client.wait_gone("namespaces", namespace, None, _LONGEST)


def anybody(made: Team) -> Path:
    """A kubeconfig of an account that may do everything in the namespace, and is not the operator's."""
    account, path = "anybody", made.cluster.scratch / f"{made.namespace}-anybody.kubeconfig"
    if not path.exists():
        metadata = {"name": account, "namespace": made.namespace}
        made.client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        api = "rbac.authorization.k8s.io"
        made.client.create(
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": "admin"},
                "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": made.namespace}],
            }
        )
        made.cluster.kubeconfig_for(made.client.token(made.namespace, account), path)
    return path


def job_of(run: Object) -> dict[str, Any]:
    """Return the Job that the operator creates for ``run``, for a program that takes the operator's place."""
    offered = SecretBinding.parse(binding(run["metadata"]["namespace"]))
    parsed = WorkflowRun.parse(run)
    requirements = task_requirements(parsed, 0, Bindings({"keys": offered}, {}))
    if not isinstance(requirements, TaskRequirements):
        raise TypeError(f"the run would be refused: {requirements[0]}")
    return manifests.job(parsed, 0, 1, requirements)
