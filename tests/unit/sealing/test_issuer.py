"""The operator seals, the pod opens: what comes back, what opens nowhere else, what is refused before."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given
from hypothesis import strategies as st

from runkeys.sealing import unseal
from runkeys.sealing.issuer import (
    LIFETIME_SECONDS,
    MAX_LINE_BYTES,
    MAX_TASK_BYTES,
    Answer,
    Issuer,
    RecipientError,
    not_carried,
    pack,
    packed_size,
)

NOW = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)
API_LIMIT = 100 * 1024
"""Bytes that the API server takes as a certificate chain."""

KEY = ec.generate_private_key(ec.SECP256R1())
ISSUER = Issuer()
VALUES = st.dictionaries(
    st.from_regex(r"\A(SECRET_[A-Z]{1,8}|file\.[a-z]{1,8})\Z"), st.binary(max_size=600), max_size=6
)


def requested(key: Any, algorithm: hashes.SHA256 | None) -> bytes:
    """What the kubelet asks with: a PKCS#10 request that says nothing but the key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


REQUEST = requested(KEY, hashes.SHA256())


def bundle(answer: Answer, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    """The file that the kubelet writes: the key, then the chain."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + answer.chain.encode()


def seal(values: dict[str, bytes]) -> Answer:
    return ISSUER.seal(values, REQUEST, "team-a", "pod-uid", NOW)


@given(VALUES)
@example({})
@example({"SECRET_A": b"", "file.a": b"\0" * 300})
@example({"file.a": bytes(4096)})
def test_any_bytes_come_back(values: dict[str, bytes]) -> None:
    assert unseal.open_bundle(bundle(seal(values)), "team-a", "pod-uid") == values


@given(VALUES)
def test_the_length_shows_in_steps_only(values: dict[str, bytes]) -> None:
    packed = pack(values)
    assert unseal.unpack(packed) == values
    assert len(packed) % 256 == 0
    assert len(packed) - packed_size(values) <= (260 if len(packed) <= 4096 else 4100)


@pytest.mark.parametrize(("namespace", "pod"), [("team-b", "pod-uid"), ("team-a", "other-uid")])
def test_it_opens_for_its_pod_alone_even_with_the_key(namespace: str, pod: str) -> None:
    with pytest.raises(InvalidTag):
        unseal.open_bundle(bundle(seal({"SECRET_A": b"x"})), namespace, pod)


def test_it_opens_with_the_pods_key_alone() -> None:
    with pytest.raises(InvalidTag):
        unseal.open_bundle(
            bundle(seal({"SECRET_A": b"x"}), ec.generate_private_key(ec.SECP256R1())), "team-a", "pod-uid"
        )


def test_the_certificate_is_one_that_the_api_server_takes() -> None:
    answer = seal({"SECRET_A": b"x"})
    certificate = x509.load_pem_x509_certificate(answer.chain.encode())
    assert certificate.public_key() == KEY.public_key()
    assert certificate.not_valid_before_utc == answer.not_before == NOW.replace(microsecond=0)
    assert certificate.not_valid_after_utc == answer.not_after
    assert answer.not_after - answer.not_before == timedelta(seconds=LIFETIME_SECONDS)
    # The API server wants ten minutes to either side.
    ten = timedelta(minutes=10)
    assert answer.not_before + ten <= answer.begin_refresh_at <= answer.not_after - ten


def test_as_much_as_is_promised_fits() -> None:
    values = {"file.a": b""}
    values["file.a"] = os.urandom(MAX_TASK_BYTES - packed_size(values))
    assert packed_size(values) == MAX_TASK_BYTES
    assert len(seal(values).chain) <= API_LIMIT


def test_no_two_answers_are_alike() -> None:
    assert seal({"SECRET_A": b"x"}).chain != seal({"SECRET_A": b"x"}).chain


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"not DER",
        requested(ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        requested(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        requested(ed25519.Ed25519PrivateKey.generate(), None),
    ],
    ids=["empty", "garbage", "P-384", "RSA", "Ed25519"],
)
def test_what_is_no_p256_key_gets_nothing(request_: bytes) -> None:
    with pytest.raises(RecipientError, match="ECDSAP256"):
        ISSUER.seal({"SECRET_A": b"x"}, request_, "team-a", "pod-uid", NOW)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"it's", "single quote"),
        (b"two\r\nlines", "carriage return"),
        (b"x" * MAX_LINE_BYTES, "65000 bytes"),
        (b"two\nlines\n", None),
        (b'$(date) `id` "quoted" \\ # $HOME', None),
        (b"x" * (MAX_LINE_BYTES - len("SECRET_A") - 4), None),
    ],
)
def test_what_a_file_of_variables_cannot_carry_is_refused_without_repeating_it(
    value: bytes, reason: str | None
) -> None:
    found = not_carried("SECRET_A", value)
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found
        assert len(found) < 120


def started(folder: Path, content: bytes, uid: str = "pod-uid") -> subprocess.CompletedProcess[str]:
    """The program as the init container starts it, with other places."""
    at = folder / "bundle.pem"
    at.write_bytes(content)
    site = str(Path(x509.__file__).parents[2])
    code = (
        f"import sys; sys.path[:0] = [{str(Path(unseal.__file__).parent)!r}, {site!r}]; import unseal as opener;"
        f" opener.BUNDLE, opener.ENVIRONMENT, opener.FILES = {str(at)!r}, {str(folder / 'env')!r}, {str(folder)!r};"
        " opener.main()"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code],
        env={"RUNKEYS_NAMESPACE": "team-a", "RUNKEYS_POD_UID": uid},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_program_writes_what_the_kubelet_reads_and_nothing_else(tmp_path: Path) -> None:
    answer = seal({"SECRET_A": b"canary-one", "SECRET_B": b"two\nlines", "file.sa.json": b"\0'\r\n"})
    done = started(tmp_path, bundle(answer))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "env").read_bytes() == b"SECRET_A='canary-one'\nSECRET_B='two\nlines'\n"
    assert (tmp_path / "sa.json").read_bytes() == b"\0'\r\n"
    assert stat.S_IMODE((tmp_path / "env").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "sa.json").stat().st_mode) == 0o444
    assert {item.name for item in tmp_path.iterdir()} == {"bundle.pem", "env", "sa.json"}


def test_the_program_may_be_started_again(tmp_path: Path) -> None:
    """The kubelet does so if it makes the sandbox of the pod anew; or a start before was cut off in the middle."""
    answer = seal({"SECRET_A": b"canary-one", "file.sa.json": b"two"})
    (tmp_path / "sa.json~").write_bytes(b"half")
    (tmp_path / "sa.json~").chmod(0o400)
    for _ in range(2):
        done = started(tmp_path, bundle(answer))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert {item.name for item in tmp_path.iterdir()} == {"bundle.pem", "env", "sa.json"}
        assert (tmp_path / "env").read_bytes() == b"SECRET_A='canary-one'\n"
        assert (tmp_path / "sa.json").read_bytes() == b"two"


@pytest.mark.parametrize("values", [{"SECRET_A": b"canary-one"}, {"file.sa.json": b"two"}])
def test_with_a_certificate_that_holds_nothing_it_leaves_what_is_there(
    tmp_path: Path, values: dict[str, bytes]
) -> None:
    started(tmp_path, bundle(seal(values)))
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.name != "bundle.pem"}
    done = started(tmp_path, bundle(ISSUER.empty(REQUEST, NOW)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = {item.name: item.read_bytes() for item in tmp_path.iterdir() if item.name != "bundle.pem"}
    assert before == after


def test_with_one_that_holds_nothing_and_no_values_it_fails(tmp_path: Path) -> None:
    """Also where a start before had not written all of it."""
    (tmp_path / "sa.json").write_bytes(b"two")
    done = started(tmp_path, bundle(ISSUER.empty(REQUEST, NOW)))
    assert done.returncode == 1
    assert done.stderr.startswith("the certificate holds no values, and there are none of an earlier start")
    assert not (tmp_path / "env").exists()


def test_a_certificate_that_holds_nothing_is_one_that_the_api_server_takes() -> None:
    answer = ISSUER.empty(REQUEST, NOW)
    certificate = x509.load_pem_x509_certificate(answer.chain.encode())
    assert certificate.public_key() == KEY.public_key()
    assert list(certificate.extensions) == []
    assert unseal.open_bundle(bundle(answer), "team-a", "pod-uid") is None
    with pytest.raises(RecipientError, match="ECDSAP256"):
        ISSUER.empty(b"not DER", NOW)


@pytest.mark.parametrize("broken", ["pod", "cut", "nothing"])
def test_the_program_says_no_value_and_no_key_when_it_fails(tmp_path: Path, broken: str) -> None:
    whole = bundle(seal({"SECRET_A": b"canary-one"}))
    content = {"pod": whole, "cut": whole[:-200], "nothing": b""}[broken]
    done = started(tmp_path, content, uid="other" if broken == "pod" else "pod-uid")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("the delivered values cannot be opened (")
    assert len(done.stderr) < 80
    assert not (tmp_path / "env").exists()


def test_the_program_needs_nothing_of_ours() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(unseal.__file__).parent)!r}); import unseal as opener;"
        " print(sorted(name for name in sys.modules if name.startswith(('runkeys', 'pydantic', 'cryptography'))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=180, check=True
    )
    assert done.stdout.strip() == "[]"
