"""An empty database of a Prefect server, kept from the first time that one was made: its migrations take most of a
server's start.
"""

import os
import sqlite3
import tempfile
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path


def kept() -> Path:
    """Where the one of this version of Prefect is kept: below XDG_CACHE_HOME or ~/.cache. OSError without a home."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{error} Set XDG_CACHE_HOME") from error
    return cache / "corrdiff" / f"prefect-{version('prefect')}.db"


def begin(database: Path) -> bool:
    """Put the kept one at `database`, for a server that is to be started; False where none is kept that is whole."""
    try:
        with closing(_read_only(kept(), "&immutable=1")) as source:
            if source.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                return False
            _copy(source, database)
    except (OSError, sqlite3.Error):
        database.unlink(missing_ok=True)
        return False
    return True


def keep(database: Path) -> None:
    """Keep the one that a server has just made at `database`, before anything is run on it.

    Where that is not possible nothing is kept, and the next server makes its own again.
    """
    with suppress(OSError, sqlite3.Error):
        target = kept()
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            copied = Path(folder) / target.name
            with closing(_read_only(database)) as source:
                _copy(source, copied)
            with closing(sqlite3.connect(copied)) as made:
                made.execute("PRAGMA journal_mode = DELETE")  # one file, that nobody writes beside
            copied.replace(target)


def _read_only(database: Path, options: str = "") -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro{options}", uri=True)


def _copy(source: sqlite3.Connection, to: Path) -> None:
    """A consistent copy, also of a database that is in use (SQLite's online backup)."""
    with closing(sqlite3.connect(to)) as target:
        source.backup(target)
