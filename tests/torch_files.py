"""Random weights of real networks, made in a moment, for tests that need no trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedpress.extract import torchvision_trap


def random_network(name: str, classes: int = 1000) -> Any:
    torchvision_trap.prepare()
    import torch
    from torchvision.models import get_model

    # torchvision's own start takes seconds for a large network.
    with torch.device("meta"):
        network: Any = get_model(name, weights=None, num_classes=classes)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(1)
    for values in network.parameters():
        values.data.uniform_(-1, 1, generator=generator).mul_((values[0].numel() or 1) ** -0.5)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As a trained network's: with zeros and ones many mistakes would not show.
            for values in (module.running_var, module.weight.data):
                values.uniform_(0.5, 1.5, generator=generator)
            for values in (module.running_mean, module.bias.data):
                values.uniform_(-0.5, 0.5, generator=generator)
            module.num_batches_tracked.zero_()
    return network.eval()


def save_resnet18(path: Path) -> Path:
    import torch

    torch.save(random_network("resnet18").state_dict(), path)
    return path
