"""The database that temporary servers begin with: what Prefect made itself, whole, or none."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows import database


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Of a server at work: its last words are not in the file yet, but in the log beside it."""
    with closing(sqlite3.connect(tmp_path / "made.db")) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE run (name TEXT)")
        writer.execute("INSERT INTO run VALUES ('first')")
        writer.commit()
        assert not _rows((tmp_path / "made.db").read_bytes(), tmp_path / "file alone.db")
        database.keep(tmp_path / "made.db")
    return tmp_path / "made.db"


def _rows(content: bytes, at: Path) -> list[tuple[str]]:
    at.write_bytes(content)
    with closing(sqlite3.connect(at)) as reader:
        try:
            return reader.execute("SELECT name FROM run").fetchall()
        except sqlite3.OperationalError:
            return []


def test_what_is_kept_is_all_that_was_written(made: Path, cache: Path, tmp_path: Path) -> None:
    assert database.begin(tmp_path / "new.db")
    assert _rows((tmp_path / "new.db").read_bytes(), tmp_path / "read.db") == [("first",)]
    (only,) = (cache / "corrdiff").iterdir()
    assert only == database.kept()


def test_nothing_kept_is_no_beginning(tmp_path: Path) -> None:
    assert not database.begin(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_part_of_a_file_is_no_beginning(made: Path, tmp_path: Path, share: float) -> None:
    content = database.kept().read_bytes()
    database.kept().write_bytes(content[: int(share * len(content))] or b"no database")
    assert not database.begin(tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    database.keep(made)
    assert database.begin(tmp_path / "new.db")


def test_another_version_of_prefect_has_its_own(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "version", lambda name: "3.0.0")
    assert not database.begin(tmp_path / "new.db")


def test_without_a_home_nothing_is_kept(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-that-name/cache")
    monkeypatch.chdir(tmp_path)
    database.keep(made)
    assert not database.begin(tmp_path / "new.db")
    assert not list(tmp_path.glob("~*"))


def test_a_place_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    database.keep(made)
    assert not database.begin(tmp_path / "new.db")
