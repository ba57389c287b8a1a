"""What PyTorch knows of the machine: threads, memory and the device's name."""

from __future__ import annotations

import os
import platform

import psutil
import torch

from moesd_dist.engines.host import cpu_model, versions

PACKAGES = ("moesd-dist", "torch", "transformers", "tokenizers", "safetensors")


def set_threads(threads: int) -> None:
    """One OpenMP thread spins a core even when it waits; two of them on a busy core crawl."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(threads)


def available_bytes(device: torch.device) -> int:
    """Free memory on the device: what a model may still take."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_model()


def describe(device: torch.device) -> dict[str, str]:
    """Host, device and versions, as they go into every record."""
    about = {"host": platform.node(), "device_name": device_name(device)}
    return about | versions(PACKAGES)
