"""Training the embedded pair can be killed at any time and ends with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jobs.embedded_corpus import split_documents, windows
from jobs.embedded_loop import muon_and_adamw, train


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))


def run(folder, *, killed_at: int | None = None) -> nn.Module:
    net = model()

    def loss_of(step: int) -> torch.Tensor:
        if step == killed_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(16, 6, generator=generator)
        return (net(inputs).squeeze(-1) - inputs.sum(-1)).square().mean()

    train(net, muon_and_adamw(net, 1e-2), loss_of, steps=20, file=folder / "net.pt", every=5)
    return net


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", killed_at=13)
    resumed = run(tmp_path / "b")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(next(whole.parameters()), next(model().parameters()))


def test_windows_are_a_function_of_the_step():
    tokens = torch.arange(5000)
    first = windows(tokens, count=3, step=7, phase=1)
    assert torch.equal(first, windows(tokens, count=3, step=7, phase=1))
    assert not torch.equal(first, windows(tokens, count=3, step=8, phase=1))
    assert not torch.equal(first, windows(tokens, count=3, step=7, phase=2))


def test_no_held_out_document_is_trained_on():
    training, held_out = split_documents(0)
    assert held_out
    assert not any(document.is_held_out for document in training)
    assert not {d.name for d in training} & {d.name for d in held_out}
