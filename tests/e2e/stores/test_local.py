"""Local runs that read a real OpenBao with the user's own login, and lease users of a real PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from runkeys.api import SecretStore
from runkeys.cli._stores import unbound_roles
from runkeys.problems import Invalid
from testing.cluster.base import wait_until
from testing.cluster.client import PATIENCE
from testing.namespace import canary
from testing.stores.openbao import OpenBao, running, store
from testing.stores.postgres import Postgres, postgres
from tests.unit.cli.local_runs import manifest, task
from tests.unit.cli.terminal import COMMAND, Terminal, environment

pytestmark = pytest.mark.e2e

TOKEN = canary()
KV = {"store": "bao", "role": "any", "path": "kv/data/team-a/api", "field": "token"}
LEASE = {"store": "bao", "role": "any", "path": "database/creds/readonly"}
BINDING = {
    "apiVersion": "runkeys.dev/v1alpha1",
    "kind": "SecretBinding",
    "metadata": {"name": "keys"},
    "spec": {
        "secrets": [
            {"name": "api", "value": KV},
            {"name": "header", "template": "Authorization: Bearer {{ api }}"},
            {"name": "user", "lease": {**LEASE, "field": "username"}},
            {"name": "password", "lease": {**LEASE, "field": "password"}},
            {
                "name": "url",
                "template": "postgresql://{{ user }}:{{ password | url }}@127.0.0.1:PORT/postgres",
            },
        ],
        "access": [{"runSelector": {}}],
    },
}
LOGS_IN = (
    "import os, subprocess, sys\n"
    "subprocess.run([PSQL, os.environ['DB'], '-c', 'select 1'], check=True)\n"
    "print(os.environ['DB'])\n"
)
WAITS = "import pathlib, time\npathlib.Path('up').touch()\nwhile not pathlib.Path('end').exists(): time.sleep(0.05)\n"
DB = [{"name": "db", "secret": "url", "env": "DB"}]


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    """A server with a value in KV version 2."""
    with running(tmp_path_factory.mktemp("bao")) as bao:
        bao.engine("kv", "kv", options={"version": "2"})
        bao.call("POST", "kv/data/team-a/api", {"data": {"token": TOKEN, "number": 7}})
        yield bao


@pytest.fixture(scope="module")
def database(bao: OpenBao) -> Iterator[Postgres]:
    """A database whose users the store creates."""
    with postgres() as database:
        database.serve(bao)
        yield database


Login = Callable[..., dict[str, str]]


@pytest.fixture
def login(bao: OpenBao, tmp_path: Path) -> Login:
    """Log a user in who may ``read`` these paths, and ``update`` those; the variables of their shell."""
    (tmp_path / "ca.pem").write_text(bao.ca)

    def log_in(*read: str, update: tuple[str, ...] = ()) -> dict[str, str]:
        rules = {
            **{path: {"capabilities": ["read"]} for path in read},
            **{path: {"capabilities": ["update"]} for path in update},
        }
        name = f"user-{canary()[-8:]}"
        bao.call("PUT", f"sys/policies/acl/{name}", {"policy": json.dumps({"path": rules})})
        auth = bao.call("POST", "auth/token/create", {"policies": [name], "ttl": "1h"})["auth"]
        return {
            "VAULT_ADDR": bao.address,
            "VAULT_CACERT": str(tmp_path / "ca.pem"),
            "VAULT_TOKEN": auth["client_token"],
        }

    return log_in


def write(folder: Path, code: str, secrets: list[dict[str, str]], port: int = 0, **fields: Any) -> None:
    """The run and its binding, in one file."""
    run = manifest(task(code=code, secrets=secrets, **fields))
    text = yaml.safe_dump_all([run, BINDING]).replace("PORT", str(port))
    (folder / "run.yaml").write_text(text)


def local(terminal: Terminal, env: dict[str, str], *words: str) -> Any:
    return terminal.run("run", "--local", "-f", "run.yaml", *words, **env)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, {})


@contextmanager
def started(folder: Path, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The command, while it runs."""
    process = subprocess.Popen(
        [*COMMAND, "run", "--local", "-f", "run.yaml"],
        cwd=folder,
        env=environment(folder, **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


READS = (
    "import hashlib, os\n"
    "print(hashlib.sha256(os.environ['SECRET_API'].encode()).hexdigest())\n"
    "print(os.environ['SECRET_API'], os.environ['SECRET_HEADER'])\n"
)
READ = [{"name": "api", "secret": "api"}, {"name": "header", "secret": "header"}]


@pytest.mark.parametrize("where", ["VAULT_TOKEN", "BAO_TOKEN", "file"])
def test_a_value_is_read_with_the_users_login_and_masked(
    terminal: Terminal, login: Login, where: str, bao: OpenBao
) -> None:
    env = login("kv/data/team-a/api")
    token = env.pop("VAULT_TOKEN")
    if where == "file":
        (terminal.folder / ".vault-token").write_text(f"{token}\n")
    else:
        env[where] = token
    write(terminal.folder, READS, READ)
    before = len(bao.asked())
    done = local(terminal, env)
    assert done.code == 0, done
    assert digest(TOKEN) in done.out
    assert "[redacted] Authorization: Bearer [redacted]" in done.out or done.out.count("[redacted]") >= 2
    assert [text for text in (TOKEN, token) if text in done.out + done.err] == []
    assert bao.asked(before) == ["read kv/data/team-a/api"], "once, although two secrets have it"


def test_what_the_user_gives_counts_more_and_nothing_is_read(terminal: Terminal, bao: OpenBao) -> None:
    write(terminal.folder, READS, READ)
    before = len(bao.asked())
    done = local(terminal, {"SECRET_API": "of my own", "VAULT_ADDR": bao.address})
    assert done.code == 0, done
    assert digest("of my own") in done.out
    assert bao.asked(before) == []


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"VAULT_ADDR": ""}, 3, "entry 'api' of SecretBinding keys is in a store: VAULT_ADDR is not set"),
        ({"VAULT_ADDR": "bao.example"}, 5, "VAULT_ADDR must be https://"),
        (
            {"VAULT_ADDR": "https://127.0.0.1:1"},
            6,
            "https://127.0.0.1:1 cannot be reached: Connection refused",
        ),
        ({"VAULT_TOKEN": ""}, 3, "you are not logged in to https://127.0.0.1:"),
        ({"VAULT_TOKEN": "s.wrong"}, 4, "your login may not read it, or has expired; log in again"),
        ({"VAULT_CACERT": ""}, 6, "has a certificate that is not accepted"),
        ({"VAULT_CACERT": "/nowhere.pem"}, 5, "VAULT_CACERT: /nowhere.pem cannot be read"),
        ({"VAULT_NAMESPACE": "elsewhere"}, 3, "nothing is there"),  # OpenBao's answer for any path
    ],
)
def test_what_is_wrong_with_the_login_is_said_before_anything_starts(
    terminal: Terminal, login: Login, changes: dict[str, str], code: int, said: str
) -> None:
    env = {**login("kv/data/team-a/api"), **changes}
    write(terminal.folder, "import pathlib; pathlib.Path('started').touch()", READ)
    done = local(terminal, env)
    assert (done.code, said in done.err) == (code, True), done
    assert "as SECRET_API=…" in done.err or "not logged in" not in said
    assert not (terminal.folder / "started").exists()
    assert [text for text in (env["VAULT_TOKEN"] or TOKEN, TOKEN) if text in done.out + done.err] == []


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ({"path": "kv/data/team-b/api"}, 4, "path kv/data/team-b/api of https://127.0.0.1:"),
        (
            {"path": "kv/data/team-a/none"},
            3,
            "nothing is there; a KV engine of version 2 has data/ after the mount",
        ),
        ({"field": "tokne"}, 3, "path kv/data/team-a/api has no field 'tokne'; its fields: number, token"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(
    terminal: Terminal, login: Login, value: dict[str, str], code: int, said: str
) -> None:
    write(terminal.folder, READS, READ[:1])
    text = (terminal.folder / "run.yaml").read_text()
    for key, new in value.items():
        text = text.replace(KV[key], new)
    (terminal.folder / "run.yaml").write_text(text)
    done = local(terminal, login("kv/data/team-a/*"))
    assert (done.code, said in done.err) == (code, True), done
    assert TOKEN not in done.out + done.err


MAY_LEASE = ("database/creds/readonly",)
BY_TOKEN = ("auth/token/create",)
BY_LEASE = ("sys/leases/revoke",)


@pytest.mark.parametrize("right", [BY_TOKEN, BY_LEASE], ids=["a token of its own", "by the lease"])
def test_a_lease_is_dead_when_its_attempt_has_ended(
    terminal: Terminal, login: Login, database: Postgres, right: tuple[str, ...]
) -> None:
    code = (
        LOGS_IN.replace("PSQL", repr(database.psql))
        + "import pathlib, sys\n"
        + "count = len(list(pathlib.Path('.').glob('attempt-*')))\n"
        + "pathlib.Path(f'attempt-{count}').write_text(os.environ['DB'])\n"
        + "sys.exit(1 if count == 0 else 0)\n"
    )
    write(terminal.folder, code, DB, database.port, backoffLimit=1)
    done = local(terminal, login(*MAY_LEASE, update=right))
    assert done.code == 0, done
    used = [path.read_text() for path in sorted(terminal.folder.glob("attempt-*"))]
    assert len({url.partition(":")[2].partition(":")[0] for url in used}) == 2, (
        "each attempt has a user of its own"
    )
    assert database.leased() == []
    assert [database.logs_in(url) for url in used] == [False, False]
    assert "Warning" not in done.err
    passwords = [url.rpartition(":")[0].rpartition(":")[2].partition("@")[0] for url in used]
    assert [text for text in passwords if text in done.out + done.err] == []


def test_control_a_lease_lives_while_its_task_runs(
    terminal: Terminal, login: Login, database: Postgres
) -> None:
    write(terminal.folder, WAITS, DB, database.port)
    with started(terminal.folder, login(*MAY_LEASE, update=BY_TOKEN)) as process:
        wait_until("the task to run", (terminal.folder / "up").exists)
        assert len(database.leased()) == 1
        (terminal.folder / "end").touch()
        assert process.wait(PATIENCE) == 0
    assert database.leased() == []


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_revokes(terminal: Terminal, login: Login, database: Postgres, times: int) -> None:
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if times == 2 else ""
    write(terminal.folder, code + WAITS, DB, database.port)
    with started(terminal.folder, login(*MAY_LEASE, update=BY_TOKEN)) as process:
        wait_until("the task to run", (terminal.folder / "up").exists)
        assert len(database.leased()) == 1
        process.send_signal(signal.SIGINT)
        if times == 2:
            assert process.stderr is not None
            while "Interrupted" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) != 0
    assert database.leased() == []


def test_what_cannot_be_revoked_is_said(
    terminal: Terminal, login: Login, database: Postgres, bao: OpenBao
) -> None:
    write(terminal.folder, "pass", DB, database.port)
    done = local(terminal, login(*MAY_LEASE))
    assert done.code == 0, done
    assert "Warning: lease database/creds/readonly/" in done.err
    assert "is not revoked, and ends at " in done.err
    assert "your login needs the capability update on sys/leases/revoke" in done.err
    assert len(database.leased()) == 1
    bao.call("PUT", "sys/leases/revoke-prefix/database/creds/readonly")
    assert database.leased() == []


def test_a_store_that_accepts_and_has_not_done_it_is_not_believed(
    terminal: Terminal, login: Login, database: Postgres
) -> None:
    write(terminal.folder, WAITS, DB, database.port)
    with started(terminal.folder, login(*MAY_LEASE, update=BY_TOKEN)) as process:
        wait_until("the task to run", (terminal.folder / "up").exists)
        with database.away():
            (terminal.folder / "end").touch()
            assert process.wait(120) == 0
            assert process.stderr is not None
            assert "still has it, and tries again by itself" in process.stderr.read()
    wait_until("the store to revoke it by itself", lambda: database.leased() == [])


def test_a_value_that_is_a_lease_is_refused_and_revoked(
    terminal: Terminal, login: Login, database: Postgres
) -> None:
    write(terminal.folder, READS, READ[:1])
    text = (terminal.folder / "run.yaml").read_text().replace(KV["path"], LEASE["path"])
    (terminal.folder / "run.yaml").write_text(text)
    done = local(terminal, login(*MAY_LEASE, update=BY_LEASE))
    assert done.code == 5, done
    assert "it creates a credential with a lease; name it under lease instead of value" in done.err
    assert "is not revoked" not in done.err
    assert database.leased() == []


def test_doctor_finds_roles_that_let_unbound_tokens_in(
    login: Login, bao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    bao.call("POST", "sys/auth/jwt", {"type": "jwt"})
    bao.role("bound", "default")
    bao.role("open", "default", bound_claims={})
    found = SecretStore.parse(store(bao, "bao"))
    for name, value in login("auth/jwt/role/*").items():
        monkeypatch.setenv(name, value)
    (note,) = unbound_roles(found, ["bound", "open"])
    assert note.problem is Invalid
    assert (
        "role open of auth/jwt in SecretStore bao has no bound_claims on /kubernetes.io/pod/uid" in note.text
    )

    for name, value in login().items():
        monkeypatch.setenv(name, value)
    (note,) = unbound_roles(found, ["open"])
    assert note.problem is None
    assert "cannot be seen with your login" in note.text
