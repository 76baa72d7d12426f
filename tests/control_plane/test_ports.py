"""Ports for servers that are about to start: no two processes get the same one."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maft_operator.local.ports import RANGE, Ports

ASKS = "from maft_operator.local.ports import free_port; print(*(free_port() for _ in range(64)), flush=True); input()"


@pytest.fixture
def four() -> Iterator[range]:
    """Four ports in a row that nobody has."""
    for first in RANGE[::4]:
        ports, block = Ports(range(first, first + 4)), range(first, first + 4)
        with contextlib.closing(ports), contextlib.suppress(OSError):
            if {ports.free() for _ in block} == {*block}:
                break
    yield block


def test_processes_that_ask_together_get_ports_of_their_own():
    asking = [subprocess.Popen([sys.executable, "-c", ASKS], stdin=-1, stdout=-1, text=True) for _ in range(4)]
    found = [port for process in asking for port in process.stdout.readline().split()]
    for process in asking:
        process.communicate("\n", timeout=60)
    assert len(found) == len(set(found)) == 4 * 64


def test_a_port_on_which_somebody_listens_is_left_alone(four):
    with contextlib.closing(Ports(four)) as ports, socket.create_server(("", four[1])):
        assert {ports.free() for _ in range(3)} == {*four} - {four[1]}


def test_where_all_are_taken_it_says_so(four):
    with contextlib.closing(Ports(four)) as ports:
        assert {ports.free() for _ in four} == {*four}
        with pytest.raises(OSError, match=f"between {four[0]} and {four[-1]}; end servers"):
            ports.free()


def test_a_process_that_asks_often_does_not_run_out(four):
    """A run of many iterations asks for each of its servers: the first ones' ports go back to whoever asks next."""
    with contextlib.closing(Ports(four, kept=3)) as ports, contextlib.closing(Ports(four)) as other:
        given = [ports.free() for _ in range(40)]
        assert {*given} == {*four} and other.free() not in given[-3:]


def test_ports_are_below_those_of_connections():
    low, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert RANGE[-1] < int(low)
