"""A thin client of the API server for the few calls that the operator makes.

Why not a client library: this is the hot path (five writes a run), and aiohttp is there
already for kopf. Nothing here logs, caches or retries: the queue retries, with its back-off
per run. The one exception are credentials that were refused and could be replaced.

Secrets get special care: answers to their creation and deletion are asked for as
metadata only, so that a value crosses the wire once, on its way in.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from runkeys._text import documents
from runkeys_operator.errors import (
    AlreadyExists,
    Conflict,
    Invalid,
    LoginError,
    ServerError,
    Unauthorized,
    Unreachable,
    from_response,
)
from runkeys_operator.kube.answers import (
    NO_API_SERVER,
    Json,
    Objects,
    Page,
    read_event,
    read_page,
    unreachable,
)
from runkeys_operator.kube.clock import ServerClock
from runkeys_operator.kube.login import BEFORE_SENDING, Login
from runkeys_operator.kube.resources import SECRETS, SELF_REVIEWS, SERVICE_ACCOUNTS, Resource
from runkeys_operator.process import metrics
from runkeys_operator.process.logs import get_logger

log = get_logger(__name__)

PAGE_SIZE = 25
"""Objects in a page: each may have a megabyte and a half, and a page is read at once."""

METADATA_PAGE_SIZE = 250
"""Page size for metadata, which is small."""

_SECONDS = 15.0
_TIMEOUT = aiohttp.ClientTimeout(total=_SECONDS)
# The server ends a watch after five minutes, and bookmarks it once a minute: a longer silence is a dead connection.
_WATCH_SECONDS = 300
_WATCH_TIMEOUT = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 10, sock_connect=15, sock_read=70)

_JSON = "application/json"
METADATA_ONLY = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Deleted(NamedTuple):
    """Result of a DELETE: `gone` at once, or still held by `finalizers` (or a grace period)."""

    gone: bool
    finalizers: tuple[str, ...] = ()


class Permit(Protocol):
    """Returns for how many seconds a request that changes something may take, as it begins."""

    def __call__(self, *, removes: bool) -> float:
        """`removes`: it deletes a Secret. Raises NotLeader if it must not be sent."""


def _always(*, removes: bool) -> float:  # noqa: ARG001
    return _SECONDS


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as errors, metrics and the log name it.

    :ivar verb: as RBAC spells it. :ivar where: namespace, name and subresource, as far as there are any.
    """

    verb: str
    resource: Resource | None
    where: str = ""

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.verb, self.resource, self.where) if part)

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.verb not in ("get", "list", "watch", "discover")

    @property
    def removes_secret(self) -> bool:
        """Whether it takes a value out of the cluster."""
        return self.verb == "delete" and self.resource == SECRETS

    def count(self, code: str, seconds: float | None = None) -> None:
        """Count it in the metrics as answered, or not."""
        resource = str(self.resource or self.where)
        metrics.api_requests.labels(self.verb, resource, code).inc()
        if seconds is not None and self.verb != "watch":
            metrics.api_seconds.labels(self.verb).observe(seconds)


class Kube:
    """The calls. Every method raises `ApiError`; `namespace` None means cluster scope.

    Objects are the API's own JSON. 15 seconds at most for each request, and what `permit` gives it if it is no read.

    :ivar clock: the server's, as its answers show it.
    """

    def __init__(self, login: Login, permit: Permit = _always) -> None:
        self._login = login
        self._permit = permit
        self.clock = ServerClock()

    def __repr__(self) -> str:
        return "Kube()"

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False
    ) -> Json:
        """The object, read fresh."""
        accept = METADATA_ONLY if metadata_only else ""
        return await self._call("get", "GET", resource, namespace, name, accept=accept)

    async def list(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> Objects:
        """Every object that matches; `namespace` None means all namespaces. `metadata_only` leaves out the rest."""
        pages = self.pages(
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            metadata_only=metadata_only,
        )
        return [item async for page in pages for item in page.items]

    async def pages(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        size: int = 0,
    ) -> AsyncIterator[Page]:
        """The same in pages, for callers that must not hold all of them. `size`: maximum for a page."""
        size = size or (METADATA_PAGE_SIZE if metadata_only else PAGE_SIZE)
        query = {"limit": str(size), **_selectors(label_selector, field_selector)}
        accept = METADATA_LIST if metadata_only else ""
        while True:
            answer = await self._call("list", "GET", resource, namespace, query=query, accept=accept)
            page, token = read_page(answer, f"list {resource}")
            yield page
            if not token:
                return
            query["continue"] = token

    async def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        since: str,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        opened: Callable[[], None],
    ) -> AsyncIterator[Json]:
        """What happens after version `since`, bookmarks included, until the server ends it: after five minutes.

        An event that cannot be read is passed over. `opened` is called when the server begins to answer. Raises
        `Expired` if that version is too old, `Unreachable` if nothing that came could be read.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": since,
            "timeoutSeconds": str(_WATCH_SECONDS),
            **_selectors(label_selector, field_selector),
        }
        call = Call("watch", resource, namespace or "")
        target = f"{resource.path(namespace)}?{urlencode(query)}"
        headers = {"Accept": f"{METADATA_ONLY},{_JSON}" if metadata_only else _JSON}
        response = await self._begin(call, "GET", target, headers, None, lambda: _WATCH_TIMEOUT)
        read = unread = 0
        try:
            if response.status >= 300:
                answer = await response.read()
                raise from_response(
                    response.status, response.headers, answer, request=str(call), secret=False
                )
            opened()
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(None, lines):
                    event = read_event(line, str(call))
                    if event is None:
                        unread += 1
                        log.error("%s: skipped an event that cannot be read", call)
                        continue
                    read += 1
                    yield event
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, str(call)) from None
        finally:
            response.close()
        if unread and not read:
            raise Unreachable(NO_API_SERVER, request=str(call))

    async def create(self, resource: Resource, namespace: str | None, body: Json) -> Json:
        """The created object; of a Secret only its metadata."""
        name = body.get("metadata", {}).get("name", "")
        try:
            return await self._call(
                *("create", "POST", resource, namespace),
                body=body,
                label=name,
                accept=METADATA_ONLY if resource == SECRETS else "",
            )
        except Conflict as error:
            # With something of the server's own, as the count of a quota: nothing that could be read anew.
            raise ServerError(
                error.status, error.reason, error.message, error.retry_after, request=error.request
            ) from None

    async def could_create(self, resource: Resource, namespace: str, body: Json) -> bool:
        """Whether there is no object of that name. It is asked by a dry run, which needs no right to read."""
        try:
            await self._call(
                *("create", "POST", resource, namespace),
                body=body,
                query={"dryRun": "All"},
                label=body["metadata"]["name"],
                accept=METADATA_ONLY,
            )
        except AlreadyExists:
            return False
        return True

    async def replace(self, resource: Resource, namespace: str | None, name: str, body: Json) -> Json:
        """Put `body` in the object's place; `Conflict` if that is no longer at `body`'s resourceVersion."""
        return await self._call("update", "PUT", resource, namespace, name, body=body)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: str | None = None,
    ) -> Deleted:
        """Delete it, but only the one with `uid` if given (else `Conflict`); `NotFound` if gone.

        `propagation` is Background, Foreground or Orphan; None leaves it to the kind's default.
        """
        options: Json = {}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        answer = await self._call(
            "delete", "DELETE", resource, namespace, name, body=options or None, accept=METADATA_ONLY
        )
        if answer.get("kind") == "Status":
            return Deleted(gone=True)
        # The server sent the object back: it deleted it and tells what it was, or it only marked it.
        metadata = answer.get("metadata") or {}
        finalizers = tuple(metadata.get("finalizers") or ())
        in_grace = bool(metadata.get("deletionTimestamp") and metadata.get("deletionGracePeriodSeconds"))
        return Deleted(gone=not finalizers and not in_grace, finalizers=finalizers)

    async def patch_status(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        status: Json,
        *,
        resource_version: str,
        metadata_only: bool = False,
    ) -> Json:
        """Merge `status` into the object's: lists are replaced whole, None removes a key.

        `Conflict` if the object is no longer at `resource_version`. Returns the whole object.
        """
        body = {"metadata": {"resourceVersion": resource_version}, "status": status}
        return await self._call(
            *("patch", "PATCH", resource, namespace, name, "status"),
            body=body,
            accept=METADATA_ONLY if metadata_only else "",
        )

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Json, *, resource_version: str
    ) -> Json:
        """Merge `body` into the object, which must still be at `resource_version` (else `Conflict`).

        Returns the object; of a Secret only its metadata.
        """
        metadata = {**body.get("metadata", {}), "resourceVersion": resource_version}
        return await self._call(
            *("patch", "PATCH", resource, namespace, name),
            body={**body, "metadata": metadata},
            accept=METADATA_ONLY if resource == SECRETS else "",
        )

    async def request_token(
        self,
        namespace: str,
        account: str,
        *,
        pod: tuple[str, str],
        audience: str,
        seconds: int,
        labels: Mapping[str, str],
    ) -> str:
        """A token of a service account for one audience, which is void once the pod (name and uid) is gone.

        :param labels: for admission, which sees nothing else of what the token is for.
        """
        name, uid = pod
        body: Json = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"labels": dict(labels)},
            "spec": {
                "audiences": [audience],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid},
            },
        }
        answer = await self._call("create", "POST", SERVICE_ACCOUNTS, namespace, account, "token", body=body)
        token = (answer.get("status") or {}).get("token")
        if not isinstance(token, str) or not token:
            raise Unreachable(NO_API_SERVER, request=f"create {SERVICE_ACCOUNTS} {namespace}/{account}/token")
        return token

    async def who_am_i(self) -> Json:
        """The server's answer to a SelfSubjectReview: `status.userInfo`, and the server's time as its creation."""
        review = {"apiVersion": SELF_REVIEWS.group_version, "kind": "SelfSubjectReview"}
        return await self.create(SELF_REVIEWS, None, review)

    async def discover(self, resource: Resource) -> Objects:
        """What the resource's group version serves: APIResource objects; `NotFound` if nothing."""
        answer = await self._send(Call("discover", None, resource.root), "GET", resource.root, None)
        return answer.get("resources") or []

    async def _call(
        self,
        verb: str,
        method: str,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        subresource: str = "",
        *,
        body: Json | None = None,
        query: Mapping[str, str] | None = None,
        label: str = "",
        accept: str = "",
    ) -> Json:
        where = "/".join(part for part in (namespace, name or label, subresource) if part)
        call = Call(verb, resource, where)
        path = [resource.root]
        if namespace is not None:
            path += ["namespaces", _segment(namespace, call)]
        path.append(resource.plural)
        if name is not None:
            path.append(_segment(name, call))
        if subresource:
            path.append(subresource)
        target = "/".join(path)
        if query:
            target = f"{target}?{urlencode(query)}"
        return await self._send(call, method, target, body, accept)

    async def _send(self, call: Call, method: str, target: str, body: Json | None, accept: str = "") -> Json:
        headers = {"Accept": f"{accept},{_JSON}" if accept else _JSON}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else _JSON
            data = json.dumps(body, separators=(",", ":")).encode()
        try:
            response, answer = await self._exchange(call, method, target, headers, data)
        except LoginError as error:
            raise Unauthorized(0, "NoCredentials", str(error), request=str(call)) from None
        if response.status >= 300:
            secret = call.resource == SECRETS
            raise from_response(response.status, response.headers, answer, request=str(call), secret=secret)
        try:
            parsed = documents.read(answer)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            # Without the text, and without the parser's error, which quotes it: it may be anything.
            raise Unreachable(NO_API_SERVER, request=str(call)) from None
        return parsed

    async def _exchange(
        self, call: Call, method: str, target: str, headers: dict[str, str], data: bytes | None
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        response = await self._begin(call, method, target, headers, data, partial(self._limit, call))
        try:
            return response, await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, str(call)) from None
        finally:
            response.release()

    def _limit(self, call: Call) -> aiohttp.ClientTimeout:
        if not call.writes:
            return _TIMEOUT
        seconds = min(_SECONDS, self._permit(removes=call.removes_secret))
        return aiohttp.ClientTimeout(total=seconds, ceil_threshold=_SECONDS)  # to the point, not rounded up

    async def _begin(
        self,
        call: Call,
        method: str,
        target: str,
        headers: dict[str, str],
        data: bytes | None,
        limit: Callable[[], aiohttp.ClientTimeout],
    ) -> aiohttp.ClientResponse:
        """Send the request and wait for the head of the answer, with new credentials if they are refused.

        `limit` is asked for the time-out whenever it is sent.
        """
        for last_try in (False, True):
            connection = self._login.current()
            began = time.monotonic()
            token = BEFORE_SENDING.set(limit)
            try:
                response = await connection.http.request(
                    method,
                    URL(connection.server + target, encoded=True),
                    data=data,
                    headers=headers,
                    timeout=limit(),
                    allow_redirects=False,
                )
            except (aiohttp.ClientError, OSError) as error:
                call.count("error")
                failure = unreachable(error, str(call))
                if failure.untrusted and not last_try and await self._login.renew(connection):
                    continue
                raise failure from None
            finally:
                BEFORE_SENDING.reset(token)
            self.clock.heard(response.headers.get("Date"))
            call.count(str(response.status), time.monotonic() - began)
            if response.status == 401 and not last_try and await self._login.renew(connection):
                response.release()
                continue
            return response
        raise AssertionError("the second try returns or raises")


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    found = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: text for name, text in found.items() if text}


def _segment(name: str, call: Call) -> str:
    """`name` as one segment of a path. Names may come from a manifest: never let one climb the path."""
    if name in {"", ".", ".."} or "/" in name or "%" in name:
        raise Invalid(422, "InvalidName", "not a name of an object", request=str(call))
    return quote(name, safe="")
