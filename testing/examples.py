"""The shipped examples, adapted to a test cluster only in namespace, image and the operator's account."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from testing.cluster.cache import CHECKOUT
from testing.cluster.client import Object
from testing.cluster.images import TASK_IMAGE

EXAMPLES = CHECKOUT / "examples"
SOURCE = "hello-token"
BINDING = "hello"


def _load(path: str, namespace: str) -> list[Object]:
    manifests: list[Object] = [item for item in yaml.safe_load_all((EXAMPLES / path).read_text()) if item]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    return manifests


def source_secret(namespace: str, value: str) -> Object:
    """Return the Secret that users create according to examples/hello/README.md."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SOURCE, "namespace": namespace},
        "stringData": {"token": value},
    }


def source_role(namespace: str, account: str, account_namespace: str) -> list[Object]:
    """Return Role and RoleBinding that let the operator's account read that Secret."""
    role, binding = _load("source-role.yaml", namespace)
    binding["subjects"][0] |= {"name": account, "namespace": account_namespace}
    return [role, binding]


def hello_binding(namespace: str) -> Object:
    """Return the binding of examples/hello, with the image that every test cluster has."""
    [binding] = _load("hello/binding.yaml", namespace)
    [rule] = binding["spec"]["access"]
    rule["images"] = [TASK_IMAGE.replace(":1", ":*")]
    return binding


def hello_run(namespace: str, name: str = "hello", command: list[str] | None = None) -> Object:
    """Return the run of examples/hello with that image, and with another command if one is given."""
    [run] = _load("hello/run.yaml", namespace)
    run["metadata"]["name"] = name
    container: dict[str, Any] = run["spec"]["tasks"][0]["template"]["spec"]["containers"][0]
    container["image"] = TASK_IMAGE
    if command is not None:
        container["command"] = command
    return run


def sealed_delivery(namespace: str) -> tuple[Object, Object]:
    """Return binding and run of examples/sealed-delivery, with the image that every test cluster has."""
    [binding] = _load("sealed-delivery/binding.yaml", namespace)
    [rule] = binding["spec"]["access"]
    rule["images"] = [TASK_IMAGE.replace(":1", ":*")]
    [run] = _load("sealed-delivery/run.yaml", namespace)
    run["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"] = TASK_IMAGE
    return binding, run


def stores(namespace: str, account: str, found: Object) -> list[Object]:
    """Return all objects of examples/stores and examples/store-role.yaml, in the order of its README.

    :param found: a SecretStore, for name, address and certificate of the server.
    """
    [store] = _load("stores/store.yaml", namespace)
    del store["metadata"]["namespace"]
    store["metadata"]["name"] = found["metadata"]["name"]
    store["spec"]["vault"] |= {key: found["spec"]["vault"][key] for key in ("address", "caBundle")}
    role, bound = _load("store-role.yaml", namespace)
    bound["subjects"][0] |= {"name": account, "namespace": namespace}
    [runner] = _load("stores/account.yaml", namespace)
    [binding] = _load("stores/binding.yaml", namespace)
    binding["spec"]["secrets"][0]["value"]["store"] = found["metadata"]["name"]
    [run] = _load("stores/run.yaml", namespace)
    run["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"] = TASK_IMAGE
    return [store, role, bound, runner, binding, run]


def cloud_store(namespace: str, account: str, operator_namespace: str) -> list[Object]:
    """Return the objects of examples/cloud-stores for AWS, with those that it shares with examples/stores."""
    found = [*_load("stores/account.yaml", namespace), *_load("store-role.yaml", namespace)]
    found[-1]["subjects"][0] |= {"name": account, "namespace": operator_namespace}
    [store] = _load("cloud-stores/aws-store.yaml", namespace)
    del store["metadata"]["namespace"]
    [run] = _load("stores/run.yaml", namespace)
    run["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"] = TASK_IMAGE
    return [store, *found, *_load("cloud-stores/binding.yaml", namespace), run]


def database_user(namespace: str, place: Mapping[str, str]) -> list[Object]:
    """Return the objects of examples/stores/database-user.yaml.

    :param place: store, role and path of the leases.
    """
    binding, run = _load("stores/database-user.yaml", namespace)
    for entry in binding["spec"]["secrets"]:
        if "lease" in entry:
            entry["lease"] |= place
    run["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["image"] = TASK_IMAGE
    return [binding, run]


def workflow(namespace: str, value: str) -> tuple[Object, Object, Object]:
    """Return Secret, binding and run of examples/workflow, with the image that every test cluster has."""
    source = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "quantum", "namespace": namespace},
        "stringData": {"token": value, "account.json": "{}"},
    }
    [binding] = _load("workflow/binding.yaml", namespace)
    [rule] = binding["spec"]["access"]
    rule["images"] = [TASK_IMAGE.replace(":1", ":*")]
    [run] = _load("workflow/run.yaml", namespace)
    for task in run["spec"]["tasks"]:
        for container in task["template"]["spec"]["containers"]:
            container["image"] = TASK_IMAGE
    return source, binding, run


def of_engine(path: str, namespace: str, swaps: dict[str, str]) -> list[Object]:
    """Return the objects of a file such as ``tekton/taskrun.yaml``, with other images.

    :param swaps: from a text of the file to the one in its place.
    """
    text = (EXAMPLES / path).read_text()
    for old, new in {
        "busybox:1.37": TASK_IMAGE,
        "busybox:*": TASK_IMAGE.replace(":1", ":*"),
        **swaps,
    }.items():
        text = text.replace(old, new)
    manifests: list[Object] = [item for item in yaml.safe_load_all(text) if item]
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    return manifests
