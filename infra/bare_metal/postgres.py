"""A PostgreSQL cluster of the stack's own: made once, dumped and restored. Never the system's."""

import os
import shutil
import subprocess
from pathlib import Path

from infra.bare_metal.places import Places, StackError, new_password, postgres_user, write_private
from infra.bare_metal.processes import as_user

DATABASE = "prefect"
OWNER = "operator"  # of the cluster; the role `prefect` owns the database and nothing else
_SOCKET_LIMIT = 107  # bytes that Linux gives a socket's path
_ROLE = """\
SET log_min_error_statement = panic; -- no statement with the password in a log
SET log_min_duration_statement = -1;
CREATE ROLE prefect LOGIN PASSWORD '{password}';
CREATE DATABASE prefect OWNER prefect ENCODING 'UTF8' TEMPLATE template0;
"""


class Postgres:
    def __init__(self, places: Places, port: int) -> None:
        self.places, self.port, self.user = places, port, postgres_user()
        self.folder = places.home / "postgres"
        self.data = self.folder / "data"
        self.passwords = places.home / "pgpass"

    @property
    def url(self) -> str:
        """Without the password, which asyncpg and libpq read from the file that PGPASSFILE names."""
        return f"postgresql+asyncpg://{DATABASE}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def command(self) -> list[str]:
        socket = self.folder / f".s.PGSQL.{self.port}"
        if len(os.fsencode(socket)) > _SOCKET_LIMIT:
            raise StackError(
                f"{socket} is too long for a socket, {_SOCKET_LIMIT} bytes fit: choose a shorter STACK_HOME"
            )
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        return [
            binary("postgres"),
            *("-D", str(self.data), "-p", str(self.port)),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ]

    def create(self) -> None:
        """The cluster, unless it is there: checksums, passwords over TCP, none but its own user over the socket."""
        if (self.data / "PG_VERSION").exists():
            return
        # A name that it has not yet: an initdb that was killed leaves nothing that looks like a cluster.
        making = self.folder / "making"
        shutil.rmtree(making, ignore_errors=True)
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o700)
        if self.user is not None:
            shutil.chown(self.folder, self.user, self.user)
        self._new_passwords()
        password = self.folder / "password"
        write_private(password, self._password(OWNER))
        if self.user is not None:
            shutil.chown(password, self.user, self.user)
        initdb = [
            *(binary("initdb"), "--pgdata", str(making), "--username", OWNER, "--encoding", "UTF8", "--locale", "C"),
            *("--auth-local", "peer", "--auth-host", "scram-sha-256", "--data-checksums", "--pwfile", str(password)),
        ]
        try:
            self._run(initdb, as_postgres=True)
        finally:
            password.unlink()
        making.rename(self.data)

    def create_database(self) -> None:
        """The role and the database, unless they are there. The server must be up."""
        if self.query("SELECT 1 FROM pg_database WHERE datname = 'prefect'", "postgres") != "1":
            self._run(self._psql("postgres"), _ROLE.format(password=self._password(DATABASE)))

    def ready(self) -> bool:
        answer = [binary("pg_isready"), "--quiet", *self._where(), "--timeout", "2"]
        return subprocess.run(answer, check=False).returncode == 0

    def query(self, text: str, database: str = DATABASE) -> str:
        return self._run([*self._psql(database), "--tuples-only", "--no-align", "--command", text]).strip()

    def backup(self, file: Path) -> None:
        """The database, in PostgreSQL's custom format, whole or not at all. It holds what blocks keep secret."""
        partial = file.with_name(f"{file.name}.partial")
        write_private(partial, "")
        try:
            dump = [binary("pg_dump"), *self._where(), "--username", OWNER, "--no-password", "--format", "custom"]
            self._run([*dump, "--file", str(partial), DATABASE])
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)

    def restore(self, file: Path) -> None:
        """What `backup` wrote, all or nothing, into a database that is still empty; StackError into another."""
        tables = self.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        if tables != "0":
            raise StackError(
                f"the database in {self.data} has {tables} tables, a restore wants none: stop the stack, move"
                f" {self.folder} away, restore again"
            )
        restore = [binary("pg_restore"), *self._where(), "--username", OWNER, "--no-password", "--no-owner"]
        self._run([*restore, "--role", DATABASE, "--exit-on-error", "--single-transaction", "-d", DATABASE, str(file)])

    def _new_passwords(self) -> None:
        lines = [f"127.0.0.1:*:*:{role}:{new_password()}\n" for role in (OWNER, DATABASE)]
        write_private(self.passwords, "".join(lines))

    def _password(self, role: str) -> str:
        lines = [line.split(":") for line in self.passwords.read_text().splitlines()]
        return next(fields[4] for fields in lines if fields[3] == role)

    def _psql(self, database: str) -> list[str]:
        options = ("--no-psqlrc", "--quiet", "--no-password", "--set", "ON_ERROR_STOP=1")
        return [binary("psql"), *self._where(), "--username", OWNER, *options, "--dbname", database]

    def _where(self) -> list[str]:
        return ["--host", "127.0.0.1", "--port", str(self.port)]

    def _run(self, command: list[str], text: str | None = None, as_postgres: bool = False) -> str:
        environment = {**os.environ, "PGPASSFILE": str(self.passwords), "LC_ALL": "C"}
        for name in [name for name in environment if name.startswith("PG") and name != "PGPASSFILE"]:
            del environment[name]
        options = as_user(self.user if as_postgres else None)
        done = subprocess.run(
            command, input=text, env=environment, cwd="/", capture_output=True, text=True, check=False, **options
        )
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise StackError(f"{Path(command[0]).name}: {said}")
        return str(done.stdout)


def binary(name: str) -> str:
    """A program of PostgreSQL: in STACK_POSTGRES_BIN, where Debian puts them (the newest), or on the path."""
    given = os.environ.get("STACK_POSTGRES_BIN")
    folders = [Path(given)] if given else sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    for folder in folders:
        if (folder / name).exists():
            return str(folder / name)
    found = None if given else shutil.which(name)
    if found is None:
        raise StackError(f"PostgreSQL's {name} is not there: apt install postgresql, or say where: STACK_POSTGRES_BIN")
    return found


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0
