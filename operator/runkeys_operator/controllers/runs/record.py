"""The record kept of a run between two passes: about two kilobytes, not parsed trees."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from runkeys.api import WorkflowRun
from runkeys.planning.bindings import Bindings, bindings_of, requester_of
from runkeys.planning.observation import Observation
from runkeys_operator.controllers.bindings import of_owner

_NO_BINDINGS = Bindings({}, {})


def awaited(obs: Observation) -> list[str]:
    """The bindings whose changes concern the run: by name, and its requester's own by `of_owner`."""
    personal = any(reference.personal for reference in obs.run.spec.bindings)
    return [*bindings_of(obs.run, obs.bindings), *([of_owner(requester_of(obs.run))] if personal else [])]


class Record:
    """A run as it was last read or answered, and what this process knows of it besides.

    Packed, which it is between passes, it holds of the pod templates only the names of the containers that carry
    secrets, of the sealed input only the fields' names: a Job or Secret is only ever made from a run that was just
    read.

    :ivar finished: its status is final.
    :ivar awaited: of all observations so far.
    """

    __slots__ = (
        "_deleting",
        "_generation",
        "_labels",
        "_run",
        "_version",
        "awaited",
        "finished",
        "memory",
        "uid",
    )

    def __init__(self, obs: Observation) -> None:
        self.memory = obs.memory
        self._version = ""
        self.awaited: tuple[str, ...] = ()
        self.update(obs)

    def update(self, obs: Observation) -> None:
        """Take in the result of a pass."""
        self.memory = obs.memory
        run, metadata = obs.run, obs.run.metadata
        # A personal one has a name only where it was looked for.
        self.awaited = tuple(dict.fromkeys((*self.awaited, *awaited(obs))))
        if metadata.resource_version == self._version:
            return
        self._version = metadata.resource_version
        self.uid = metadata.uid
        self._generation = metadata.generation
        self._labels = metadata.labels
        self._deleting = metadata.deletion_timestamp is not None
        self.finished = run.status.finished
        self._run: WorkflowRun | bytes = run

    def pack(self) -> None:
        """Make it small: the pass has finished."""
        run = self._run
        if isinstance(run, bytes):
            return
        tasks = [
            task.model_copy(
                update={
                    "template": {"spec": {"containers": [{"name": name} for name in task.secret_containers]}}
                }
            )
            for task in run.spec.tasks
        ]
        sealed = dict.fromkeys(run.spec.sealed_input, "")
        slim = run.model_copy(
            update={
                "metadata": run.metadata.model_copy(update={"annotations": {}}),
                "spec": run.spec.model_copy(update={"tasks": tasks, "sealed_input": sealed}),
            }
        )
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
