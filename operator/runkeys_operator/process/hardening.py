"""Kernel protection for this process, which holds keys and values in memory."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE = 4


def keep_memory_private() -> None:
    """Leave no core dump, and let no other process of this user read the memory or environment.

    The limit keeps the kernel from writing a dump to a file; a program that dumps are piped to is called whatever
    the limit says, and only not being dumpable keeps it from getting one. Raises OSError if the kernel refuses.
    Only Linux knows the latter. Elsewhere the operator runs on its developers' machines at most.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl(PR_SET_DUMPABLE): {os.strerror(code)}")
