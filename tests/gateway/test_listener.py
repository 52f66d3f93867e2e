"""The gateway's sockets."""

from __future__ import annotations

import errno
import sys
import uuid

import pytest

from clary.core.sessions import CREDENTIALS_HOST
from clary.engines.ports import Ports
from clary.gateway.listener import free_port, listener


def test_processes_share_a_port() -> None:
    with listener("127.0.0.1", 0) as first, listener("127.0.0.1", first.getsockname()[1]) as second:
        assert first.getsockname() == second.getsockname()


@pytest.mark.skipif(sys.platform != "linux", reason="an address that is not there yet takes Linux")
def test_an_address_may_come_later() -> None:
    absent = "192.0.2.200"
    with pytest.raises(OSError) as caught:
        listener(absent, 0)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    for address in (absent, CREDENTIALS_HOST):
        with listener(address, 0, early=True) as sock:
            assert sock.getsockname()[0] == address


def test_a_port_is_kept_unless_somebody_has_it() -> None:
    assert free_port("127.0.0.1", 0) > 0
    ports = Ports(uuid.uuid4().hex)
    port = ports.take().port  # which nobody else gets
    assert free_port("127.0.0.1", port) == port
    with listener("127.0.0.1", port) as sock:
        sock.listen()
        assert free_port("127.0.0.1", port) not in (0, port)
    ports.close()
