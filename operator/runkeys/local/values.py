"""Values of a local run: those that tasks ask for, and those that the user gave."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from runkeys._text.store_answers import bytes_of
from runkeys._text.templates import NotTextError, TooLongError
from runkeys.api import AccessRule, BindingEntry, SecretBinding, WorkflowRun, offline
from runkeys.api.binding import Owner, SecretBindingSpec
from runkeys.api.common import LabelSelector, ObjectMeta
from runkeys.client.submission import LOCAL, PERSONAL, assumed_bindings, refusals
from runkeys.local.stores import Answer, Lease, UserStore
from runkeys.names import secret_variable
from runkeys.planning.bindings import requester_of
from runkeys.planning.refusal import listed
from runkeys.planning.requirements import (
    SecretReference,
    StoreValue,
    TaskRequirements,
    TemplateValue,
    read_by,
    task_requirements,
)
from runkeys.problems import Invalid, NotFound

Values = Mapping[str, str]
FindStore = Callable[[], UserStore]

MOST_BYTES = 512 * 1024
"""Maximum length of a template's value, as in the cluster."""


def known_bindings(run: WorkflowRun, documents: Sequence[Mapping[str, Any]]) -> dict[str, SecretBinding]:
    """Those of the manifests that the run names, as they are written.

    :raises Invalid: the API server would refuse one.
    """
    named = {item.name if item.name is not None else PERSONAL for item in run.spec.bindings}
    found: dict[str, SecretBinding] = {}
    for number, raw in enumerate(documents):
        if raw in documents[:number]:
            continue  # a file that was named twice
        metadata, spec = raw.get("metadata") or {}, raw.get("spec") or {}
        if not isinstance(metadata, dict) or not isinstance(spec, dict):
            continue
        name = PERSONAL if spec.get("owner") else metadata.get("name")
        if name not in named or metadata.get("namespace", run.metadata.namespace) != run.metadata.namespace:
            continue
        if name in found:
            raise Invalid(f"SecretBinding {name} is there twice; leave one of them out")
        problems = offline.refusals(SecretBinding, raw)
        if problems:
            lines = "\n".join(f"  {item}" for item in problems)
            raise Invalid(f"the API server would refuse SecretBinding {name}:\n{lines}")
        found[name] = SecretBinding.parse(dict(raw))
    return found


def _open(run: WorkflowRun, name: str, binding: SecretBinding) -> SecretBinding:
    """Whom a binding admits, for how long and how is for the cluster to say. A lease is ended by the local run."""
    secrets = [
        entry
        if entry.template is not None
        else BindingEntry(name=entry.name, value=entry.value or entry.lease)
        if entry.value is not None or entry.lease is not None
        else BindingEntry(name=entry.name, sealed=LOCAL)
        for entry in binding.spec.secrets
    ]
    owner = Owner(username=requester_of(run)) if name == PERSONAL else None
    spec = SecretBindingSpec(
        owner=owner,
        secrets=secrets,
        access=[AccessRule(run_selector=LabelSelector())],
        max_lifetime_seconds=604800,
    )
    return SecretBinding(metadata=ObjectMeta(name=name, namespace=run.metadata.namespace), spec=spec)


class Material:
    """The values of a run's secrets.

    Those that the user gave and those that a store keeps are read at once. A lease is opened for each attempt that
    needs it, as in the cluster.

    :ivar by_field: values by the field of the task that asks for them, but for those with a lease.
    :ivar seen: all values that were read, those that are parts of others too: to be masked.
    """

    def __init__(
        self,
        run: WorkflowRun,
        known: Mapping[str, SecretBinding],
        values: Values,
        own: Values,
        store: FindStore,
    ) -> None:
        """:param known: the bindings of the manifests, as they are written."""
        self.by_field: dict[str, bytes] = {}
        self.seen: dict[bytes, None] = dict.fromkeys(os.fsencode(value) for value in own.values())
        self._leased = {
            (name, entry.name)
            for name, binding in known.items()
            for entry in binding.spec.secrets
            if entry.lease is not None
        }
        self._values, self._own = values, own
        self._find_store = store
        self._store: UserStore | None = None
        self._names: set[str] = set()
        self._answers: dict[str, Answer] = {}
        bindings = assumed_bindings(run, {name: _open(run, name, binding) for name, binding in known.items()})
        self.bindings = bindings
        deadline = run.spec.active_deadline_seconds
        self._longest = timedelta(seconds=deadline + 600) if deadline is not None else None
        problems = refusals(run, bindings)
        if problems:
            raise Invalid(
                "the run cannot work as it is written:\n" + "\n".join(f"  {item}" for item in problems)
            )
        self._read_all(run)

    def of_attempt(self, references: Sequence[SecretReference], leases: list[Lease]) -> dict[str, bytes]:
        """The values of an attempt by their keys. Leases are opened, and added to ``leases`` as they are."""
        answers: dict[str, Answer] = {}
        found = {}
        for reference in references:
            value = self.by_field.get(reference.field)
            if value is None:
                parts = {}
                for part in read_by([reference]):
                    source = part.source
                    if self._given(part) is None and isinstance(source, StoreValue) and self._is_leased(part):
                        if source.path not in answers:
                            answers[source.path] = self._open_lease(part, source, leases)
                        parts[part.entry] = _field(part, source, answers[source.path])
                    else:
                        parts[part.entry] = self._value(part) or b""
                value = _put_together(reference, parts)
                self.seen |= dict.fromkeys((*parts.values(), value))
            found[reference.key] = value
        return found

    def revoke(self, lease: Lease) -> str:
        """Why a lease is not revoked, or an empty text."""
        return self._user_store().revoke(lease)

    def _read_all(self, run: WorkflowRun) -> None:
        missing: list[str] = []
        for index, task in enumerate(run.spec.tasks):
            requirements = task_requirements(run, index, self.bindings)
            for reference in requirements.references if isinstance(requirements, TaskRequirements) else ():
                value = self._given(reference)
                if value is None:
                    value = self._from_parts(task.name, reference, missing)
                if value is not None:
                    self.by_field[reference.field] = _fit(reference, value)
                    self.seen[value] = None
        if missing:
            raise NotFound(
                "these secrets have no value; add them to the file of --env-file:\n"
                + "\n".join(dict.fromkeys(missing))
            )

    def _from_parts(self, task: str, reference: SecretReference, missing: list[str]) -> bytes | None:
        """The value; None if it has a lease, or if parts are missing, which are noted."""
        parts: dict[str, bytes] = {}
        complete = True
        for part in read_by([reference]):
            value = self._value(part)
            if value is not None:
                parts[part.entry] = value
                self.seen[value] = None
                continue
            complete = False
            if not self._is_leased(part):
                needs = f", for the template of {reference.entry!r}" if part is not reference else ""
                missing.append(f"  task {task}, {part.what}{needs}: {_names_of(part)[0]}=…")
        return _put_together(reference, parts) if complete else None

    def _value(self, part: SecretReference) -> bytes | None:
        """A value that the user gave or a store keeps. Of a lease, that there is a login is all that is checked."""
        value = self._given(part)
        source = part.source
        if value is not None or not isinstance(source, StoreValue):
            return value
        store = self._user_store(part, source)
        if self._is_leased(part):
            return None
        if source.path not in self._answers:
            self._answers[source.path] = store.read(source.path, part.what)
        return _field(part, source, self._answers[source.path])

    def _open_lease(self, part: SecretReference, source: StoreValue, leases: list[Lease]) -> Answer:
        answer = self._user_store(part, source).read(
            source.path, part.what, leased=True, longest=self._longest
        )
        if answer.lease is not None:
            leases.append(answer.lease)
        return answer

    def _user_store(self, part: SecretReference | None = None, source: StoreValue | None = None) -> UserStore:
        if source is not None and part is not None and not (source.role and source.field):
            raise Invalid(
                f"{part.what} is in SecretStore {source.store}, which is no Vault or OpenBao server; a local run reads"
                f" only from those: give it with --env-file: {_names_of(part)[0]}=…"
            )
        if source is not None:
            self._names.add(source.store)
        if part is not None and len(self._names) > 1:
            raise Invalid(
                f"the run reads from several stores ({', '.join(sorted(self._names))}), and a local run has the login"
                f" for one; give {part.what} with --env-file: {_names_of(part)[0]}=…"
            )
        if self._store is None:
            try:
                self._store = self._find_store()
            except NotFound as error:
                if part is None:
                    raise
                problem = NotFound(f"{part.what} is in a store: {error}, as {_names_of(part)[0]}=…")
            else:
                return self._store
            raise problem
        return self._store

    def _is_leased(self, part: SecretReference) -> bool:
        return (part.binding, part.entry) in self._leased

    def _given(self, reference: SecretReference) -> bytes | None:
        if not reference.binding:
            return os.fsencode(self._own[reference.entry])
        name = next((name for name in _names_of(reference) if name in self._values), None)
        return None if name is None else os.fsencode(self._values[name])


def _names_of(reference: SecretReference) -> Sequence[str]:
    names = [reference.variable, secret_variable(reference.entry), reference.entry]
    return [name for name in dict.fromkeys(names) if name]


def _put_together(reference: SecretReference, parts: Mapping[str, bytes]) -> bytes:
    """The value: of a template the result."""
    value = (
        _rendered(reference, reference.source, parts)
        if isinstance(reference.source, TemplateValue)
        else parts[reference.entry]
    )
    return _fit(reference, value)


def _fit(reference: SecretReference, value: bytes) -> bytes:
    """The value, if what asks for it can carry it."""
    if reference.variable and b"\0" in value:
        raise Invalid(f"{reference.what} holds a NUL byte, which no variable can; deliver it as a file")
    return value


def _rendered(reference: SecretReference, source: TemplateValue, parts: Mapping[str, bytes]) -> bytes:
    try:
        return source.template.render(parts, MOST_BYTES)
    except TooLongError:
        problem = f"the result of its template has more than {MOST_BYTES} bytes; shorten it, or split it"
    except NotTextError as error:
        name = error.name
        problem = f"the value of {name!r} is not text, and {{{{ {name} | json }}}} takes UTF-8; use | base64"
    raise Invalid(f"{reference.what}: {problem}")


def _field(part: SecretReference, source: StoreValue, answer: Answer) -> bytes:
    value = answer.fields.get(source.field)
    if value is None:
        raise NotFound(
            f"{part.what}: path {source.path} has no field {source.field!r}; its fields:"
            f" {listed(sorted(answer.fields)) or 'none'}"
        )
    return bytes_of(value)
