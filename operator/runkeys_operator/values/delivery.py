"""The three ways a value leaves the operator: a Secret, a pod's certificate, the answer to a SecretReveal."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from runkeys import sealing
from runkeys.sealing import issuer
from runkeys_operator.kube import SECRETS, Json, Kube
from runkeys_operator.values.values import Values, opened

Answer = issuer.Answer


class RecipientError(Exception):
    """There is no key to seal to. The text says what is wrong with it."""


async def create_secret(kube: Kube, namespace: str, manifest: Mapping[str, Any], values: Values) -> Json:
    """Create the Secret of an attempt.

    :param manifest: without data.
    :return: the Secret's metadata.
    :raises ApiError: as :meth:`Kube.create` does.
    """
    data = {name: base64.b64encode(value).decode() for name, value in opened(values).items()}
    return await kube.create(SECRETS, namespace, {**manifest, "data": data})


class CertificateIssuer:
    """Seals values into the certificates that pods ask for. Its key lives and dies with the process."""

    def __init__(self) -> None:
        self._issuer = issuer.Issuer()

    def seal(self, values: Values, request: str, namespace: str, pod_uid: str, now: datetime) -> Answer:
        """The certificate for a pod's request (PKCS#10 in base64), which only that pod can open.

        :raises RecipientError: the request has no key that can be sealed to.
        """
        try:
            return self._issuer.seal(opened(values), base64.b64decode(request), namespace, pod_uid, now)
        except issuer.RecipientError as error:
            raise RecipientError(str(error)) from None

    def empty(self, request: str, now: datetime) -> Answer:
        """A certificate for a pod's request that holds nothing. Raises RecipientError as :meth:`seal` does."""
        try:
            return self._issuer.empty(base64.b64decode(request), now)
        except issuer.RecipientError as error:
            raise RecipientError(str(error)) from None


class Asker:
    """The user who asks to read a value, as the public key to which the answer is sealed."""

    def __init__(self, public_key: str) -> None:
        """:raises RecipientError: this is no public key."""
        try:
            self._key = sealing.PublicKey.parse(public_key)
        except sealing.SealError as error:
            raise RecipientError(str(error)) from None

    def seal(self, values: Values, namespace: str, reveal_uid: str) -> str:
        """The one value, sealed for this asker and this SecretReveal."""
        (value,) = opened(values).values()
        return sealing.seal(value, sealing.RevealAnswer(namespace, reveal_uid), self._key)


def key_id(sealed: str | None) -> str:
    """Which key opens a sealed text; empty if there is none, or it cannot be read."""
    try:
        return sealing.key_id_of(sealed) if sealed is not None else ""
    except sealing.SealError:
        return ""
