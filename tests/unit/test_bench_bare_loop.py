"""What the bare loop makes is what the operator makes, or the two are not compared with like."""

from __future__ import annotations

import json

from bench.bare_loop import JobTemplate
from bench.process import placeholder
from bench.team import job_of
from testing.namespace import run


def test_template_gives_the_job_of_each_run() -> None:
    task = {"template": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}
    template = JobTemplate(job_of(placeholder("team", task)))
    for name, uid in (("run-0001", "a-uid"), ("r" * 63, "another-uid")):
        made = run("team", name, task=task)
        made["metadata"]["uid"] = uid
        assert json.loads(template.of(name, uid)) == job_of(made)
