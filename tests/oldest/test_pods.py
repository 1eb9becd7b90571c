"""An API server without pod certificates, and without policies that change pods: a pod that asks is refused."""

from __future__ import annotations

import pytest

from testing.cluster.base import wait_until
from testing.namespace import Team
from tests.e2e.pods.conftest import SETS, asking, refusal
from tests.e2e.runs.conftest import TeamMaker

pytestmark = pytest.mark.e2e


def test_a_pod_that_asks_is_refused_and_never_started_without_its_secrets(new_team: TeamMaker) -> None:
    team: Team = new_team(start=False, sets=SETS, sources=())
    pod = asking(team, serviceAccountName="default", automountServiceAccountToken=False)
    wait_until("the policies on pods that ask", lambda: bool(refusal(team, pod)))
    told = refusal(team, pod)
    assert (
        "after admission it does not: this Kubernetes lacks PodCertificateRequest (1.37 and later have it)"
        in told
    )
    plain = asking(team, serviceAccountName="default", automountServiceAccountToken=False)
    del plain["metadata"]["labels"], plain["metadata"]["annotations"]
    assert refusal(team, plain) == "", "a pod that does not ask is as it was"
