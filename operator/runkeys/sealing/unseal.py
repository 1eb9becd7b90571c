"""Opens in a pod what the operator sealed for it. The program of the init container; imports nothing of Runkeys.

It runs as a file, ``python3 -I -S …/unseal.py``, so that it starts with the least that Python can start with. What
both sides have to agree on is here; :mod:`runkeys.sealing.issuer` has the other half. No error of it holds a value.
"""

from __future__ import annotations

import os
import sys

EXTENSION = "1.2.840.113556.1.8000.2554.20871.43650.19306.17420.36961.7086433.9215907"
"""Object identifier of the certificate's extension that holds the ciphertext; made from a UUID."""

BUNDLE = "/var/run/runkeys/recipient/bundle.pem"
ENVIRONMENT = "/var/run/runkeys/env/secrets.env"
FILES = "/var/run/runkeys/secrets"

_LENGTH = 4


def info(namespace: str, pod_uid: str) -> bytes:
    """What the ciphertext is bound to: it opens for this pod only, even with its key."""
    parts = [part.encode() for part in ("runkeys.dev/delivery/v1", namespace, pod_uid)]
    return b"".join(len(part).to_bytes(_LENGTH, "big") + part for part in parts)


def unpack(data: bytes) -> dict[str, bytes]:
    """The values by their keys: of a variable its name, of a file ``file.`` and its name."""
    parts, at = [], 0
    while length := int.from_bytes(data[at : at + _LENGTH], "big"):
        # A length of 0 ends it, so that each one counts itself too.
        parts.append(data[at + _LENGTH : at + length])
        at += length
    return {key.decode(): value for key, value in zip(parts[::2], parts[1::2], strict=True)}


def open_bundle(bundle: bytes, namespace: str, pod_uid: str) -> dict[str, bytes] | None:
    """The values in a certificate, with the key that stands before it in the same file; None if it holds nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(bundle, None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TypeError("the pod's key is not of the requested type")
    certificate = x509.load_pem_x509_certificate(bundle)
    try:
        found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(EXTENSION)).value
    except x509.ExtensionNotFound:
        return None
    if not isinstance(found, x509.UnrecognizedExtension):
        raise TypeError("the certificate's extension cannot be read")
    suite = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    return unpack(suite.decrypt(found.value, key, info(namespace, pod_uid)))


def write(values: dict[str, bytes], environment: str, files: str) -> None:
    """Files into their folder, then variables into a file that the kubelet reads.

    That file is last, and there even without a variable: where it is, everything was written.
    """
    lines = []
    for key, value in values.items():
        if key.startswith("file."):
            _write(os.path.join(files, key.removeprefix("file.")), value, 0o444)
        else:
            lines.append(key.encode() + b"='" + value + b"'\n")
    _write(environment, b"".join(lines), 0o400)


def _write(path: str, content: bytes, mode: int) -> None:
    # Whole or not at all, and whatever an earlier start of this container has left: the kubelet starts it again if it
    # makes the pod's sandbox anew. No file of a task has a "~" in its name.
    new = f"{path}~"
    if os.path.lexists(new):
        os.unlink(new)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    os.chmod(new, mode)
    os.replace(new, path)


def main() -> None:
    """Open, write, end."""
    with open(BUNDLE, "rb") as file:
        bundle = file.read()
    try:
        values = open_bundle(bundle, os.environ["RUNKEYS_NAMESPACE"], os.environ["RUNKEYS_POD_UID"])
    except Exception as error:  # noqa: BLE001 -- whatever it is, its text could hold something of the bundle
        sys.exit(f"the delivered values cannot be opened ({type(error).__name__})")
    if values is not None:
        write(values, ENVIRONMENT, FILES)
    elif not os.path.exists(ENVIRONMENT):
        sys.exit(
            "the certificate holds no values, and there are none of an earlier start: this pod has had its answer; only"
            " a new attempt gets values"
        )


if __name__ == "__main__":
    sys.path.insert(0, os.path.join(os.path.abspath(__file__).rsplit("/", 3)[0], "site-packages"))
    main()
