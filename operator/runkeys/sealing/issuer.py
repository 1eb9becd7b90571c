"""Sealed delivery: values sealed to the key of one pod, in a certificate that answers the pod's request.

The kubelet makes a key for the pod and asks the signer :data:`SIGNER` for a certificate
(PodCertificateRequest). The answer carries the values, sealed to that key; :mod:`runkeys.sealing.unseal` opens it in
the pod.
Nobody trusts the certificate: it is signed because Kubernetes wants one, with a key that lives and dies with the
process (docs/decisions/0040).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding

from runkeys.names import SIGNER
from runkeys.sealing import unseal

KEY_TYPE = "ECDSAP256"

LIFETIME_SECONDS = 8 * 24 * 3600
"""Of a certificate: longer than any pod may run, so that the kubelet asks for a second one only after a restart."""

MAX_TASK_BYTES = 70_000
"""For all values of a task together: a certificate may have 100 KiB as text."""

MAX_LINE_BYTES = 65_000
"""The kubelet reads no longer line of a file of variables than 64 KiB, name and quotes included."""

_SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_BEGIN_REFRESH = timedelta(minutes=15)


class RecipientError(Exception):
    """A request holds no key that can be sealed to."""


@dataclass(frozen=True)
class Answer:
    """The certificate that answers a request, and the times that have to be told with it."""

    chain: str
    not_before: datetime
    not_after: datetime
    begin_refresh_at: datetime


class Issuer:
    """Signs certificates with a key of this process, which nobody trusts and nothing keeps."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SIGNER)])

    def __repr__(self) -> str:
        return "Issuer()"

    def seal(
        self, values: Mapping[str, bytes], request: bytes, namespace: str, pod_uid: str, now: datetime
    ) -> Answer:
        """Seal ``values`` to the key in ``request`` (PKCS#10) and put them into a certificate for it.

        :raises RecipientError: the request cannot be read, or its key is of another type.
        """
        key = recipient(request)
        sealed = _SUITE.encrypt(pack(values), key, unseal.info(namespace, pod_uid))
        identifier = x509.ObjectIdentifier(unseal.EXTENSION)
        return self._certify(key, now, x509.UnrecognizedExtension(identifier, sealed))

    def empty(self, request: bytes, now: datetime) -> Answer:
        """A certificate that holds nothing.

        :raises RecipientError: as :meth:`seal` does.
        """
        return self._certify(recipient(request), now)

    def _certify(
        self, key: ec.EllipticCurvePublicKey, now: datetime, *extensions: x509.UnrecognizedExtension
    ) -> Answer:
        begin = now.replace(microsecond=0)
        end = begin + timedelta(seconds=LIFETIME_SECONDS)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        chain = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        return Answer(chain, begin, end, end - _BEGIN_REFRESH)


def recipient(request: bytes) -> ec.EllipticCurvePublicKey:
    """The public key of a request, which Kubernetes has checked to be the asker's. Raises RecipientError."""
    try:
        key = x509.load_der_x509_csr(request).public_key()
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RecipientError(f"the request has no key of type {KEY_TYPE}")
    return key


def pack(values: Mapping[str, bytes]) -> bytes:
    """As one text, padded so that its length says little."""
    parts = [part for key, value in values.items() for part in (key.encode(), value)]
    packed = b"".join((len(part) + 4).to_bytes(4, "big") + part for part in parts) + bytes(4)
    step = 256 if len(packed) <= 4096 else 4096
    return packed.ljust(-(-len(packed) // step) * step, b"\0")


def packed_size(values: Mapping[str, bytes]) -> int:
    """Bytes that ``values`` have together, names included."""
    return sum(len(key.encode()) + len(value) + 8 for key, value in values.items())


def not_carried(variable: str, value: bytes) -> str | None:
    """Why the kubelet would not give a container exactly this value from a file; None if it would."""
    if not value:
        return "is empty, and the kubelet treats an empty variable from a file as missing"
    if b"'" in value:
        return "holds a single quote, which the kubelet's files of variables cannot express"
    if b"\r" in value:
        return "holds a carriage return, and the kubelet drops carriage returns at the ends of lines"
    longest = max(len(line) for line in value.split(b"\n"))
    if longest + len(variable) + 4 > MAX_LINE_BYTES:
        return f"has a line of {longest} bytes, and the kubelet reads no line over 64 KiB"
    return None
