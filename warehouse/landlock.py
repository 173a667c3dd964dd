"""Take the right to change files from this thread and those it starts, where Linux can do so.

Landlock is in the kernel since Linux 5.13, and its system calls have the same numbers on every
processor: https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
# `LANDLOCK_ACCESS_FS_`: write_file, and remove_dir to make_sym.
_WRITING = 1 << 1 | sum(1 << bit for bit in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14


def forbid_writing(except_below: Path | None = None) -> bool:
    """From now on no file can be written, made, emptied, moved or deleted; False where it cannot.

    Below one folder, which exists, they can.
    Files that are open stay so. It cannot be taken back. Start other threads afterwards: those
    that run already keep their rights.
    """
    if sys.platform != "linux":
        return False
    system = ctypes.CDLL(None, use_errno=True).syscall
    version = system(_CREATE_RULESET, None, 0, _VERSION)
    if version < 3:  # Without truncate it would not hold what it promises.
        return False
    rights = ctypes.c_uint64(_WRITING | _REFER | _TRUNCATE)
    ruleset = system(_CREATE_RULESET, ctypes.byref(rights), ctypes.sizeof(rights), 0)
    if ruleset < 0:
        return False
    try:
        if except_below is not None:
            folder = os.open(except_below, os.O_PATH | os.O_DIRECTORY)
            rule = struct.pack("=Qi", rights.value, folder)
            system(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
            os.close(folder)
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(system(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)
