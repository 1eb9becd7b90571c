"""What the audit log says of the order of events."""

from __future__ import annotations

from typing import Any

from testing.cluster.audit import AuditEvent, in_order


def request(verb: str, received: str, answered: str) -> AuditEvent:
    day = "2026-11-30T07:07:40."
    raw: dict[str, Any] = {"verb": verb, "user": {}, "requestReceivedTimestamp": f"{day}{received}Z"}
    return AuditEvent(raw | {"stageTimestamp": f"{day}{answered}Z"})


def test_whoever_acts_on_what_another_has_done_came_later_though_the_answers_say_otherwise() -> None:
    made, bound = request("create", "100000", "300000"), request("bind", "200000", "250000")
    assert [event.verb for event in in_order([bound, made])] == ["create", "bind"]
