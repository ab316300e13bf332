"""When a slot that failed is worth a second try, and how long to wait for it.

The requests of a slot have been tried several times by then: `corrdiff_core.retries`.
"""

import random

PAUSES = (2.0, 4.0, 8.0, 16.0)  # s between the tries of a task, each half to one and a half times as long
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


def is_transient(error: BaseException | None) -> bool:
    """Whether a retry may help: trouble with the network or the storage, never a named failure of ours."""
    return isinstance(error, OSError) and not isinstance(error, _LASTING)


def jittered(seconds: float) -> float:
    """Half to one and a half times as long, so that those who failed together do not come back together."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311
