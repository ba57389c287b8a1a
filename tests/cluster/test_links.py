"""Links can be slowed down and cut between nodes alone, measured with plain sockets."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.cluster.links import Links

pytestmark = [pytest.mark.cluster, pytest.mark.root]

HEAD, ONE, OTHER = 1, 2, 3  # the head is on the bridge itself
PORT = 5005
MEBI = 2**20
SLOW_MBIT = 50

# Answers each connection, when its last byte has come, with how many there were.
COUNTS = """
import socket, sys
server = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    count = 0
    while part := connection.recv(65536):
        count += len(part)
    connection.sendall(str(count).encode())
    connection.close()
"""
SENDS = """
import socket, sys, time
host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
try:
    connection = socket.create_connection((host, port), timeout=2)
except OSError:
    print(0.0)
    raise SystemExit
connection.settimeout(30)
began = time.perf_counter()
connection.sendall(bytes(size))
connection.shutdown(socket.SHUT_WR)
assert int(connection.recv(32)) == size
print(time.perf_counter() - began)
"""


@pytest.fixture(scope="module")
def links() -> Iterator[Links]:
    """The head's network and two nodes, on each of which a server listens."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made, servers = Links(f"l{os.getpid() % 10000}"), []
    try:
        made.build()
        for node in (ONE, OTHER):
            made.lay(node)
        for place in (HEAD, ONE, OTHER):
            arguments = (COUNTS, made.address(place), str(PORT))
            command = [*inside(made, place), sys.executable, "-c", *arguments]
            servers.append(subprocess.Popen(command, stdout=subprocess.PIPE))
            assert servers[-1].stdout.readline() == b"ready\n"
        yield made
    finally:
        for server in servers:
            server.kill()
            server.wait()
        made.remove()


def inside(links: Links, place: int) -> tuple[str, ...]:
    return () if place == HEAD else ("ip", "netns", "exec", links.namespace(place))


def mbit_per_s(links: Links, start: int, end: int, *, mib: int = 4) -> float:
    """Of one stream; 0 where nobody answers."""
    arguments = (SENDS, links.address(end), str(PORT), str(mib * MEBI))
    command = [*inside(links, start), sys.executable, "-c", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = float(done.stdout)
    return mib * MEBI * 8 / 1e6 / seconds if seconds else 0.0


def test_a_limited_link_is_slow_in_both_directions_and_recovers(links):
    free = mbit_per_s(links, ONE, OTHER)
    links.limit(ONE, SLOW_MBIT)
    limited = {way: mbit_per_s(links, *way) for way in ((ONE, OTHER), (OTHER, ONE), (HEAD, ONE))}
    unharmed = mbit_per_s(links, HEAD, OTHER)
    links.unlimit(ONE)
    again = mbit_per_s(links, ONE, OTHER)
    print(f"{free:.0f} Mbit/s, limited to {SLOW_MBIT}: {limited}, then {again:.0f}")
    for rate in limited.values():
        assert 0.8 * SLOW_MBIT < rate < 1.1 * SLOW_MBIT
    assert min(free, unharmed, again) > 4 * SLOW_MBIT


def test_isolated_nodes_reach_the_head_and_not_each_other(links):
    links.isolate(ONE, OTHER)
    between = [mbit_per_s(links, ONE, OTHER), mbit_per_s(links, OTHER, ONE)]
    to_head = [mbit_per_s(links, HEAD, ONE), mbit_per_s(links, OTHER, HEAD)]
    links.unite(ONE, OTHER)
    assert between == [0.0, 0.0]
    assert min(to_head) > SLOW_MBIT
    assert mbit_per_s(links, ONE, OTHER) > SLOW_MBIT


def test_a_connection_between_isolated_nodes_hangs_until_they_are_united(links):
    """Not an error: that is what a collective across such a link has to be ended for."""
    arguments = (SENDS, links.address(OTHER), str(PORT), str(200 * MEBI))
    links.limit(ONE, 1000)  # so that it takes 1.7 s
    sending = subprocess.Popen(
        [*inside(links, ONE), sys.executable, "-c", *arguments], stdout=subprocess.PIPE
    )
    time.sleep(0.7)
    links.isolate(ONE, OTHER)
    time.sleep(2.5)
    assert sending.poll() is None
    links.unite(ONE, OTHER)
    out, _ = sending.communicate(timeout=30)
    links.unlimit(ONE)
    assert float(out) > 3.0
