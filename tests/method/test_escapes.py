"""What hostile programs try to reach and do not: network, files, other processes, more time and memory; and that nothing runs where
the kernel cannot confine it."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_programs import ONE, fault, outputs

from maft.answers import programs
from maft.answers.confined.syscalls import ARCHITECTURES, filter_for
from maft.answers.programs import run

pytestmark = pytest.mark.programs

CALL = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)"
ESCAPES = {
    "tcp": "import socket\ndef f(x):\n    return socket.create_connection(('127.0.0.1', PORT)) and 1",
    "udp": "import socket\ndef f(x):\n    return socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "unix socket": "import socket\ndef f(x):\n    return socket.socket(socket.AF_UNIX).fileno()",
    "netlink": "import socket\ndef f(x):\n    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).fileno()",
    "socket pair": "import socket\ndef f(x):\n    return socket.socketpair()[0].fileno()",
    "url": "import urllib.request\ndef f(x):\n    return urllib.request.urlopen('http://127.0.0.1:PORT').status",
    "name": "import socket\ndef f(x):\n    return socket.getaddrinfo('example.org', 80)[0][4][0]",
    "file": "def f(x):\n    return open('/etc/passwd').read()",
    "service account": "def f(x):\n    return open('/var/run/secrets/kubernetes.io/serviceaccount/token').read()",
    "a file of the parent": "def f(x):\n    return open('SECRET').read()",
    "its environment": "def f(x):\n    return open('/proc/PARENT/environ').read()",
    "its own environment": "def f(x):\n    return open('/proc/self/environ').read()",
    "its memory": "def f(x):\n    return open('/proc/PARENT/mem', 'rb').read(1) and 1",
    "its descriptors": "import os\ndef f(x):\n    return os.listdir('/proc/PARENT/fd')",
    "a descriptor of it": "import os\ndef f(x):\n    return os.read(os.open('/proc/PARENT/fd/0', os.O_RDONLY), 1) and 1",
    "the target of a link": "import os\ndef f(x):\n    return os.readlink('/proc/self')",
    "the folder": "import os\ndef f(x):\n    return os.listdir('/')",
    "the package": "import sys\nsys.path.append('ROOT')\nimport maft.spec\ndef f(x):\n    return 1",
    "writing": "def f(x):\n    return open('FOLDER/new', 'w').write('x')",
    "writing into the library": "import os\ndef f(x):\n    return open(os.__file__, 'a').write('x')",
    "removing": "import os\ndef f(x):\n    return os.remove('SECRET') or 1",
    "renaming": "import os\ndef f(x):\n    return os.rename('SECRET', 'SECRET.gone') or 1",
    "a folder": "import os\ndef f(x):\n    return os.mkdir('FOLDER/new') or 1",
    "a link": "import os\ndef f(x):\n    return os.symlink('/etc', 'FOLDER/new') or 1",
    "rights": "import os\ndef f(x):\n    return os.chmod('SECRET', 0) or 1",
    "a temporary file": "import tempfile\ndef f(x):\n    return tempfile.TemporaryFile().write(b'x')",
    "shared memory": "import os\ndef f(x):\n    return os.memfd_create('x')",
    "fork": "import os\ndef f(x):\n    return os.fork()",
    "fork bomb": "import os\ndef f(x):\n    while True:\n        os.fork()",
    "program": "import subprocess\ndef f(x):\n    return subprocess.run(['/bin/true']).returncode",
    "shell": "import os\ndef f(x):\n    return 1 if os.system('true') == 0 else {}['refused']",
    "exec": "import os\ndef f(x):\n    os.execv('/bin/true', ['true'])",
    "thread": "import threading\ndef f(x):\n    threading.Thread(target=print).start()\n    return 1",
    "session": "import os\ndef f(x):\n    return os.setsid() or 1",
    "group": "import os\ndef f(x):\n    return os.setpgid(0, 0) or 1",
    "kill the parent": "import os\ndef f(x):\n    return os.kill(PARENT, 9) or 1",
    "kill the group": "import os\ndef f(x):\n    return os.killpg(PARENT, 9) or 1",
    "signal by a descriptor": "import signal, fcntl\ndef f(x):\n    return fcntl.fcntl(0, fcntl.F_SETOWN, PARENT) or 1",
    "limits": "import resource\ndef f(x):\n    return resource.setrlimit(resource.RLIMIT_CPU, (99, 99)) or 1",
    "priority": "import os\ndef f(x):\n    return os.nice(-5)",
    "sleeping": "import time\ndef f(x):\n    time.sleep(600)\n    return 1",
    "memory": "def f(x):\n    return len(bytearray(1 << 30))",
    "memory, bit by bit": "def f(x):\n    kept = []\n    while True:\n        kept.append(bytearray(1 << 20))",
    "recursion": "def f(x):\n    return f(x)",
    "deep value": "def f(x):\n    a = []\n    for _ in range(10 ** 5):\n        a = [a]\n    return a",
    "a number without an end": "def f(x):\n    return 1 << (1 << 30)",
    "a number that takes too long to write": "def f(x):\n    return 7 ** 10 ** 6",
    "an error that cannot be written": "class E(Exception):\n    def __str__(self):\n        raise E\ndef f(x):\n    raise E",
}
ASKED = {
    "io_uring": "libc.syscall(425, 1, ctypes.create_string_buffer(512))",
    "ptrace": "libc.ptrace(16, PARENT, 0, 0)",
    "reading memory": "libc.process_vm_readv(PARENT, None, 0, None, 0, 0)",
    "a descriptor of the parent": "libc.syscall(438, 3, 0, 0)",
    "a handle of the parent": "libc.syscall(434, PARENT, 0)",
    "new privileges": "libc.prctl(38, 0, 0, 0, 0)",
    "outliving the parent": "libc.prctl(1, 0, 0, 0, 0)",
    "no seccomp": "libc.prctl(22, 0, 0, 0, 0)",
    "dumps": "libc.prctl(4, 1, 0, 0, 0)",
    "Landlock once more": "libc.syscall(444, None, 0, 1)",
    "namespaces": "libc.unshare(0x10000000)",
    "mounts": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
    "root": "libc.chroot(b'/')",
    "user": "libc.setuid(0)",
    "clone3": "libc.syscall(435, ctypes.create_string_buffer(88), 88)",
    "opening by openat2": "libc.syscall(437, -100, b'/', ctypes.create_string_buffer(24), 24)",
    "opening for writing": "libc.open(b'/dev/null', 1)",
    "truncating": "libc.truncate(b'SECRET', 0)",
    "limits of the parent": "libc.prlimit(PARENT, 7, ctypes.create_string_buffer(16), None)",
    "messages": "libc.msgget(0, 0o1000)",
    "terminals": "libc.ioctl(0, 0x5412, b'x')",
    "kernel keys": "libc.syscall(250, 0, 0, 0, 0, 0)",
}


@pytest.fixture
def place(tmp_path: Path):
    """What programs try to reach: a file, a listener, this process. It is as it was when they are done."""
    (tmp_path / "secret").write_text("secret")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        names = {"PORT": str(server.getsockname()[1]), "PARENT": str(os.getpid()), "FOLDER": str(tmp_path)}
        names |= {"SECRET": str(tmp_path / "secret"), "ROOT": programs._ROOT}
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        yield lambda text: names_in(text, names)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert (tmp_path / "secret").read_text() == "secret" and (tmp_path / "secret").stat().st_mode & 0o400
    assert {child.pid for child in psutil.Process().children(recursive=True)} == before


def names_in(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(name, value)
    return text


@pytest.mark.parametrize("name", ESCAPES)
def test_a_hostile_program_reaches_nothing_and_gives_no_output(name: str, place) -> None:
    assert fault(place(ESCAPES[name]))


def test_system_calls_past_the_library_are_refused(place) -> None:
    calls = "\n".join(f"    told[{name!r}] = asked(lambda: {asked})" for name, asked in ASKED.items())
    code = f"""{CALL}
def asked(call):
    ctypes.set_errno(0)
    return [call(), ctypes.get_errno()]
def f(x):
    told = dict()
{calls}
    return told
"""
    assert {name: json.loads(outputs(place(code))[0])[name] for name in ASKED} == {name: [-1, 1] for name in ASKED}  # EPERM


def test_of_files_it_sees_what_they_are_and_not_what_they_hold(place) -> None:
    """Landlock does not cover `stat`, without which nothing is imported: docs/answers.md says so."""
    seen = "os.stat('SECRET').st_size, os.path.exists('FOLDER/none'), os.path.exists('/proc/PARENT')"
    assert outputs(place(f"import os\ndef f(x):\n    return [{seen}]")) == ("[6, false, true]",)
    assert "PermissionError" in fault(place("def f(x):\n    return open('SECRET').read()"))


def test_the_environment_is_empty() -> None:
    assert outputs("import os\ndef f(x):\n    return dict(os.environ)") == ("{}",)
    assert outputs(f"{CALL}\ndef f(x):\n    return [libc.getenv(name) for name in (b'PATH', b'HOME', b'PYTHONPATH')]") == (
        "[0, 0, 0]",
    )


def test_no_descriptor_of_the_parent_is_open_there(tmp_path: Path) -> None:
    code = """
import os
def f(x):
    return [n for n in range(3, 4096) if is_open(n)]
def is_open(n):
    try:
        os.fstat(n)
    except OSError:
        return False
    return True
"""
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert outputs(code) == ("[3]",)  # what it answers by


@pytest.mark.parametrize("ending", ["os._exit(0)", "os.abort()", "os.close(3)", "ctypes.string_at(0)"])
def test_a_program_that_ends_itself_gives_no_output(ending: str) -> None:
    assert fault(f"import ctypes, os\ndef f(x):\n    {ending}")


@pytest.mark.parametrize(
    "forged",
    [
        "x",
        "{}",
        '{"outputs": [7]}',
        '{"outputs": ["7", "8"]}',
        '{"outputs": ["7, 8"]}',
        '{"outputs": ["[7"]}',
        "[" * 10**5,
        "\\xff",
    ],
)
def test_what_a_program_forges_is_believed_by_its_form_alone(forged: str) -> None:
    assert fault(f"import os\ndef f(x):\n    os.write(3, b'{forged}')\n    os._exit(0)")


def test_endless_loops_and_output_end_in_time(place) -> None:
    started = time.monotonic()
    assert "time or memory" in fault("def f(x):\n    while True: pass")
    assert "too much" in fault("import os\ndef f(x):\n    while True: os.write(3, b'x' * 65536)")
    assert fault("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\ndef f(x):\n    while True: pass")
    assert time.monotonic() - started < 100  # of a busy machine: three times two seconds of processor time


def test_a_program_that_only_waits_is_ended() -> None:
    code = "import _thread\ndef f(x):\n    lock = _thread.allocate_lock()\n    lock.acquire()\n    lock.acquire()"
    assert "too long" in run(ONE, code, running=1.0).fault


def test_a_32_bit_call_is_not_one_of_the_filters() -> None:
    for machine in ARCHITECTURES.values():
        code = filter_for(machine)
        assert len(code) % 8 == 0 and len(code) // 8 < 256
        assert code[-8:] == bytes([6, 0, 0, 0, 1, 0, 5, 0])  # falls through to EPERM


# A process in which the kernel, or a container's profile, refuses a system call, tries to run programs.
REFUSING = """
import ctypes, struct, sys
from maft.answers import programs
from maft.errors import BadInput
number, errno = map(int, sys.argv[1:])
steps = [(32, 0, 0, 0), (21, 0, 1, number), (6, 0, 0, 0x50000 | errno), (6, 0, 0, 0x7FFF0000)]
code = b"".join(struct.pack("<HBBI", *step) for step in steps)
libc, buffer = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(code, len(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)), 0, 0) == 0
try:
    programs.check()
except BadInput as error:
    print(error)
"""
LANDLOCK, RESTRICT, PRCTL = 444, 446, 157  # of x86_64


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls are those of x86_64")
@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (LANDLOCK, errno.ENOSYS, "the kernel has no Landlock (Function not implemented)"),
        (LANDLOCK, errno.EOPNOTSUPP, "the kernel has no Landlock (Operation not supported)"),
        (RESTRICT, errno.EPERM, "the kernel refuses Landlock (Operation not permitted)"),
        (PRCTL, errno.EPERM, "the kernel refuses its end with its parent (Operation not permitted)"),
        (PRCTL, 0, "a socket can be made in spite of it"),
        (RESTRICT, 0, "/proc can be read in spite of it"),
    ],
)
def test_where_a_mechanism_is_missing_nothing_runs(number: int, error: int, says: str) -> None:
    done = subprocess.run([sys.executable, "-c", REFUSING, str(number), str(error)], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(f"task.answer: code cannot be confined here: {says}"), done.stderr
    assert done.stdout.endswith("use such nodes, or another kind of answer\n")
