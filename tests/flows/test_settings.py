"""Settings: precedence, and one line for whatever makes no sense."""

import pytest

from corrdiff_core.errors import ConfigurationError
from flows.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("CORRDIFF_")]:
        monkeypatch.delenv(name)


def test_an_option_beats_the_environment_which_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRDIFF_ARCHIVE", "s3://bucket/archive")
    monkeypatch.setenv("CORRDIFF_MEMBERS", "8")
    settings = Settings.of(members=4, hours=None)
    assert (settings.archive, settings.members, settings.hours) == ("s3://bucket/archive", 4, 13)


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRDIFF_GFS_URL", "")
    assert Settings.of().source_url is None


def test_the_url_is_that_of_the_chosen_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRDIFF_GFS_URL", "s3://mirror")
    assert Settings.of().source_url == "s3://mirror"
    assert Settings.of(source="other").source_url is None
    assert Settings.of(source_url="./gfs").source_url == "./gfs"


def test_settings_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.of().hours = 3  # type: ignore[misc]


def test_nonsense_names_option_value_and_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRDIFF_SOLVER", "rk4")
    with pytest.raises(ConfigurationError) as caught:
        Settings.of(hours=0)
    assert "hours = 0 (option or CORRDIFF_HOURS): Input should be greater than or equal to 1" in str(caught.value)
    assert "solver = 'rk4' (option or CORRDIFF_SOLVER): Input should be 'heun' or 'euler'" in str(caught.value)


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRDIFF_ARCHVE", "x")
    with pytest.raises(ConfigurationError, match="CORRDIFF_ARCHVE in the environment: no such setting; known are"):
        Settings.of()


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="colour"):
        Settings.of(colour="red")
