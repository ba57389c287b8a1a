"""What the nodes of a running cluster are, asked without starting anything on them."""

from __future__ import annotations

from moesd_dist.sweep.cluster.nodes import rooms
from moesd_dist.sweep.cluster.start import start_ray, stop_ray
from moesd_dist.sweep.schedule.needs import Room


def rooms_of(address: str) -> list[Room]:
    """Those that are alive; ValueError if no cluster answers there."""
    start_ray(address, runtime_env={})
    try:
        return rooms()
    finally:
        stop_ray()
