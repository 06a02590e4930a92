"""What is started again finds its port free: nothing else is given it meanwhile."""

import socket
from pathlib import Path

from contactd.lab.ports import free_port

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_free_port_is_none_that_the_kernel_gives_to_outgoing_connections() -> None:
    first, last = map(int, EPHEMERAL.read_text().split())
    assert not any(first <= free_port() <= last for _ in range(3000))


def test_two_ports_asked_for_together_are_two_and_one_in_use_is_passed_over() -> None:
    with socket.socket() as taken:
        one = free_port()
        taken.bind(("127.0.0.1", one + 1 if one < 32_767 else 30_000))
        taken.listen()
        ports = [one, free_port(), free_port()]
        assert len(set(ports)) == 3
        assert taken.getsockname()[1] not in ports
