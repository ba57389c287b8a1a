"""A network of its own for each node, joined by a bridge that forgets a port when a link is cut."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field


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
        return f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}.{number}"

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

    def remove(self) -> None:
        """What there is of it; a namespace takes its link along when its last process has ended."""
        for number in self.wires:
            subprocess.run(["ip", "netns", "delete", self.namespace(number)], check=False)
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
