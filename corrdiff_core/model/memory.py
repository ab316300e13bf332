"""Where the networks' tensors on a CPU get their memory."""

import ctypes
import platform
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of glibc's mallopt(3)


@cache
def keep_freed_memory() -> bool:
    """Let glibc reuse what a layer has freed instead of returning it to the system; whether that is so now.

    By default every tensor above some MiB is mapped afresh, and a quarter of the time that a network takes on a CPU
    goes into page faults. For the whole process, once; nothing happens under another C library.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_MMAP_MAX, 0))
