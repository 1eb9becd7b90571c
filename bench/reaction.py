"""How long the operator takes to make and to delete a Secret, against a bare loop that makes the same calls.

One run at a time on the fake node, alternating. Both clocks are the API server's, as the audit log tells: from the
answered binding of the pod to the answered creation of its Secret, and from the answered status that says that
the pod has ended to the answered deletion. So they include the way of the watch event, for both alike.
"""

from __future__ import annotations

from testing.cluster.base import wait_until
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team

from .calls import delays
from .kwok import pod_template
from .process import bare_loop
from .report import Figure, compared
from .team import job_of, team

_AIM = 1.2
_LONGEST = 60.0


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Two figures: ms from bound to Secret made, and from ended to Secret gone."""
    pairs = 8 if quick else 80
    # Where nobody looks at the figures, the machine may be so busy that a Secret takes a second.
    task = {"template": pod_template(start=0.2, run=2.0 if quick else 0.1)}
    with team(node, "reaction-operator") as ours, team(node, "reaction-bare") as floor, bare_loop(floor):
        ours.operator.start()
        ours.operator.wait_serving()
        # Whom the policies let make such Jobs.
        operator = floor.client.as_user(f"system:serviceaccount:{floor.namespace}:runkeys")
        mark = node.audit.mark()
        for number in range(-1, pairs):  # the first pair only warms up
            if number == 0:
                mark = node.audit.mark()
            for made in (ours, floor) if number % 2 else (floor, ours):
                run = made.make_run(f"run-{number + 1:03d}", task=task)
                if made is floor:
                    operator.create(job_of(run))
                _wait_done(made, run)
        made_after, gone_after = delays(node, mark, ours)
        floor_made, floor_gone = delays(node, mark, floor)
    return [
        compared("Pod bound to Secret made, operator or bare loop", made_after, floor_made, _AIM),
        compared("Pod ended to Secret gone, operator or bare loop", gone_after, floor_gone, _AIM),
    ]


def _wait_done(made: Team, run: Object) -> None:
    def complete(job: Object) -> bool:
        return any(item["type"] == "Complete" for item in job["status"].get("conditions", ()))

    name = made.object_name(run)
    made.client.wait_for("jobs", name, made.namespace, complete, _LONGEST)
    wait_until(f"the end of Secret {name}", lambda: not made.live_secrets(), _LONGEST)
