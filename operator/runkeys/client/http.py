"""Requests to the API server, with the rights of a kubeconfig or of the pod that this runs in."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from runkeys._text import documents
from runkeys.config import MISSING_LIBRARY, in_pod, read_kubeconfig
from runkeys.names import API_VERSION
from runkeys.problems import Conflict, Denied, Invalid, NotFound, Problem, Unreachable

MERGE_PATCH = "application/merge-patch+json"
READ_SECONDS = 60
"""Maximum time in seconds for an answer, or between two parts of a stream."""

_CONNECT_SECONDS = 10
_KINDS = f"/apis/{API_VERSION}"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

TAKEN = (
    "Give the new run another name with --name, write generateName in place of metadata.name, or delete the old run"
    " with `runkeys delete`"
)
"""What to do if the name of a run is taken: a run is started once."""

Json = dict[str, Any]


class Api:
    """Access to the API server as one user, for one namespace.

    :ivar namespace: the namespace.
    :ivar server: address of the API server.
    """

    def __init__(self, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
        """Read the configuration. No request is sent yet.

        :param namespace: default: the namespace of the kubeconfig's context or of the pod, else ``default``.
        :raises Unreachable: there is neither a kubeconfig nor a pod's service account.
        :raises NotFound: the kubeconfig does not have the context.
        """
        self._api, found = _connect(kubeconfig, context)
        self.namespace = namespace or found or "default"
        self.server = str(self._api.configuration.host)

    def path(self, plural: str, name: str = "") -> str:
        """Return the path of objects of one of our own kinds in the namespace, or of one object."""
        return f"{_KINDS}/namespaces/{self.namespace}/{plural}" + (f"/{quote(name, safe='')}" if name else "")

    def read(self, path: str, **query: str) -> Json:
        """Send a GET request and return the answer.

        :raises Problem: the request failed.
        """
        return self.request("GET", path, query=query)

    def items(self, path: str, **query: str) -> list[Json]:
        """Return all items of a list, from all its pages.

        :raises Problem: a request failed.
        """
        found: list[Json] = []
        while True:
            page = self.read(path, limit="500", **query)
            found += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return found
            query["continue"] = more

    def create(self, path: str, body: Mapping[str, Any], **query: str) -> Json:
        """Send a POST request and return the answer.

        :raises Problem: the request failed.
        """
        return self.request("POST", path, body, query=query)

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Json:
        """Send one request and return the answer.

        :raises Problem: the request failed; the answer's status decides the kind of problem.
        """
        response = self._send(method, path, body, query or {}, content, READ_SECONDS)
        try:
            answer = documents.read(response.data)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unreachable(
                f"{self.server} answered something else than JSON to {path}; is it a Kubernetes API?"
            )
        return answer

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None,
        query: Mapping[str, str],
        content: str,
        read_seconds: float,
        *,
        stream: bool = False,
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        _, url, headers, sent, _ = self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": content},
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            response = self._api.call_api(
                method,
                url,
                header_params=headers,
                body=sent,
                _request_timeout=(_CONNECT_SECONDS, read_seconds),
            )
            if not stream:
                response.read()
        except ApiException as error:
            if not error.status:  # so the library passes on an error of TLS
                raise Unreachable(_tls_problem(self.server, error)) from None
            raise _problem(error.status, error.body, path) from None
        except HTTPError as error:
            raise Unreachable(f"{self.server} cannot be reached: {_reason(error)}") from None
        if "html" in str(response.getheader("Content-Type", "")):
            response.response.close()
            raise Unreachable(
                f"{self.server} answered with a web page ({response.status}), so it is a login page or a proxy and no"
                " Kubernetes API; log in there, or see the kubeconfig's server"
            )
        if response.status >= 400:
            raise _problem(response.status, response.read(), path)
        return response

    def lines(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[str]:
        """Yield an answer's lines as they arrive, until the answer ends or nothing arrives for ``seconds``.

        A connection that is cut off ends it without an error: the caller asks again.

        :raises Problem: the request failed before the first line.
        """
        from urllib3.exceptions import HTTPError

        response = self._send("GET", path, None, query, "application/json", seconds, stream=True)
        rest = b""
        try:
            for chunk in response.response.stream(4096, decode_content=False):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
        except HTTPError:
            pass  # cut off
        finally:
            response.response.close()
        if rest:
            yield rest.decode(errors="replace")


def _connect(kubeconfig: str | None, context: str | None) -> tuple[Any, str | None]:
    """Return an ``ApiClient`` of the ``kubernetes`` library, and the configuration's namespace."""
    try:
        from kubernetes import client, config
    except ImportError:
        raise Unreachable(MISSING_LIBRARY) from None
    settings = client.Configuration()
    if kubeconfig is None and context is None and in_pod():
        try:
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            return client.ApiClient(settings), _POD_NAMESPACE.read_text().strip()
        except (config.ConfigException, OSError) as error:
            raise Unreachable(f"the service account of this pod cannot be used: {error}") from None
    found = read_kubeconfig(kubeconfig)
    if not found.files and kubeconfig is not None:
        raise NotFound(f"there is no file {kubeconfig}")
    name = context or found.current
    if name is None or name not in found.contexts:
        what = f"{found.paths} has no {'current context' if name is None else f'context {name!r}'}"
        raise NotFound(f"{what}; there are: {', '.join(sorted(found.contexts)) or 'none'}")
    try:
        config.load_kube_config(found.paths, name, settings)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        problem = f"{found.paths}, context {name}: {error}"
    except (AttributeError, KeyError, LookupError, TypeError, ValueError):
        problem = f"{found.paths}, context {name}: it cannot be used; see whether `kubectl version` does"
    else:
        if urlsplit(str(settings.host)).netloc:
            settings.retries = False
            return client.ApiClient(settings), found.contexts[name]
        problem = f"{found.paths}, context {name}: its cluster has no server, such as https://10.0.0.1:6443"
    raise Unreachable(problem)  # outside of `except`: an error of a parser may hold a token


def _tls_problem(server: str, error: Exception) -> str:
    """Say what is wrong with TLS: the cluster answers, but not as the kubeconfig expects it."""
    inner: BaseException | None = error
    while inner is not None and not isinstance(inner, ssl.SSLError):
        inner = (
            inner.__cause__
            or inner.__context__
            or next((item for item in inner.args if isinstance(item, BaseException)), None)
        )
    if isinstance(inner, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {server} is not trusted: {inner.verify_message}. See certificate-authority and server"
            " in the kubeconfig; a proxy that opens TLS has a certificate of its own"
        )
    reason = getattr(inner, "reason", None)
    return f"TLS with {server} failed{f' ({reason})' if reason else ''}; see whether its address and port are right"


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None) or error
    return str(inner).rpartition(": ")[2] or type(inner).__name__


def _problem(status: int | None, body: Any, path: str) -> Problem:
    """Return the error for an answer."""
    message, reason = "", ""
    try:
        answer = documents.read(body or "{}")
        message, reason = str(answer.get("message", "")), str(answer.get("reason", ""))
    except (ValueError, AttributeError):
        pass
    message = message or f"the API server answered {status} to {path}"
    if status == 404:
        if path.startswith(_KINDS) and reason != "NotFound":
            return Unreachable(
                "the cluster does not know WorkflowRun and SecretBinding; install Runkeys in it"
            )
        return NotFound(message)
    if status == 403:
        from runkeys.client.rights import refusal

        return refusal(message)
    if status == 401:
        return Denied(message)
    if status == 409 and reason == "AlreadyExists" and path.endswith("/workflowruns"):
        return Conflict(f"{message}. {TAKEN}")
    if status == 409:
        return Conflict(message)
    if status is not None and 400 <= status < 500 and status != 429:
        return Invalid(message)
    return Unreachable(message)
