"""Stores of many small objects, which these tests make by the dozen."""

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process loses nothing that it has written, only a power cut does."""
    monkeypatch.setattr("os.fsync", lambda file: None)
