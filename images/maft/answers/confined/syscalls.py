"""What a confined program may ask of the kernel: system calls by their numbers, as a seccomp filter (BPF). Pure.

Everything that is not listed is refused (EPERM): sockets, processes and threads, signals to others, io_uring, ptrace, prctl, new
limits, sleep, randomness, the targets of links, and whatever a newer kernel brings. Files can be opened for reading only; which
ones is Landlock's part. It does not cover `stat`, which imports need: size, times and owner of any file can be seen.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

# --- numbers: include/uapi/asm-generic/unistd.h for aarch64, arch/x86/entry/syscalls/syscall_64.tbl for x86_64 ---

# name: (x86_64, aarch64); -1: the architecture has none
_ALLOWED: dict[str, tuple[int, int]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, -1),
    "fstat": (5, 80),
    "lstat": (6, -1),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "getdents64": (217, 61),
    "access": (21, -1),
    "faccessat": (269, 48),
    "getcwd": (79, 17),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "restart_syscall": (219, 128),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "uname": (63, 160),
    "getrusage": (98, 165),
    "times": (100, 153),
    "time": (201, -1),
    "gettimeofday": (96, 169),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_OPENAT, _FCNTL = (257, 56), (72, 25)
# Of open's flags: write, create, truncate, append, O_ASYNC (signals at data), O_TMPFILE.
_NOT_READING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20000 | 0o20000000
# Of fcntl: F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC. F_SETOWN could have signals sent to any process.
_QUERIES = (1, 2, 3, 1030)

# --- the filter ---

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data, whose arguments have eight bytes each
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # errno 1: EPERM


@dataclass(frozen=True, slots=True)
class Architecture:
    """One whose numbers are known."""

    audit: int
    """As the kernel names it to filters."""
    column: int


ARCHITECTURES = {"x86_64": Architecture(0xC000003E, 0), "aarch64": Architecture(0xC00000B7, 1)}


def filter_for(machine: Architecture) -> bytes:
    """Makes the filter: an array of struct sock_filter. A call by another architecture's numbers (32 bit) ends the process."""
    plain = sorted(numbers[machine.column] for numbers in _ALLOWED.values() if numbers[machine.column] >= 0)
    return b"".join(
        [
            _one(_LOAD, _ARCHITECTURE),
            _one(_EQUAL, machine.audit, 1, 0),
            _one(_RETURN, _KILL),
            _one(_LOAD, _NUMBER),
            *(part for number in plain for part in (_one(_EQUAL, number, 0, 1), _one(_RETURN, _ALLOW))),
            *_where(_OPENAT[machine.column], [_argument(2), _one(_ANY_BIT, _NOT_READING, 1, 0), _one(_RETURN, _ALLOW)]),
            *_where(_FCNTL[machine.column], [_argument(1), *_one_of(_QUERIES)]),
            _one(_RETURN, _REFUSE),
        ]
    )


def _where(number: int, then: list[bytes]) -> list[bytes]:
    """Instructions for one system call; falls through to a refusal."""
    return [_one(_EQUAL, number, 0, len(then) + 1), *then, _one(_RETURN, _REFUSE)]


def _one_of(values: Iterable[int]) -> list[bytes]:
    return [part for value in values for part in (_one(_EQUAL, value, 0, 1), _one(_RETURN, _ALLOW))]


def _argument(number: int) -> bytes:
    """Loads the lower half of an argument, all that the kernel reads of flags and commands. Both machines are little-endian."""
    return _one(_LOAD, _ARGUMENTS + 8 * number)


def _one(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)
