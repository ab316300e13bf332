"""Where the networks' tensors on a CPU get their memory."""

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of glibc's mallopt(3)


@cache
def keep_freed_memory() -> bool:
    """Let glibc reuse what a layer has freed instead of returning it to the system; whether that is so now.

    By default every tensor above some MiB is mapped afresh, and a quarter of the time that a network takes on a CPU
    goes into page faults. One heap serves all threads, so that what one has freed another reuses. For the whole
    process, once; nothing happens under another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wanted = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0, _ARENA_MAX: 1}
    return all(mallopt(parameter, value) for parameter, value in wanted.items())
