"""The lease itself, on a real API server: who gets it, when it is lost, and what it lets pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from runkeys_operator.errors import LeaseLostError, NotLeader, Unreachable
from runkeys_operator.kube import JOBS, RUNS, SECRETS, Kube, credentials
from runkeys_operator.kube.login import Login
from runkeys_operator.leader_election import Lease, LeaseName
from testing.cluster.base import Cluster
from testing.cluster.client import KubeClient
from testing.cluster.faults import Answer, LoseAnswer, Reset, matching
from testing.cluster.proxy import ApiProxy
from testing.operators import RELEASE, install_rights

SECONDS = 3
FOR_EVER = 3600
WHOLE_OUTAGE = matching(resource="leases")

NewLease = Callable[..., Lease]


@pytest.fixture
async def session(cluster: Cluster, proxy: ApiProxy, namespace: str, tmp_path: Path) -> AsyncIterator[Login]:
    """The chart's account in ``namespace``, by way of the proxy."""
    token = cluster.client.token(namespace, install_rights(cluster, namespace))
    file = cluster.kubeconfig_for(token, tmp_path / "kubeconfig", server=proxy.url)
    login = Login(credentials.find(str(file), None))
    yield login
    await login.close()


@pytest.fixture
def new_lease(session: Login, namespace: str) -> NewLease:
    """One candidate's view of the namespace's lease."""

    def make(identity: str, seconds: float = SECONDS) -> Lease:
        return Lease(Kube(session), LeaseName(namespace, RELEASE), identity, seconds)

    return make


def spec(client: KubeClient, namespace: str) -> dict[str, object]:
    found: dict[str, object] = client.get("leases", RELEASE, namespace)["spec"]
    return found


async def until(holds: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for it."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 -- it happens elsewhere
            await asyncio.sleep(0.01)


def may(lease: Lease, *, removes: bool) -> bool:
    """Whether a request that changes something may begin now."""
    try:
        return lease.permit(removes=removes) > 0
    except NotLeader:
        return False


async def test_one_has_it_and_the_next_gets_it_when_it_is_given_back(
    new_lease: NewLease, client: KubeClient, namespace: str
) -> None:
    one, two = new_lease("one", FOR_EVER), new_lease("two", FOR_EVER)
    order: list[str] = []

    async def lead(lease: Lease, go: asyncio.Event) -> None:
        async with lease.held() as waited:
            order.append(f"{lease.identity} leads, {'waited' if waited else 'at once'}")
            await go.wait()
        order.append(f"{lease.identity} gave it back")

    first, second = asyncio.Event(), asyncio.Event()
    leading = asyncio.create_task(lead(one, first))
    await until(lambda: one.leads)
    waiting = asyncio.create_task(lead(two, second))
    await until(lambda: two.follows)
    assert may(one, removes=False)
    assert not may(two, removes=True)
    held = spec(client, namespace)
    assert (held["holderIdentity"], held["leaseDurationSeconds"]) == ("one", FOR_EVER)
    first.set()
    await leading
    assert not may(one, removes=True)
    await until(lambda: two.leads)
    second.set()
    await waiting
    assert order == ["one leads, at once", "one gave it back", "two leads, waited", "two gave it back"]
    after = spec(client, namespace)
    assert after.get("holderIdentity", "") == ""
    assert after["leaseTransitions"] == 2


async def test_a_holder_that_is_heard_of_no_more_is_followed_and_then_ends(
    new_lease: NewLease, client: KubeClient, namespace: str
) -> None:
    one, two = new_lease("one"), new_lease("two")
    async with AsyncExitStack() as ends:
        await ends.enter_async_context(one.held())  # and never renewed
        assert await ends.enter_async_context(two.held()) is True
        assert not one.holds  # it stopped to count on it before the other could have it
        assert may(two, removes=False)
        with pytest.raises(LeaseLostError, match="two holds the lease"):
            await one.keep()
    assert spec(client, namespace)["leaseTransitions"] == 2


async def test_a_holder_that_renews_is_never_followed(new_lease: NewLease, proxy: ApiProxy) -> None:
    one, two = new_lease("one"), new_lease("two")
    async with one.held():
        keeping = asyncio.create_task(one.keep())
        waiting = asyncio.create_task(two.held().__aenter__())
        await asyncio.to_thread(proxy.wait_for, matching("update", "leases"), 60, 4 * 6)
        assert one.holds
        assert not two.leads
        for task in (keeping, waiting):
            task.cancel()
        await asyncio.gather(keeping, waiting, return_exceptions=True)


async def test_the_pods_next_container_takes_it_at_once_and_the_one_before_ends(new_lease: NewLease) -> None:
    before, after = new_lease("pod", FOR_EVER), new_lease("pod", FOR_EVER)
    async with AsyncExitStack() as ends:
        await ends.enter_async_context(before.held())
        assert await ends.enter_async_context(after.held()) is False
        before._until = 0  # so that it renews now
        with pytest.raises(LeaseLostError, match="pod holds the lease"):
            await before.keep()
        assert after.holds
        assert not before.holds


@pytest.mark.parametrize("verb", ["create", "update"])
async def test_an_answer_that_is_lost_while_it_is_taken(
    new_lease: NewLease, proxy: ApiProxy, client: KubeClient, namespace: str, verb: str
) -> None:
    if verb == "update":
        async with new_lease("before").held():
            pass
    proxy.rule(matching(verb, "leases"), LoseAnswer())
    one = new_lease("one", FOR_EVER)
    async with one.held():
        assert one.holds
        assert spec(client, namespace)["holderIdentity"] == "one"


async def test_an_answer_that_is_lost_while_it_is_renewed(new_lease: NewLease, proxy: ApiProxy) -> None:
    one = new_lease("one")
    async with one.held():
        lost = proxy.rule(matching("update", "leases"), LoseAnswer(), times=2)
        keeping = asyncio.create_task(one.keep())
        # the version is another then: it looks whether that was itself, and goes on
        await asyncio.to_thread(
            proxy.wait_for, lambda r: r.resource == "leases" and r.verb == "update" and r.status == 409, 30
        )
        count = len(proxy.requests)
        await until(
            lambda: any(r.verb == "update" and r.answered and r.status == 200 for r in proxy.requests[count:])
        )
        assert len(lost.hits) == 2
        assert one.holds
        assert not keeping.done()
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def test_without_an_answer_first_nothing_is_made_and_then_nothing_is_removed(
    new_lease: NewLease, proxy: ApiProxy
) -> None:
    one, two = new_lease("one"), new_lease("two")
    async with one.held():
        keeping = asyncio.create_task(one.keep())
        waiting = asyncio.create_task(two.held().__aenter__())
        await until(lambda: two.follows)
        proxy.rule(WHOLE_OUTAGE, Answer(503), times=None)
        seen: list[tuple[bool, bool]] = []
        while not seen or seen[-1] != (False, False):
            now = (may(one, removes=False), may(one, removes=True))
            if not seen or seen[-1] != now:
                seen.append(now)
            await asyncio.sleep(0.005)
        assert seen == [(True, True), (False, True), (False, False)]
        assert not keeping.done()  # it goes on asking
        await until(lambda: not two.follows)
        proxy.clear_rules()
        # nobody had it meanwhile: it leads on, and the other one gives it time for that
        await until(lambda: may(one, removes=False))
        assert not two.leads
        for task in (keeping, waiting):
            task.cancel()
        await asyncio.gather(keeping, waiting, return_exceptions=True)


async def test_a_lease_that_somebody_deletes_stays_the_holders(
    new_lease: NewLease, client: KubeClient, namespace: str
) -> None:
    one, two = new_lease("one"), new_lease("two")
    async with one.held():
        waiting = asyncio.create_task(two.held().__aenter__())
        await until(lambda: two.follows)
        client.delete("leases", RELEASE, namespace)
        keeping = asyncio.create_task(one.keep())
        await until(lambda: client.find("leases", RELEASE, namespace) is not None)
        assert spec(client, namespace)["holderIdentity"] == "one"
        assert not two.leads
        for task in (keeping, waiting):
            task.cancel()
        await asyncio.gather(keeping, waiting, return_exceptions=True)


SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "rk-late"}}


async def test_a_lease_that_is_gone_when_its_time_is_over_is_lost(
    new_lease: NewLease, client: KubeClient, namespace: str
) -> None:
    """Who knows who had it meanwhile."""
    one = new_lease("one")
    async with one.held():
        await until(lambda: not one.holds)
        client.delete("leases", RELEASE, namespace)
        with pytest.raises(LeaseLostError, match="nobody holds the lease"):
            await one.keep()
    assert client.find("leases", RELEASE, namespace) is None


async def test_a_request_ends_with_the_lease(session: Login, proxy: ApiProxy, namespace: str) -> None:
    proxy.hold(matching("create", "secrets"))
    kube = Kube(session, lambda *, removes: 0.2)  # noqa: ARG005
    with pytest.raises(Unreachable, match="no answer in time"):
        await kube.create(SECRETS, namespace, SECRET)
    assert [request.verb for request in proxy.requests] == ["create"]


async def test_nothing_that_changes_anything_is_sent_by_one_that_does_not_lead(
    session: Login, new_lease: NewLease, proxy: ApiProxy, namespace: str
) -> None:
    lease, asked = new_lease("one"), []

    def permit(*, removes: bool) -> float:
        asked.append(removes)
        return lease.permit(removes=removes)

    kube = Kube(session, permit)
    for attempt in (
        kube.create(SECRETS, namespace, SECRET),
        kube.delete(SECRETS, namespace, "rk-late"),
        kube.delete(JOBS, namespace, "rk-late"),
        kube.replace(SECRETS, namespace, "rk-late", SECRET),
        kube.patch_status(RUNS, namespace, "late", {}, resource_version="1"),
    ):
        with pytest.raises(NotLeader, match="could not be renewed in time"):
            await attempt
    assert asked == [False, True, False, False, False]
    assert proxy.requests == []


async def test_a_lease_that_cannot_be_given_back_does_not_keep_it_from_ending(
    new_lease: NewLease, proxy: ApiProxy, caplog: pytest.LogCaptureFixture
) -> None:
    async with new_lease("one").held():
        proxy.rule(WHOLE_OUTAGE, Reset(), times=None)
    assert "could not release the lease" in caplog.text
