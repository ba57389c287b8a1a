"""A network of its own for each node, joined by a bridge that forgets a port when a link is cut."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from zlib import crc32


@dataclass(slots=True)
class Links:
    """The machine's own network has address 1 on the bridge; names carry `tag`. Needs root."""

    tag: str
    wires: dict[int, str] = field(default_factory=dict)  # the ends at the bridge, by number

    @property
    def bridge(self) -> str:
        return f"mb{self.tag}"

    def namespace(self, number: int) -> str:
        return f"mn{self.tag}-{number}"

    def address(self, number: int) -> str:
        network = crc32(f"{os.getpid()} {self.tag}".encode())  # a process may have two of them
        return f"10.{200 + network % 50}.{network // 50 % 250}.{number}"

    def build(self) -> None:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("address", "add", f"{self.address(1)}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    def lay(self, number: int) -> None:
        """A namespace and its link to the bridge."""
        inside, wire = self.namespace(number), f"mw{self.tag}-{number}"
        _ip("netns", "add", inside)
        self.wires[number] = wire
        _ip("link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", inside)
        _ip("-n", inside, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", inside, "link", "set", device, "up")
        _ip("link", "set", wire, "up")
        self.heal(number)

    def cut(self, number: int) -> None:
        """Packets are lost without a word in both directions; the interfaces stay up."""
        _ip("link", "set", self.wires[number], "nomaster")

    def heal(self, number: int) -> None:
        _ip("link", "set", self.wires[number], "master", self.bridge)

    def limit(self, number: int, mbit: int) -> None:
        """Both directions, to all others: the link is as slow as an Ethernet of that speed."""
        # Bursts of 2 ms, but at least a segmented packet; packets are lost that would wait 50 ms,
        # so that Ray's health checks get through a link that is full.
        burst = max(32_000, mbit * 250)
        rate = ("tbf", "rate", f"{mbit}mbit", "burst", str(burst), "latency", "50ms")
        for end in self._ends(number):
            _tc(*end[:-1], "qdisc", "replace", "dev", end[-1], "root", *rate)

    def unlimit(self, number: int) -> None:
        for end in self._ends(number):
            _tc(*end[:-1], "qdisc", "delete", "dev", end[-1], "root")

    def isolate(self, *numbers: int) -> None:
        """None of these reaches another of them, without a word; all still reach the bridge's own."""
        for number in numbers:
            self._set_isolated(number, "on")

    def unite(self, *numbers: int) -> None:
        for number in numbers:
            self._set_isolated(number, "off")

    def _ends(self, number: int) -> tuple[tuple[str, ...], ...]:
        """What tc calls the ends of a link: at the bridge, and inside of the namespace."""
        return (self.wires[number],), ("-n", self.namespace(number), "eth0")

    def _set_isolated(self, number: int, state: str) -> None:
        _run("bridge", "link", "set", "dev", self.wires[number], "isolated", state)

    def remove(self) -> None:
        """What there is of it; a namespace takes its link along when its last process has ended."""
        for number in self.wires:
            subprocess.run(["ip", "netns", "delete", self.namespace(number)], check=False)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _tc(*arguments: str) -> None:
    _run("tc", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
