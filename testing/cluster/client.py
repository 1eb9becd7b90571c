"""A small client for tests: dictionaries in and out, one request for each call, bounded waits with clear errors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import urllib3
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config

from testing.cluster.resources import Resource, by_kind, by_plural

Object = dict[str, Any]
Query = Mapping[str, str | int | bool]
Event = tuple[str, Object]
"""A watch event: ``ADDED``, ``MODIFIED`` or ``DELETED``, and the object as it was then."""

_PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


# Admission policies know a new kind only some seconds after its CRD. Until then the API server refuses it and says so.
# So it does for a moment with everything that a policy is asked about whose parameters are of that kind.
_NEW_KIND = (
    b"There can be a delay between when CustomResourceDefinitions are created",
    b"not yet synced to use for admission",
)
_NEW_KIND_SECONDS = 60
PATIENCE = 180.0
"""Longest wait, in seconds, for an event that takes moments on an idle machine. No test depends on the duration."""


class ApiError(Exception):
    """The API server refused a request.

    :ivar status: the HTTP status. :ivar reason: of the API server's Status. :ivar message: likewise.
    :ivar body: the whole answer.
    """

    def __init__(self, status: int, body: bytes, request: str) -> None:
        try:
            self.body: Object = json.loads(body)
        except ValueError:
            self.body = {"message": body.decode(errors="replace")}
        self.status = status
        self.reason = str(self.body.get("reason", ""))
        self.message = str(self.body.get("message", ""))
        super().__init__(f"{request}: {status} {self.reason}: {self.message}")


class WaitError(AssertionError):
    """A wait timed out. The message shows the object as last seen, never a Secret's data."""


class KubeClient:
    """Talks to one API server as one identity. It repeats no request, except while a new kind is not known yet.

    A resource is given by its plural (``"jobs"``). The namespace None means all namespaces, or a cluster-wide kind.
    """

    def __init__(
        self,
        server: str,
        ca_file: Path | None = None,
        *,
        kubeconfig: Path | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.ca_file = ca_file
        self.headers = dict(headers or {})
        if kubeconfig is not None:
            # The `kubernetes` library knows every way to log in that a kubeconfig can name.
            api = kubernetes_config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
            for setting in api.configuration.auth_settings().values():
                if setting["in"] == "header":
                    self.headers[setting["key"]] = setting["value"]
        else:
            settings = kubernetes_client.Configuration(host=self.server)
            settings.ssl_ca_cert = None if ca_file is None else str(ca_file)
            api = kubernetes_client.ApiClient(settings)
        self._kubeconfig = kubeconfig
        self._pool: urllib3.PoolManager = api.rest_client.pool_manager

    def accepting(self, media_type: str) -> KubeClient:
        """Return a client of the same identity that asks for answers of another type."""
        headers = {**self.headers, "accept": media_type}
        return KubeClient(self.server, self.ca_file, kubeconfig=self._kubeconfig, headers=headers)

    # Other identities

    def with_token(self, token: str, server: str | None = None) -> KubeClient:
        """Return a client with this bearer token, for the same API server or a proxy in front of it."""
        return KubeClient(server or self.server, self.ca_file, headers={"authorization": f"Bearer {token}"})

    def as_user(self, user: str, *groups: str) -> KubeClient:
        """Return a client that impersonates a user, for the same API server."""
        headers = dict(self.headers) | {"Impersonate-User": user}
        if groups:
            headers["Impersonate-Group"] = "\n".join(groups)
        # An administrator may log in by a certificate, which only the kubeconfig has.
        return KubeClient(self.server, self.ca_file, kubeconfig=self._kubeconfig, headers=headers)

    def token(
        self, namespace: str, service_account: str, seconds: int = 3600, audience: str | None = None
    ) -> str:
        """Request a bearer token of a service account and return it. ``audience`` None: for the API server."""
        path = by_plural("serviceaccounts").path(namespace, service_account, "token")
        manifest = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": seconds, **({"audiences": [audience]} if audience else {})},
        }
        return str(self.request("POST", path, body=manifest)["status"]["token"])

    # One request each

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
        timeout: float = 60,
    ) -> Any:
        """Send one request and return the decoded answer (text if it is no JSON).

        :raises ApiError: the API server refused it.
        """
        until = time.monotonic() + _NEW_KIND_SECONDS
        while True:
            response = self._send(method, path, query, body, content_type, timeout)
            data = response.data
            too_new = response.status >= 400 and any(words in data for words in _NEW_KIND)
            if not too_new or time.monotonic() > until:
                break
            time.sleep(0.2)
        if response.status >= 400:
            raise ApiError(response.status, data, f"{method} {path}")
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return json.loads(data) if is_json else data.decode()

    def get(self, resource: str, name: str, namespace: str | None = None) -> Object:
        """Read one object.

        :raises ApiError: with status 404 if it does not exist.
        """
        return self._object("GET", by_plural(resource).path(namespace, name))

    def find(self, resource: str, name: str, namespace: str | None = None) -> Object | None:
        """Read one object; None if it does not exist."""
        try:
            return self.get(resource, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, resource: str, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """Read all objects that both selectors match."""
        query = _selectors(labels, fields)
        items: list[Object] = self.request("GET", by_plural(resource).path(namespace), query=query)["items"]
        return items

    def create(self, manifest: Object, namespace: str | None = None, **query: str | bool) -> Object:
        """Create an object, in the given namespace or the manifest's. By default ``fieldValidation`` is Strict."""
        resource, where, _ = self._locate(manifest, namespace)
        return self._object("POST", resource.path(where), {"fieldValidation": "Strict", **query}, manifest)

    def apply(self, manifest: Object, namespace: str | None = None, manager: str = "tests") -> Object:
        """Create or change an object by server-side apply. Conflicts are forced."""
        resource, where, name = self._locate(manifest, namespace)
        query: Query = {"fieldManager": manager, "force": True, "fieldValidation": "Strict"}
        return self._object("PATCH", resource.path(where, name), query, manifest, _PATCHES["apply"])

    def patch(
        self,
        resource: str,
        name: str,
        namespace: str | None,
        change: Any,
        how: Literal["merge", "json", "strategic"] = "merge",
        subresource: str = "",
        **query: str | bool,
    ) -> Object:
        """Change an object and return it as it is then."""
        path = by_plural(resource).path(namespace, name, subresource)
        return self._object("PATCH", path, query or None, change, _PATCHES[how])

    def delete(
        self,
        resource: str,
        name: str,
        namespace: str | None = None,
        *,
        missing_ok: bool = False,
        **options: Any,
    ) -> None:
        """Request the deletion of an object. Options are those of DeleteOptions, such as ``propagationPolicy``."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", **options}
        try:
            self.request("DELETE", by_plural(resource).path(namespace, name), body=body)
        except ApiError as error:
            if not (missing_ok and error.status == 404):
                raise

    def logs(self, pod: str, namespace: str, container: str = "") -> str:
        """Return the log of a pod's container."""
        query = {"container": container} if container else None
        return str(self.request("GET", by_plural("pods").path(namespace, pod, "log"), query=query))

    # Waiting

    def watch(
        self,
        resource: str,
        namespace: str | None = None,
        *,
        timeout: float,
        since: str = "",
        labels: str = "",
        fields: str = "",
    ) -> Iterator[Event]:
        """Yield changes as they arrive, for at most ``timeout`` seconds.

        :param since: a resourceVersion; the changes after it. Default: begin with the objects that the API server has
            at hand, which may not be what it has just written.
        :raises ApiError: the API server refused or ended the watch with an error.
        """
        until = time.monotonic() + timeout
        query = {**_selectors(labels, fields), "watch": True, "timeoutSeconds": max(1, int(timeout) + 1)}
        if since:
            query["resourceVersion"] = since
        path = by_plural(resource).path(namespace)
        response = self._send("GET", path, query, None, "application/json", timeout)
        try:
            if response.status >= 400:
                raise ApiError(response.status, response.data, f"GET {path}")
            for line in _lines(response, until):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(
                        event["object"].get("code", 0), json.dumps(event["object"]).encode(), f"GET {path}"
                    )
                yield event["type"], event["object"]
        finally:
            response.close()

    def wait_for(
        self,
        resource: str,
        name: str,
        namespace: str | None,
        condition: Callable[[Object], object],
        timeout: float = PATIENCE,
        what: str = "",
    ) -> Object:
        """Wait until an object exists and meets a condition, and return it as it was then.

        This sees every change in order, so that it does not miss a state that lasts only a moment.

        :raises WaitError: ``timeout`` seconds after the first answer, with the object as last seen.
        """
        last: Object | None = None
        for kind, item in self._follow(resource, name, namespace, timeout):
            last = item if kind != "DELETED" else None
            if last is not None and condition(last):
                return last
        raise WaitError(_explain(f"{resource}/{name}: {what or 'the condition'}", timeout, last))

    def wait_gone(self, resource: str, name: str, namespace: str | None, timeout: float = PATIENCE) -> None:
        """Wait until the object does not exist.

        :raises WaitError: after ``timeout`` seconds.
        """
        last = self.find(resource, name, namespace)
        if last is None:
            return
        for kind, item in self._follow(
            resource, name, namespace, timeout, last["metadata"]["resourceVersion"]
        ):
            last = item
            if kind == "DELETED":
                return
        raise WaitError(_explain(f"{resource}/{name}: to be gone", timeout, last))

    def is_ready(self) -> bool:
        """Whether the API server answers that it is ready."""
        try:
            self.request("GET", "/readyz", timeout=2)
        except (ApiError, urllib3.exceptions.HTTPError):
            return False
        return True

    def wait_ready(self, timeout: float = PATIENCE) -> None:
        """Wait until the API server answers that it is ready.

        :raises WaitError: after ``timeout`` seconds.
        """
        until = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() > until:
                raise WaitError(f"{self.server} was not ready within {timeout:g} s")
            time.sleep(0.02)

    def _follow(
        self, resource: str, name: str, namespace: str | None, timeout: float, since: str = ""
    ) -> Iterator[Event]:
        """Yield what is there, and all changes since. ``since``: only those after this version, of an object that is.

        What is there is asked for first: a watch alone may begin in the past.
        """
        # A watch ends early if the API server ends, or if it has forgotten the requested version. Then the present
        # state counts, and the deadline stays the same.
        #
        # The time counts from the first answer: a wait that could not look must not say that nothing was there.
        looked = seen = bool(since)
        until = time.monotonic() + (timeout if looked else max(timeout, PATIENCE))
        while (left := until - time.monotonic()) > 0:
            try:
                fields = f"metadata.name={name}"
                if not since:
                    found = self.request(
                        "GET", by_plural(resource).path(namespace), query=_selectors("", fields), timeout=left
                    )
                    since, kind = found["metadata"]["resourceVersion"], found["kind"].removesuffix("List")
                    if not looked:
                        looked, until = True, time.monotonic() + timeout
                    for item in found["items"]:
                        yield "ADDED", {"apiVersion": found["apiVersion"], "kind": kind, **item}
                    if seen and not found["items"]:
                        yield "DELETED", {"metadata": {"name": name}}
                    seen = bool(found["items"])
                # On a busy machine the time may be over by now, and a time-out of less than nothing is an error.
                left = max(until - time.monotonic(), 0.01)
                yield from self.watch(resource, namespace, timeout=left, since=since, fields=fields)
            except (ApiError, urllib3.exceptions.HTTPError) as error:
                if isinstance(error, ApiError) and error.status in (400, 401, 403, 404):
                    raise
                time.sleep(0.05)
            since = ""

    # Internals

    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        content_type: str,
        timeout: float,
    ) -> urllib3.BaseHTTPResponse:
        url = self.server + quote(path)
        if query:
            url += "?" + urlencode(
                {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items()}
            )
        headers = urllib3.HTTPHeaderDict({} if "accept" in self.headers else {"accept": "application/json"})
        for key, value in self.headers.items():
            for part in value.split("\n"):
                headers.add(key, part)
        if body is not None:
            headers["content-type"] = content_type
        return self._pool.request(
            method,
            url,
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=urllib3.Timeout(connect=min(timeout, 5), read=timeout),
            retries=False,
            preload_content=False,
        )

    def _object(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        answer: Object = self.request(method, path, query=query, body=body, content_type=content_type)
        return answer

    def _locate(self, manifest: Object, namespace: str | None) -> tuple[Resource, str | None, str]:
        resource = by_kind(manifest["apiVersion"], manifest["kind"])
        metadata = manifest["metadata"]
        return resource, namespace or metadata.get("namespace"), metadata.get("name", "")


def _selectors(labels: str, fields: str) -> dict[str, str | int | bool]:
    return {key: text for key, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}


def _lines(response: urllib3.BaseHTTPResponse, until: float) -> Iterator[bytes]:
    """Yield whole lines as they arrive, until the stream ends or the time ``until`` has come."""
    rest = b""
    while time.monotonic() < until:
        try:
            chunk = response.read1()
        except urllib3.exceptions.ReadTimeoutError:
            return
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _explain(what: str, timeout: float, last: Object | None) -> str:
    if last is None:
        return f"{what}: not within {timeout:g} s; there is no such object"
    shown = {key: value for key, value in last.items() if key not in ("data", "stringData")}
    metadata = {k: v for k, v in last.get("metadata", {}).items() if k != "managedFields"}
    return f"{what}: not within {timeout:g} s; last seen:\n{json.dumps({**shown, 'metadata': metadata}, indent=1)}"
