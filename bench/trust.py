"""What sealing and admission policies cost: opening against RSA, creating a run, a binding of 500 sealed values.

Sealing needs no cluster: both sides are processor time of this process, in turns. RSA is what tools for sealed values
in Git mostly use: a key of 4096 bits seals an AES key, and that the value. Runs are created by a user who may use the
binding, by turns with the operator's policies in force and away; nobody acts on them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runkeys.policies import Account
from runkeys.sealing import BindingEntry, Keyring, PrivateKey, seal
from testing.cluster.client import Object
from testing.cluster.node import NodeCluster
from testing.namespace import Team, binding, run
from testing.operators import requester_of
from testing.people import Person, person, public_key, sealed_entry

from .report import Figure, Spread, compared
from .team import team

_OPENING_AIM = 0.1  # ten times as fast
_ENTRIES = 500
_LONGEST = 60.0


def measure(node: NodeCluster, quick: bool) -> list[Figure]:
    """Sealing against RSA; creating a run with policies and without; a binding of one value and of 500."""
    few = 20 if quick else 200
    with team(node, "policies") as made:
        created = _creating(made, few)
    with team(node, "sealed") as made:
        made.operator.start()
        made.operator.wait_serving()
        bindings = _bindings(made, 3 if quick else 15)
    return [*_sealing(few), created, *bindings]


def _sealing(rounds: int) -> list[Figure]:
    value = secrets.token_bytes(64)
    ours = PrivateKey.generate()
    ring = Keyring(ours)
    context = BindingEntry("team", "keys", "token")
    theirs = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)

    def rsa_seal() -> tuple[bytes, bytes, bytes]:
        key, nonce = AESGCM.generate_key(256), secrets.token_bytes(12)
        return theirs.public_key().encrypt(key, oaep), nonce, AESGCM(key).encrypt(nonce, value, b"team")

    def rsa_open(stored: tuple[bytes, bytes, bytes]) -> bytes:
        return AESGCM(theirs.decrypt(stored[0], oaep)).decrypt(stored[1], stored[2], b"team")

    text, stored = seal(value, context, ring.public), rsa_seal()
    times: dict[str, list[float]] = {name: [] for name in ("seal", "rsa seal", "open", "rsa open")}
    for _ in range(rounds):
        times["seal"].append(_cpu(lambda: seal(value, context, ring.public)))
        times["rsa seal"].append(_cpu(rsa_seal))
        times["open"].append(_cpu(lambda: ring.open(text, context)))
        times["rsa open"].append(_cpu(lambda: rsa_open(stored)))
    return [
        compared(
            "CPU time to open 64 bytes, ours or RSA-4096", times["open"], times["rsa open"], _OPENING_AIM
        ),
        _told("CPU time to seal 64 bytes, ours or RSA-4096", times["seal"], times["rsa seal"]),
    ]


def _creating(made: Team, count: int) -> Figure:
    user = person(made, "alice", use=("keys",))
    who = requester_of(user.client)
    names = [item for item in made.client.list("validatingadmissionpolicybindings") if _of(made, item)]
    suffix = Account.service_account(made.namespace, "runkeys").suffix
    short = [item["metadata"]["name"].removeprefix("runkeys-").removesuffix(f".{suffix}") for item in names]
    with_policies, without = [], []
    for block in range(4):
        with_policies += _create(user, who, f"with-{block}", count // 4)
        with made.without_policies(*short):
            without += _create(user, who, f"without-{block}", count // 4)
    return _told("WorkflowRun created, validating policies in force or away", with_policies, without)


def _of(made: Team, item: Object) -> bool:
    return bool(item["metadata"].get("labels", {}).get("runkeys.test/namespace") == made.namespace)


def _create(user: Person, who: Object, hint: str, count: int) -> list[float]:
    found = []
    for number in range(-1, count):  # the first only warms up
        manifest = run(user.team.namespace, f"{hint}-{number + 1}", requester=who)
        began = time.perf_counter()
        user.client.create(manifest)
        if number >= 0:
            found.append((time.perf_counter() - began) * 1000)
    return found


def _bindings(made: Team, rounds: int) -> list[Figure]:
    public_key(made)  # published
    one, many = [], []
    entries = {
        name: [
            sealed_entry(made, secrets.token_hex(32), binding=name, entry=f"value-{n}") for n in range(size)
        ]
        for name, size in (("one", 1), ("many", _ENTRIES))
    }
    for _ in range(rounds):
        one.append(_until_ready(made, "one", entries["one"]))
        many.append(_until_ready(made, "many", entries["many"]))
    return [_told(f"Binding of {_ENTRIES} sealed values or of one, applied to Ready", many, one)]


def _until_ready(made: Team, name: str, entries: list[Object]) -> float:
    began = time.perf_counter()
    made.client.create(binding(made.namespace, name, secrets=entries))

    def ready(item: Object) -> bool:
        conditions = item.get("status", {}).get("conditions", ())
        return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)

    made.client.wait_for("secretbindings", name, made.namespace, ready, _LONGEST)
    took = (time.perf_counter() - began) * 1000
    made.client.delete("secretbindings", name, made.namespace)
    made.client.wait_gone("secretbindings", name, made.namespace, _LONGEST)
    return took


def _told(what: str, ours: list[float], peers: list[float]) -> Figure:
    """Return a ratio that has no target."""
    mine, theirs = Spread.of(ours), Spread.of(peers)
    return Figure(what, _text(mine), _text(theirs), mine.p50 / theirs.p50)


def _text(spread: Spread) -> str:
    return f"{spread.p50:.2f} / {spread.p90:.2f} ms"


def _cpu(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1000
