"""Start a run for one circuit, hand it a secret, and return what came out."""

import json
import os
from pathlib import Path

from runkeys import Client, secrets

# What the new run does, in the image of this one.
PROGRAM = """
import hashlib, json, os
digest = hashlib.sha256(os.environ["SECRET_TOKEN"].encode()).hexdigest()
json.dump({"digest": digest}, open("/var/runtime/output/output.json", "w"))
"""

client = Client(operator_namespace=os.environ.get("RUNKEYS_OPERATOR_NAMESPACE", "runkeys-system"))
container = {"name": "main", "image": os.environ["IMAGE"], "command": ["python3", "-c", PROGRAM]}
run = client.run(
    {
        "metadata": {"generateName": "circuit-"},
        "spec": {
            "input": {"$secrets": {"handed_on": secrets.get("circuit_token")}},
            "tasks": [
                {
                    "name": "run-circuit",
                    "secrets": [{"name": "token", "input": "handed_on"}],
                    "recordOutput": True,
                    "template": {"spec": {"containers": [container]}},
                }
            ],
        },
    },
    timeout=600,
)
result = {"run": run.metadata.name, "phase": run.status.phase, "output": run.status.tasks[0].output}
Path("/var/runtime/output/output.json").write_text(json.dumps(result))
