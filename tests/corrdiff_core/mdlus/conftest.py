"""Files to networks and packages to checkpoints, or to the errors that they are."""

import pytest

from corrdiff_core.errors import CheckpointError
from corrdiff_core.mdlus import import_package, load_network
from tests.corrdiff_core.mdlus.mdlus_cases import write_members


@pytest.fixture
def load(tmp_path):
    """Parts to the network that they hold, through a file."""
    return lambda parts, kind="zip": load_network(write_members(tmp_path / "file.mdlus", parts, kind))


@pytest.fixture
def refused(load):
    def check(parts, message, kind="zip"):
        with pytest.raises(CheckpointError, match=message) as error:
            load(parts, kind)
        assert "file.mdlus: " in str(error.value)
        assert "\n" not in str(error.value)

    return check


@pytest.fixture
def not_imported(tmp_path):
    """Checks that importing a package is refused in one line that matches, with nothing written."""

    def check(package, message, error=CheckpointError, **options):
        with pytest.raises(error, match=message) as raised:
            import_package(package, tmp_path / "checkpoint", **options)
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "checkpoint").exists()
        if error is CheckpointError:
            assert str(raised.value).startswith(str(package))

    return check
