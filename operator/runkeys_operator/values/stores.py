"""Reads values from SecretStores, as the service account of the pod that they are for. None is kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from runkeys._text.store_answers import bytes_of
from runkeys.api import SecretStore
from runkeys.api.common import describe_invalid
from runkeys.names import LABEL_STORE
from runkeys.planning.refusal import Reason, Refusal, listed
from runkeys.planning.requirements import PodIdentity, SecretReference, StoreValue
from runkeys.planning.stores import misfit, token_grant
from runkeys_operator.errors import Conflict, Forbidden, Invalid, NotFound
from runkeys_operator.kube import STORES, Kube
from runkeys_operator.stores.csi import NO_PROVIDERS, Csi, Providers
from runkeys_operator.stores.https import Https
from runkeys_operator.stores.provider import (
    Answer,
    Failure,
    Identity,
    Pending,
    Provider,
    Session,
    StoreError,
)
from runkeys_operator.stores.vault import Vault
from runkeys_operator.values.refused import SourceRefusedError
from runkeys_operator.values.revoker import Revoker

log = logging.getLogger(__name__)

TOKEN_SECONDS = 600
"""The shortest time that the API server gives a token."""

_REASONS = {
    Failure.AWAY: Reason.SOURCE_UNAVAILABLE,
    Failure.LOGIN: Reason.STORE_LOGIN_REFUSED,
    Failure.FORBIDDEN: Reason.SOURCE_FORBIDDEN,
    Failure.NOT_FOUND: Reason.SOURCE_NOT_FOUND,
    Failure.UNFIT: Reason.SOURCE_UNAVAILABLE,
}


class Stores:
    """The stores of this cluster. With none configured (``audiences`` empty) it reads nothing."""

    def __init__(
        self,
        kube: Kube,
        audiences: Sequence[str] = (),
        *,
        tokens: Path | None = None,
        providers: Path | None = None,
    ) -> None:
        """Read no store yet.

        :param audiences: those of which the operator may request tokens.
        :param tokens: see :class:`.revoker.Revoker`.
        :param providers: folder with the sockets of providers; None: there are none.
        """
        self._kube = kube
        self._audiences = tuple(audiences)
        self._https = Https()
        self._providers = Providers(providers)
        self.revoker = Revoker(tokens)

    def __repr__(self) -> str:
        return f"Stores({', '.join(self._audiences)})"

    async def close(self) -> None:
        """End the operator's own logins, and close the connections."""
        await self.revoker.close()
        await self._https.close()

    async def read(self, references: Sequence[SecretReference], pod: PodIdentity) -> dict[StoreValue, bytes]:
        """The values of those references that a store has.

        Each role of a store logs in once, each path is read once, and the logins end before this returns.

        :raises SourceRefusedError: for the first one that cannot be read.
        :raises ApiError: if the API server could not be asked.
        """
        found: dict[StoreValue, bytes] = {}
        for wanted in by_login(references, leased=False).values():
            found |= await self._read_as_one(wanted, pod)
        return found

    async def _read_as_one(
        self, wanted: Sequence[tuple[SecretReference, StoreValue]], pod: PodIdentity
    ) -> dict[StoreValue, bytes]:
        """All of one store and role."""
        first, source = wanted[0]
        store, provider = await self.provider(first, source)
        check_fit(store, wanted)
        session = await self.open(first, source, store, provider, pod)
        try:
            answers: dict[str, Answer] = {}
            found: dict[StoreValue, bytes] = {}
            for reference, one in wanted:
                if one.path not in answers:
                    answers[one.path] = await self._answer(reference, one, provider, session)
                found[one] = field_of(reference, one, answers[one.path])
            return found
        finally:
            ended = await provider.close(session)
            if isinstance(ended, Pending):
                log.warning(
                    "a login at SecretStore %s is not revoked, and ends by itself after %d s: %s",
                    *(source.store, session.seconds, ended.why),
                )

    async def check(self, references: Sequence[SecretReference]) -> None:
        """Whether values can be read, as far as that can be said without their pod.

        :raises SourceRefusedError, ApiError: as :meth:`read` does.
        """
        for leased in (False, True):
            for wanted in by_login(references, leased=leased).values():
                reference, source = wanted[0]
                store, provider = await self.provider(reference, source)
                check_fit(store, wanted)
                try:
                    await provider.check(source.role)
                except StoreError as error:
                    raise refused(reference, source, error) from None
                if leased:
                    await self.revoker.check(reference, store, provider)

    async def problem(self, store: SecretStore) -> tuple[Reason, str] | None:
        """Why a store cannot be used by anybody, or None."""
        if not self._audiences:
            return Reason.STORES_UNAVAILABLE, _DISABLED
        unserved = self._unserved(store)
        if unserved is not None:
            return Reason.STORES_UNAVAILABLE, unserved
        try:
            await self.of(store).check()
        except StoreError as error:
            return _REASONS[error.failure], str(error)
        return None

    async def revocation_problem(self, store: SecretStore) -> tuple[Reason, str] | None:
        """Why leases of a store could not be revoked, or None."""
        return await self.revoker.problem(store, self.of(store))

    async def provider(self, reference: SecretReference, source: StoreValue) -> tuple[SecretStore, Provider]:
        """The store of a reference. Raises SourceRefusedError, ApiError."""
        where = f"{reference.what}: "
        if not self._audiences:
            raise refusal(reference, Reason.STORES_UNAVAILABLE, where + _DISABLED)
        try:
            store = SecretStore.parse(await self._kube.get(STORES, None, source.store))
        except NotFound:
            raise refusal(
                reference,
                Reason.STORE_NOT_FOUND,
                f"{where}there is no SecretStore {source.store}; an administrator of the cluster can create it, and"
                " the run then continues",
            ) from None
        except Forbidden:
            raise refusal(
                reference,
                Reason.STORES_UNAVAILABLE,
                f"{where}the operator may not read SecretStores (stores.enabled of the chart)",
            ) from None
        except ValidationError as error:
            raise refusal(
                reference,
                Reason.STORES_UNAVAILABLE,
                f"{where}SecretStore {source.store} cannot be read: {describe_invalid(error)}",
            ) from None
        unserved = self._unserved(store)
        if unserved is not None:
            raise refusal(reference, Reason.STORES_UNAVAILABLE, where + unserved)
        return store, self.of(store)

    def of(self, store: SecretStore) -> Provider:
        """What speaks to a store."""
        if store.spec.vault is not None:
            return Vault(self._https, store.spec.vault)
        if store.spec.csi is not None:
            return Csi(self._providers, store.spec.csi)
        raise ValueError("a SecretStore without a kind, which its rules refuse")

    def _unserved(self, store: SecretStore) -> str | None:
        """Why this operator cannot read a store, whatever the store says; None if it can."""
        name, audience, csi = store.metadata.name, store.spec.audience, store.spec.csi
        if audience not in self._audiences:
            return (
                f"SecretStore {name} has audience {audience!r}, and the operator may request tokens only for:"
                f" {listed(self._audiences)} (stores.audiences of the chart)"
            )
        if csi is not None and not self._providers.any:
            return f"SecretStore {name} is read by provider {csi.provider!r}, and {NO_PROVIDERS}"
        return None

    async def open(
        self,
        reference: SecretReference,
        source: StoreValue,
        store: SecretStore,
        provider: Provider,
        pod: PodIdentity,
    ) -> Session:
        """Log in as the pod's service account. Raises SourceRefusedError, ApiError."""
        token = await self._token(reference, source, store.spec.audience, pod)
        try:
            return await provider.open(Identity(source.role, token))
        except StoreError as error:
            raise refused(reference, source, error) from None

    async def _token(
        self, reference: SecretReference, source: StoreValue, audience: str, pod: PodIdentity
    ) -> str:
        """A token of the pod's service account that is good for this store, and only as long as the pod is there."""
        where = f"{reference.what}: a token of service account {pod.service_account} for SecretStore {source.store}"
        try:
            return await self._kube.request_token(
                pod.namespace,
                pod.service_account,
                pod=(pod.name, pod.uid),
                audience=audience,
                seconds=TOKEN_SECONDS,
                labels={LABEL_STORE: source.store},
            )
        except Forbidden as error:
            if "ValidatingAdmissionPolicy" in error.message:
                message = f"{where} is refused: {error.message}"
            else:
                grant = await self._grant(pod)
                message = f"{where} may not be requested by the operator; opt in with: {grant}"
            raise refusal(reference, Reason.SOURCE_FORBIDDEN, message) from None
        except (NotFound, Conflict, Invalid) as error:
            # The pod has gone or is another one by now: a fresh look shows it.
            raise refusal(reference, Reason.SOURCE_UNAVAILABLE, f"{where} was not given: {error}") from None

    async def _grant(self, pod: PodIdentity) -> str:
        username = str((await self._kube.who_am_i())["status"]["userInfo"]["username"])
        return token_grant(pod.namespace, pod.service_account, username)

    async def _answer(
        self, reference: SecretReference, source: StoreValue, provider: Provider, session: Session
    ) -> Answer:
        try:
            answer = await provider.read(session, source.path)
        except StoreError as error:
            raise refused(reference, source, error) from None
        if answer.lease is not None:
            raise refusal(
                reference,
                Reason.SOURCE_UNAVAILABLE,
                f"{reference.what}: path {source.path} of SecretStore {source.store} creates a credential with a lease,"
                " which a value would not outlive; name it under lease instead of value",
            )
        return answer


_DISABLED = (
    "values of stores are not enabled here (stores.enabled of the chart); ask an administrator of the cluster"
)


def check_fit(store: SecretStore, wanted: Sequence[tuple[SecretReference, StoreValue]]) -> None:
    """Refuse entries that cannot be of this kind of store."""
    for reference, source in wanted:
        found = misfit(store, source)
        if found is not None:
            raise refusal(reference, found[0], f"{reference.what}: {found[1]}")


def by_login(
    references: Sequence[SecretReference], *, leased: bool
) -> dict[tuple[str, str], list[tuple[SecretReference, StoreValue]]]:
    """Those that a store has, with a lease or without, by store and role."""
    logins: dict[tuple[str, str], list[tuple[SecretReference, StoreValue]]] = {}
    for reference in references:
        source = reference.source
        if isinstance(source, StoreValue) and source.leased is leased:
            logins.setdefault((source.store, source.role), []).append((reference, source))
    return logins


def field_of(reference: SecretReference, source: StoreValue, answer: Answer) -> bytes:
    """The value of a field of a store's answer."""
    if not source.field and answer.content is not None:
        return answer.content
    value = answer.fields.get(source.field)
    if answer.content is not None and not answer.fields:
        raise refusal(
            reference,
            Reason.SOURCE_KEY_MISSING,
            f"{reference.what}: path {source.path} of SecretStore {source.store} is not a JSON object, so it has no"
            f" field {source.field!r}; leave field out, and the value is all of it",
        )
    if value is None:
        raise refusal(
            reference,
            Reason.SOURCE_KEY_MISSING,
            f"{reference.what}: path {source.path} of SecretStore {source.store} has no field {source.field!r}; its"
            f" fields: {listed(sorted(answer.fields)) or 'none'}",
        )
    return bytes_of(value)


def refused(reference: SecretReference, source: StoreValue, error: StoreError) -> SourceRefusedError:
    """That a store did not do it, in the words of a refusal."""
    store, role, path = f"SecretStore {source.store}", source.role, source.path
    told = f"{store}: {error}"
    if error.failure is Failure.FORBIDDEN and not str(error):
        told = f"role {role} may not read path {path} of {store}; give its policy read on it"
    elif error.failure is Failure.NOT_FOUND:
        why = f" ({error})" if str(error) else ""
        told = f"nothing is at path {path} of {store}{why}; write it there, or name another path"
    elif error.failure in (Failure.UNFIT, Failure.FORBIDDEN):
        told = f"path {path} of {store}: {error}"
    elif error.failure is Failure.AWAY:
        told += "; it is asked again"
    return refusal(reference, _REASONS[error.failure], f"{reference.what}: {told}")


def refusal(reference: SecretReference, reason: Reason, message: str) -> SourceRefusedError:
    """A refusal that others can mend while the run waits."""
    return SourceRefusedError(Refusal(reason, reference.field, message, permanent=False))
