"""What is kept of a run between two passes: a record of about two kilobytes, not parsed trees."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from runkeys.api import WorkflowRun
from runkeys.needs import Bindings
from runkeys.observation import Observation
from runkeys.status import finished
from runkeys.template import carriers

_NO_BINDINGS = Bindings({}, {})


class Record:
    """A run as it was last read or answered, and what this process knows of it besides.

    Packed, which it is between passes, it holds of the pod templates only the names of the containers that carry
    secrets: a Job is only ever made from a run that was just read.

    :ivar finished: its status is final.
    :ivar bindings: names of the bindings that it names.
    """

    __slots__ = (
        "_deleting",
        "_generation",
        "_labels",
        "_run",
        "_version",
        "bindings",
        "finished",
        "memory",
        "uid",
    )

    def __init__(self, obs: Observation) -> None:
        self.memory = obs.memory
        self._version = ""
        self.update(obs)

    def update(self, obs: Observation) -> None:
        """Take in what a pass has come to."""
        self.memory = obs.memory
        run, metadata = obs.run, obs.run.metadata
        if metadata.resource_version == self._version:
            return
        self._version = metadata.resource_version
        self.uid = metadata.uid
        self._generation = metadata.generation
        self._labels = metadata.labels
        self._deleting = metadata.deletion_timestamp is not None
        self.finished = finished(run.status)
        self.bindings = tuple(dict.fromkeys(reference.name for reference in run.spec.bindings))
        self._run: WorkflowRun | bytes = run

    def pack(self) -> None:
        """Make it small: the pass is over."""
        run = self._run
        if isinstance(run, bytes):
            return
        tasks = [
            task.model_copy(
                update={"template": {"spec": {"containers": [{"name": name} for name in carriers(task)]}}}
            )
            for task in run.spec.tasks
        ]
        slim = run.model_copy(update={"spec": run.spec.model_copy(update={"tasks": tasks})})
        self._run = zlib.compress(slim.model_dump_json(by_alias=True, exclude_defaults=True).encode(), 1)

    def observation(self) -> Observation:
        """As an observation without Jobs and pods, on which nothing can be made."""
        run = self._run
        if isinstance(run, bytes):
            run = WorkflowRun.model_validate_json(zlib.decompress(run))
        return Observation(run, _NO_BINDINGS, {}, (), self.memory)

    def differs(self, uid: str, generation: int, labels: Mapping[str, str], *, deleting: bool) -> bool:
        """Whether this is another run, or another version of what people ask of it; the status is not looked at."""
        return (self.uid, self._generation, self._labels, self._deleting) != (
            uid,
            generation,
            labels,
            deleting,
        )
