"""What the chart makes for the Prometheus operator, looked at by an API server that knows its kinds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from testing.cluster.base import ClusterError
from testing.cluster.build import COMPONENTS
from testing.cluster.golang import go_command
from testing.operators import wait_established
from tests.e2e.conftest import OwnNode
from tests.e2e.test_chart import EVERYTHING, one, template, try_out
from tests.e2e.test_chart_install import settled_node

pytestmark = pytest.mark.e2e

MODULE = "github.com/prometheus-operator/prometheus-operator"


def their_kinds() -> list[Path]:
    """CRD files of the Prometheus operator, from its module, whose checksum go.sum pins."""
    done = subprocess.run(
        [go_command((1, 26)), "mod", "download", "-json", MODULE],
        cwd=COMPONENTS / "prometheus-operator",
        env={**os.environ, "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    return [folder / f"monitoring.coreos.com_{kind}.yaml" for kind in ("servicemonitors", "prometheusrules")]


def test_the_api_server_takes_monitor_and_rules(own_node: OwnNode) -> None:
    node = settled_node(own_node)
    for path in their_kinds():
        node.kubectl("apply", "--server-side", "-f", str(path))
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        wait_established(node, name)
    labels = (
        "--set=serviceMonitor.labels.release=prometheus",
        "--set=prometheusRule.labels.release=prometheus",
    )
    manifests = template(node, *EVERYTHING, *labels, to="default")
    monitor, rule, service = (
        one(manifests, kind) for kind in ("ServiceMonitor", "PrometheusRule", "Service")
    )

    assert try_out(node, [monitor, rule, service]).count("(server dry run)") == 3
    assert monitor["metadata"]["labels"]["release"] == rule["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint], [port] = monitor["spec"]["endpoints"], service["spec"]["ports"]
    assert endpoint["port"] == port["name"]
    [container] = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert port["targetPort"] in [item["name"] for item in container["ports"]]

    monitor["spec"]["endpoint"] = monitor["spec"].pop("endpoints")
    with pytest.raises(ClusterError, match="endpoint"):
        try_out(node, [monitor])
