"""When a second try may help, and how long to wait for it."""

import random
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PAUSES = (2.0, 4.0, 8.0, 16.0)  # s between tries, each half to one and a half times as long
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError)


def is_transient(error: BaseException | None) -> bool:
    """Whether a retry may help: trouble with the network or the storage, never a named failure of ours."""
    return isinstance(error, OSError) and not isinstance(error, _LASTING)


def jittered(seconds: float) -> float:
    """Half to one and a half times as long, so that those who failed together do not come back together."""
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311


def patiently(call: Callable[P, R], pauses: Sequence[float] = PAUSES) -> Callable[P, R]:
    """`call`, tried again after each of `pauses` while its failure is transient."""

    def tried(*args: P.args, **kwargs: P.kwargs) -> R:
        for pause in pauses:
            try:
                return call(*args, **kwargs)
            except OSError as error:
                if not is_transient(error):
                    raise
            time.sleep(jittered(pause))
        return call(*args, **kwargs)

    return tried
