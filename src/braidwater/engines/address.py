"""Where a process of a gang is reached by the others: an address of the machine that it runs on."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

LOCAL = "127.0.0.1"
HOST = "BRAIDWATER_HOST"  # names the address, on a machine that has several
_INTERFACE_ADDRESS = 0x8915  # SIOCGIFADDR, netdevice(7)


def own_address(host: str, port: int) -> str:
    """The address of this machine from which a call to `host` would go out; that in ``BRAIDWATER_HOST`` where it is set.

    Those who meet at `host` are reached there by each other too, unless a machine has a network for each of the two. A gang
    that meets on this machine stays on it. No packet is sent.

    >>> own_address("127.0.0.1", 1)
    '127.0.0.1'
    """
    if host == LOCAL:
        return LOCAL
    if os.environ.get(HOST):
        return os.environ[HOST]
    for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
        with suppress(OSError), socket.socket(family, kind) as way:
            way.connect(address)
            found: str = way.getsockname()[0]
            return found
    return LOCAL


def interface_of(address: str) -> str | None:
    """The network interface that has this IPv4 address; None where nobody can say (IPv6, other systems than Linux).

    >>> interface_of("127.0.0.2")  # all of 127.0.0.0/8 is the loopback's
    'lo'
    """
    if sys.platform != "linux":
        return None
    import fcntl

    if address.startswith("127."):
        return "lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an IPv4 address
                request = name.encode().ljust(40, b"\0")
                found = fcntl.ioctl(any_socket.fileno(), _INTERFACE_ADDRESS, request)
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None
