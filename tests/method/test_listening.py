"""Pods have addresses of IPv4, IPv6 or both: programs listen at all, and ask each replica once."""

import socket
import urllib.request
from typing import Any

import pytest
from conftest import free_port

from maft import pod
from maft.debate.replica import addresses
from maft.errors import BadInput
from maft.program import Progress
from maft.serve.__main__ import check_free, parser

V4, V6 = socket.AF_INET, socket.AF_INET6


def named(monkeypatch: pytest.MonkeyPatch, *found: tuple[int, str]) -> None:
    """Has every name stand for these addresses."""

    def look(host: str, port: int, family: int = 0, kind: int = 0) -> list[Any]:
        there = [entry for entry in found if family in (0, entry[0])]
        if not there:
            raise socket.gaierror(-5, "No address associated with hostname")
        return [(each, kind, 6, "", (address, port)) for each, address in there]

    monkeypatch.setattr(socket, "getaddrinfo", look)


def test_replicas_of_ipv6_alone_are_found_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, (V6, "fd00::2"), (V6, "fd00::1"), (V6, "fd00::1"))
    assert addresses("http://r-server.ns.svc:8000/") == ["http://[fd00::1]:8000", "http://[fd00::2]:8000"]


def test_a_replica_with_both_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, (V6, "fd00::1"), (V4, "10.0.0.1"))
    assert addresses("http://r-server.ns.svc:8000") == ["http://10.0.0.1:8000"]


def test_programs_listen_at_all_addresses() -> None:
    port = free_port()
    Progress(("", port))
    hosts = ["127.0.0.1", *(["[::1]"] if pod.everywhere() == "::" else [])]
    assert [urllib.request.urlopen(f"http://{host}:{port}/metrics").status for host in hosts] == [200] * len(hosts)
    assert parser().get_default("host") == pod.everywhere()
    with pytest.raises(BadInput, match=f"--port {port}: Address already in use"):
        check_free(pod.everywhere(), port)


def test_a_kernel_without_ipv6_has_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*given: Any) -> Any:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", none)
    assert pod.everywhere() == "0.0.0.0"
