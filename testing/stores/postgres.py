"""A real PostgreSQL on loopback, whose users a store creates and drops."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testing.cluster.base import free_port, wait_until
from testing.cluster.client import PATIENCE
from testing.stores.openbao import OpenBao

_ADMIN, _PASSWORD = "admin", "admin-of-the-test"


class Postgres:
    """One server. It is not run as root, which PostgreSQL refuses."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder, self._data = folder, folder / "data"
        self._as: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []}
        if os.geteuid() != 0:
            self._as = {}
        else:
            shutil.chown(folder, "postgres", "postgres")
        self._bin = max(Path("/usr/lib/postgresql").glob("*/bin"))
        self.psql = str(self._bin / "psql")
        self._process: subprocess.Popen[bytes] | None = None
        password = folder / "password"
        password.write_text(_PASSWORD)
        password.chmod(0o644)
        self._run(
            "initdb", "-D", str(self._data), "-U", _ADMIN, "-A", "scram-sha-256", "--pwfile", str(password)
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._bin / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
                    *("-c", "fsync=off"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._as,
            )
        wait_until("PostgreSQL to answer", lambda: self.logs_in(self._admin))

    def stop(self) -> None:
        """End it. Its data stay."""
        if self._process is not None:
            self._process.terminate()
            self._process.send_signal(3)  # SIGQUIT: at once
            self._process.wait(PATIENCE)
            self._process = None

    @contextmanager
    def away(self) -> Iterator[None]:
        """It does not answer for a while."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def serve(self, bao: OpenBao, mount: str = "database", role: str = "readonly", **changed: Any) -> None:
        """Have a store create users of it at ``<mount>/creds/<role>``. ``changed``: fields of the role."""
        bao.engine(mount, "database")
        where = f"127.0.0.1:{self.port}/postgres?sslmode=disable"
        bao.call(
            "POST",
            f"{mount}/config/postgres",
            {
                "plugin_name": "postgresql-database-plugin",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@{where}",
                "username": _ADMIN,
                "password": _PASSWORD,
                "allowed_roles": "*",
            },
        )
        create = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
        body = {"db_name": "postgres", "creation_statements": [create], "default_ttl": "1h", "max_ttl": "24h"}
        bao.call("POST", f"{mount}/roles/{role}", {**body, **changed})

    def leased(self) -> list[str]:
        """The users that a store has created, in order of their names."""
        query = "select rolname from pg_roles where rolname like 'v-%' order by 1"
        return self._run("psql", "-At", self._admin, "-c", query).split()

    def logs_in(self, url: str) -> bool:
        """Whether a user may log in, by a URL such as programs take it."""
        done = subprocess.run(
            [self.psql, url, "-c", "select 1"], capture_output=True, timeout=PATIENCE, check=False
        )
        return done.returncode == 0

    @property
    def _admin(self) -> str:
        return f"postgresql://{_ADMIN}:{_PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd="/",
            **self._as,
        )
        output: str = done.stdout
        return output


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Yield a server that runs."""
    # Not below a folder of the test's, which other users cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="runkeys-postgres-"))
    try:
        folder.chmod(0o755)
        found = Postgres(folder)
        try:
            found.start()
            yield found
        finally:
            found.stop()
    finally:
        shutil.rmtree(folder)
