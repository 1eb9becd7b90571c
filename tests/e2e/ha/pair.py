"""Two operators that have one lease, runs that come all the time, and what the audit log says of both."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import urllib3

from testing.cluster.audit import AuditEvent
from testing.cluster.base import Cluster, wait_until, wait_with_progress
from testing.cluster.client import PATIENCE, ApiError, Object
from testing.cluster.faults import Action, LoseAnswer, Request, Reset
from testing.cluster.proxy import ApiProxy
from testing.namespace import CHECKS_ITS_VARIABLE, SOURCE, Team, condition, exposures, phase, python
from testing.operators import RELEASE, Operator, install_rights, operator_of

LEASE_SECONDS = 6
NAMES = ("one", "two")
_AT_ONCE = 6
_MUTATING = ("create", "update", "patch", "delete", "deletecollection")


class Pair:
    """Two operators of a team, which are started again when they end, as their Deployment would do it."""

    def __init__(self, team: Team, operators: Sequence[Operator]) -> None:
        self.team = team
        self.operators = {operator.identity: operator for operator in operators}
        self.mark = team.cluster.audit.mark()
        self.exits: dict[str, list[int]] = defaultdict(list)
        self._up: set[str] = set()
        self._lock = threading.Lock()

    # as a Deployment and its nodes do

    def bring_up(self, *operators: Operator) -> None:
        """Start them, and again whenever they end."""
        with self._lock:
            for operator in operators or self.operators.values():
                if not operator.running:
                    operator.start()
                self._up.add(operator.identity)

    def take_down(self, operator: Operator) -> None:
        """Kill it together with its node: nobody starts it again."""
        with self._lock:
            self._up.discard(operator.identity)
            operator.kill()

    def retire(self, operator: Operator) -> int:
        """Tell it to stop for good, as an upgrade does, and return its exit code."""
        with self._lock:
            self._up.discard(operator.identity)
            return operator.stop()

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Start again what ends."""
        ended = threading.Event()

        def supervise() -> None:
            while not ended.wait(0.05):
                with self._lock:
                    for name in self._up:
                        operator = self.operators[name]
                        if not operator.running:
                            self.exits[name].append(operator.stop())
                            operator.start()

        thread = threading.Thread(target=supervise, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(10)

    def wait_started_again(self, operator: Operator, exits: int) -> None:
        """Wait until it has ended by itself for the so many-th time, and runs anew."""
        wait_until(
            f"{operator.identity} to end by itself for the {exits}. time",
            lambda: len(self.exits[operator.identity]) >= exits and operator.running,
            PATIENCE,
        )

    # who leads

    @property
    def holder(self) -> str:
        """Who the lease names; empty: nobody."""
        with suppress(ApiError, urllib3.exceptions.HTTPError):
            lease = self.team.client.find("leases", RELEASE, self.team.namespace)
            return str((lease or {}).get("spec", {}).get("holderIdentity") or "")
        return ""

    def leader(self, *, other_than: Operator | None = None) -> Operator:
        """The operator that leads, waited for."""
        unwanted = ("", other_than.identity if other_than else "")
        found = [""]

        def leads() -> bool:
            found[0] = self.holder
            return found[0] not in unwanted

        wait_until(f"a leader, not {unwanted[1] or 'none'}", leads, PATIENCE)
        return self.operators[found[0]]

    def other(self, operator: Operator) -> Operator:
        """The one that is not this one."""
        return next(other for other in self.operators.values() if other is not operator)

    # what they did

    def writes(self, since: int | None = None) -> list[Write]:
        """Whatever they changed or tried to, leases included, in the order in which it was answered."""
        by = {operator.credential: name for name, operator in self.operators.items()}
        events = self.team.cluster.audit.events(
            self.mark if since is None else since,
            verb=_MUTATING,
            namespace=self.team.namespace,
            where=lambda event: not event.resource.endswith("reviews"),  # which only ask
        )
        return [Write(by[event.credential], event) for event in events if event.credential in by]

    def wait_for_writes(self, operator: Operator, count: int, since: int | None = None) -> None:
        """Wait until it has changed so many things that are not the lease, from now on or since that mark."""
        mark = self.team.cluster.audit.mark() if since is None else since
        wait_until(
            f"{count} writes of {operator.identity}",
            lambda: self._written(operator, mark) >= count,
            PATIENCE,
            every=0.05,
        )

    def busy_leader(self, count: int, since: int | None = None) -> Operator:
        """Whoever leads when it has changed so many things that are not the lease, from now on or since that mark.

        On a busy machine the lead can change meanwhile, and whoever led first then changes nothing any more.
        """
        mark = self.team.cluster.audit.mark() if since is None else since
        found = self.leader()

        def is_busy() -> bool:
            nonlocal found
            found = self.leader()
            return self._written(found, mark) >= count

        wait_until(f"{count} writes of whoever leads", is_busy, PATIENCE, every=0.05)
        return found

    def _written(self, operator: Operator, mark: int) -> int:
        return sum(write.by == operator.identity and not write.of_lease for write in self.writes(mark))

    def wait_for_any_write(self) -> None:
        """Wait until one of them changes something that is not the lease, from now on."""
        mark = self.team.cluster.audit.mark()
        wait_until("a write", lambda: any(not write.of_lease for write in self.writes(mark)), PATIENCE)

    def wait_for_looks(self, operator: Operator, count: int) -> None:
        """Wait until it has looked at its lease so many times from now on."""
        audit = self.team.cluster.audit
        mark = audit.mark()

        def looks() -> int:
            events = audit.events(mark, verb="get", resource="leases", namespace=self.team.namespace)
            return sum(event.credential == operator.credential for event in events)

        wait_until(f"{operator.identity} to look {count} times", lambda: looks() >= count, PATIENCE)

    def text(self) -> str:
        """The last that they printed."""
        return "\n".join(f"-- {name}\n{op.text()[-4000:]}" for name, op in self.operators.items())


@dataclass(frozen=True)
class Write:
    """One request that changes something, and which operator sent it."""

    by: str
    event: AuditEvent

    @property
    def of_lease(self) -> bool:
        return self.event.resource == "leases"

    @property
    def takes(self) -> bool:
        """Whether from here on the lease is the sender's (or was, when it gives it back)."""
        return self.of_lease and self.event.name == RELEASE and self.event.status < 300

    def __str__(self) -> str:
        return f"{self.by} {self.event.verb} {self.event.resource} {self.event.name} {self.event.status}"


def out_of_turn(writes: Iterable[Write]) -> list[str]:
    """What was sent by one that did not have the lease, by the order of the audit log; refused or not.

    A request whose sender was frozen in the middle of it arrived before, without its end. The server gives it up (504)
    when the sender wakes up and closes the connection: that did nothing.
    """
    holder, since, found = "nobody", None, []
    for write in writes:
        if write.takes:
            holder, since = write.by, write.event.answered
        elif not write.of_lease and write.by != holder:
            given_up = write.event.status == 504 and since is not None and write.event.received < since
            if not given_up:
                found.append(f"{write} while {holder} had the lease")
    return found


def hand_overs(writes: Sequence[Write]) -> list[tuple[float, float]]:
    """Two durations in seconds for each change of leader; to be printed only.

    From the last sign of the one to the lease of the other, and to the other's first write.
    """
    found: list[tuple[float, float]] = []
    last: Write | None = None
    taken: AuditEvent | None = None
    before: AuditEvent | None = None
    for write in writes:
        if write.takes and last is not None and write.by != last.by:
            before, taken = last.event, write.event
        elif not write.of_lease and taken is not None and before is not None:
            found.append(
                (
                    (taken.answered - before.answered).total_seconds(),
                    (write.event.received - before.answered).total_seconds(),
                )
            )
            before = taken = None
        if write.takes or not write.of_lease:
            last = write
    return found


def gaps(title: str, writes: Sequence[Write], runs: int) -> str:
    """One line for whoever reads the output."""
    found = hand_overs(writes)
    if not found:
        return f"{title}: {runs} runs, the leader stayed"
    to_lease, to_write = (max(seconds) for seconds in zip(*found, strict=True))
    return (
        f"{title}: {runs} runs, {len(found)} hand-overs; longest gap {to_lease:.1f} s to the next lease,"
        f" {to_write:.1f} s to the next write; Secrets left: 0"
    )


# runs


class Load:
    """Runs that are made one after the other, so that some are always under way. Each fourth fails by itself."""

    def __init__(self, team: Team) -> None:
        self._team = team
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._made = 0
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _feed(self) -> None:
        while not self._ended.wait(0.1):
            try:
                found = self._team.client.list("workflowruns", self._team.namespace)
                open_ = sum(not _is_over(run) for run in found)
                if open_ < _AT_ONCE:
                    self._make(self._made)
                    self._made += 1
            except (ApiError, urllib3.exceptions.HTTPError) as error:
                if isinstance(error, ApiError) and error.status == 409:
                    self._made += 1  # it was made, and its answer was lost
            except Exception as error:  # noqa: BLE001 -- the test's thread raises it
                self._failure = error
                return

    def _make(self, number: int) -> None:
        ends = ";sys.exit(1)" if _fails(number) else ""
        command = python(f"import sys,time;{CHECKS_ITS_VARIABLE};time.sleep({number % 3}){ends}")
        self._team.make_run(f"job-{number:03d}", command=command, pod={"hostNetwork": True})

    def stop_and_check(self) -> int:
        """Wait until all runs are over, and check that each went as if nothing had happened; how many there were."""
        self.__exit__()
        if self._failure is not None:
            raise self._failure
        team = self._team
        wait_with_progress(
            *("the end of all runs", team.versions, lambda: all(map(_is_over, self._runs()))),
            tell=team.unfinished,
        )
        runs = self._runs()
        assert len(runs) == self._made >= _AT_ONCE
        for run in runs:
            name, number = run["metadata"]["name"], int(run["metadata"]["name"].rpartition("-")[2])
            assert phase(run) == ("Failed" if _fails(number) else "Succeeded"), (name, run["status"])
            assert run["status"]["live"] == 0
            assert len(exposures(run)) == 1, (name, "an attempt more than it needed")
            # each Secret was made once, and is gone for good
            assert team.secret_story(team.object_name(run)) == ["made", "gone"], name
            assert team.printed(run) == [f"sha256 {team.digest}\n"], name
        assert team.cluster.etcd.keys(f"/registry/secrets/{team.namespace}/rk-") == []
        return len(runs)

    def _runs(self) -> list[Object]:
        return self._team.client.list("workflowruns", self._team.namespace)


def _fails(number: int) -> bool:
    return number % 4 == 3


def _is_over(run: Object) -> bool:
    return phase(run) in ("Succeeded", "Failed") and condition(run, "SecretsReleased").get("status") == "True"


# the way to the API server


class Network:
    """What lies between one operator and the API server; can be cut."""

    def __init__(self, proxy: ApiProxy) -> None:
        self._proxy = proxy
        self._is_cut = False
        proxy.before_forward, proxy.after_answer = self._before, self._after

    def cut(self) -> None:
        """Let nothing through: requests hear nothing, until they give up or it is mended."""
        self._is_cut = True
        self._proxy.cut(lambda _: True)

    def mend(self) -> None:
        self._is_cut = False

    async def _before(self, _: Request) -> Action | None:
        if not self._is_cut:
            return None
        while self._is_cut:  # noqa: ASYNC110 -- it is mended from another thread
            await asyncio.sleep(0.05)
        return Reset()

    async def _after(self, _: Request) -> Action | None:
        return LoseAnswer() if self._is_cut else None


PairMaker = Callable[..., "Pair"]


@contextmanager
def pair_in(
    cluster: Cluster,
    namespace: str,
    folder: Path,
    *,
    servers: Sequence[str | None] = (None, None),
    arguments: Sequence[Sequence[str]] = ((), ()),
    lease_seconds: int = LEASE_SECONDS,
) -> Iterator[Pair]:
    """A team whose two operators are not started yet.

    :param arguments: more of them, for each; ``{namespace}`` is put in.
    """
    with ExitStack() as ends:
        account = install_rights(cluster, namespace, (SOURCE,))
        operators = [
            ends.enter_context(
                operator_of(
                    *(cluster, namespace, folder, "--lease-seconds", str(lease_seconds)),
                    *(part.format(namespace=namespace) for part in more),
                    account=account,
                    server=server,
                    identity=name,
                )
            )
            for name, server, more in zip(NAMES, servers, arguments, strict=True)
        ]
        pair = Pair(Team(cluster, namespace, operators[0]), operators)
        pair.team.may_be_near_the_node()  # the load's pods have no network of their own, which is quicker
        pair.team.make_source()
        pair.team.make_binding()
        ends.enter_context(pair.supervised())
        yield pair


def wait_seconds(seconds: float) -> None:
    """Let time pass that a test is about. Nothing is asserted of it."""
    time.sleep(seconds)
