"""Closes the doors of this process for good: limits, files (Landlock), system calls (seccomp). It takes no right, so it works in
pods of the standard `restricted`, and nothing in the process can undo it.
"""

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterable

from maft.answers.confined.syscalls import ARCHITECTURES, filter_for

MIB = 1 << 20
MEMORY = 256 * MIB  # of addresses, the interpreter included
SECONDS = 2  # of processor time, for all inputs of a program
_FILES = 32

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # Landlock's system calls, on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_READ = 1 << 2 | 1 << 3  # files, folders
# Rights over files that a version of Landlock knows: later ones REFER, TRUNCATE, IOCTL_DEV.
_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
_NETWORK, _SCOPES = 3, 3  # bind and connect; abstract sockets and signals
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _NO_NEW_PRIVILEGES, _BY_FILTER = 1, 4, 22, 38, 2

_CLONE = {"x86_64": 56, "aarch64": 220}  # asked for with flags that no kernel takes

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """The kernel, or what stands around this process, lacks a mechanism; says which."""


def confine(parent: int) -> None:
    """Confines this process; Unavailable if any of it does not hold. parent: the process with which it ends."""
    version = landlock_version()
    machine = ARCHITECTURES.get(os.uname().machine)
    if machine is None:
        raise Unavailable(f"system calls of {os.uname().machine} are not known here; {' and '.join(ARCHITECTURES)} are")
    _end_with(parent)
    _limit()
    _prctl("no_new_privs", _NO_NEW_PRIVILEGES, 1)
    _close_files(version, _libraries())
    code = filter_for(machine)
    buffer = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, padding, and where they are.
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    _prctl("seccomp", _SET_SECCOMP, _BY_FILTER, ctypes.c_char_p(program))
    _verify()


def landlock_version() -> int:
    """Asks the kernel for its version of Landlock. Unavailable if it has none."""
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        raise Unavailable(f"the kernel has no Landlock ({os.strerror(ctypes.get_errno())})")
    return int(version)


def _end_with(parent: int) -> None:
    _prctl("its end with its parent", _SET_DEATH_SIGNAL, 9)  # SIGKILL
    if os.getppid() != parent:
        os._exit(0)
    _prctl("dumps", _SET_DUMPABLE, 0)  # nothing of it is written by whoever takes core dumps


def _limit() -> None:
    """The pod's memory is the program's as well: where it runs out, this process ends first."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        pass  # a convenience; the limit below holds
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: SECONDS,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_NOFILE: _FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for name, most in limits.items():
        resource.setrlimit(name, (most, most))


def _libraries() -> list[str]:
    """What an interpreter reads while it runs: the standard library, and those that its modules are linked to."""
    paths = [*sys.path, "/lib", "/lib64", "/usr/lib", "/usr/lib64"]
    return [path for path in dict.fromkeys(paths) if os.path.isdir(path)]  # noqa: PTH112 # pathlib takes as long as all else here


def _close_files(version: int, readable: Iterable[str]) -> None:
    """Lets this process read below those folders, and nothing else of any file system."""
    rights = _RIGHTS.get(version, _RIGHTS[max(_RIGHTS)])
    parts = [rights, *([_NETWORK] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"{len(parts)}Q", *parts)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    _held(ruleset, "a ruleset of Landlock")
    for path in readable:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", _READ, folder)  # struct landlock_path_beneath_attr
        _held(_libc.syscall(_ADD_RULE, ruleset, 1, rule, 0), f"a rule of Landlock for {path}")
        os.close(folder)
    _held(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "Landlock")
    os.close(ruleset)


def _prctl(what: str, *arguments: object) -> None:
    numbers = [argument if isinstance(argument, ctypes.c_char_p) else ctypes.c_ulong(argument) for argument in arguments]  # type: ignore[arg-type]
    _held(_libc.prctl(*numbers, *[ctypes.c_ulong(0)] * (5 - len(numbers))), what)


def _held(result: int, what: str) -> None:
    if result < 0:
        raise Unavailable(f"the kernel refuses {what} ({os.strerror(ctypes.get_errno())})")


def _verify() -> None:
    """Tries what must not work any more: a sandbox that says yes to everything (or a kernel that only pretends) is none."""
    tries: dict[str, Callable[[], int]] = {
        "/proc can be read": lambda: _libc.open(b"/proc/self/status", os.O_RDONLY),
        "a socket can be made": lambda: _libc.socket(2, 2, 0),
        "a file can be written": lambda: _libc.open(b"/tmp", os.O_WRONLY | os.O_TMPFILE, 0o600),
        "a process can be made": lambda: _libc.syscall(_CLONE[os.uname().machine], -1, 0, 0, 0, 0),
    }
    for what, attempt in tries.items():
        ctypes.set_errno(0)
        if attempt() >= 0 or ctypes.get_errno() not in (errno.EPERM, errno.EACCES):
            raise Unavailable(f"{what} in spite of it ({os.strerror(ctypes.get_errno())})")
