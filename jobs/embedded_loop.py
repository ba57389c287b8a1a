"""A training loop that a killed run continues from where it was."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

CHECKPOINT_EVERY = 250

LossOfStep = Callable[[int], Tensor]


def train(
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    loss_of: LossOfStep,
    *,
    steps: int,
    file: Path,
    every: int = CHECKPOINT_EVERY,
) -> None:
    """Optimizers under one cosine, with a checkpoint that a killed run continues from."""
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    first, began = resume(model, optimizers, file), time.perf_counter()
    losses: list[float] = []
    for step in range(first, steps):
        for optimizer, of_groups in zip(optimizers, peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, of_groups, strict=True):
                group["lr"] = peak * schedule(step, steps)
        loss = loss_of(step)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % every == 0 or step + 1 == steps:
            save(model, optimizers, step + 1, file)
            per_step = (time.perf_counter() - began) / (step + 1 - first)
            recent = losses[-every:]
            print(
                f"{file.stem} step {step + 1}/{steps} mean loss {sum(recent) / len(recent):.3f} "
                f"{per_step:.2f} s/step",
                flush=True,
            )


def schedule(step: int, steps: int) -> float:
    """Linear warm-up over 100 steps, then a cosine down to 3 %."""
    return min(1.0, (step + 1) / 100) * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def save(model: nn.Module, optimizers: list[torch.optim.Optimizer], step: int, file: Path) -> None:
    states = [optimizer.state_dict() for optimizer in optimizers]
    torch.save({"model": model.state_dict(), "optimizers": states, "step": step}, file.with_suffix(".part"))  # fmt: skip
    file.with_suffix(".part").replace(file)  # a kill leaves the old checkpoint or the new one


def resume(model: nn.Module, optimizers: list[torch.optim.Optimizer], file: Path) -> int:
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return int(state["step"])


def adamw(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), weight_decay=0.05)


def muon_and_adamw(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for embedding and norms.

    On the draft this came to AdamW's loss in about half the steps (one run each). Muon takes matrices
    only, so the target's experts, three-dimensional tensors, stay with AdamW.
    """
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in named if p.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(
        matrices, lr=lr, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adamw(others, lr)]
