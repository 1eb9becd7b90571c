"""Whoever has got hold of the operator's token can touch no request that asks another signer."""

from __future__ import annotations

import pytest

from testing.cluster.client import ApiError
from testing.namespace import FINISHES_WHEN_TOLD, Team, phase, python
from tests.e2e.delivery.test_attackers import forged, key_of_ours, make, path

pytestmark = pytest.mark.e2e


def test_the_operators_token_deletes_only_requests_for_its_own_signer(team: Team) -> None:
    team.make_run(command=python(FINISHES_WHEN_TOLD))
    found = team.run()
    pod = team.wait_running(found)
    _, request = key_of_ours()
    theirs = make(team, forged(team, pod, request, signerName="example.org/other"))
    stolen = team.client.with_token(team.client.token(team.namespace, "runkeys"))

    def delete() -> None:
        stolen.request("DELETE", path(team, theirs), query={"dryRun": "All"})

    with pytest.raises(ApiError, match="answers and deletes only PodCertificateRequests for"):
        delete()
    # the twin: RBAC alone, which knows no signers, lets it
    with team.without_policies("operator"):
        delete()
    team.tell_to_finish(found)
    assert phase(team.wait_phase("job", "Succeeded", "Failed")) == "Succeeded"
