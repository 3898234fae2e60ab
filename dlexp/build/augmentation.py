"""Changes to training inputs, drawn anew for each batch; in evaluation mode inputs pass as they are.

B samples, C channels, H height, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dlexp.errors import UserError


class InputNoise(nn.Module):
    """Adds sigma * N(0, 1) to every input: (B, ...) -> (B, ...)."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, inputs: Tensor) -> Tensor:
        if not inputs.is_floating_point():
            raise UserError("augmentation=input_noise: is added to numbers; the inputs are tokens")
        return inputs + self.sigma * torch.randn_like(inputs) if self.training else inputs


class Shift(nn.Module):
    """Moves every picture up to `pixels` in each direction: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, inputs: Tensor) -> Tensor:
        _refuse_all_but_pictures("shift", inputs)
        if not self.training:
            return inputs
        size = (2, len(inputs))
        down, right = torch.randint(-self.pixels, self.pixels + 1, size, device=inputs.device)
        return shifted(inputs, down, right)


class Rotate(nn.Module):
    """Turns every picture by up to `degrees` either way: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, degrees: float) -> None:
        super().__init__()
        self.degrees = degrees

    def forward(self, inputs: Tensor) -> Tensor:
        _refuse_all_but_pictures("rotate", inputs)
        if not self.training:
            return inputs
        share = 2 * torch.rand(len(inputs), device=inputs.device, dtype=inputs.dtype) - 1
        return rotated(inputs, share * math.radians(self.degrees))


def shifted(pictures: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Pictures (B, C, H, W) moved by whole pixels (B,), (B,); what comes in repeats the old border."""
    _, _, height, width = pictures.shape
    device = pictures.device
    sample = torch.arange(len(pictures), device=device)[:, None, None]
    row = (torch.arange(height, device=device) - down[:, None]).clamp(0, height - 1)[:, :, None]  # (B, H, 1)
    column = (torch.arange(width, device=device) - right[:, None]).clamp(0, width - 1)[:, None]  # (B, 1, W)
    return pictures.movedim(1, -1)[sample, row, column].movedim(-1, 1).contiguous()


def rotated(pictures: Tensor, radians: Tensor) -> Tensor:
    """Pictures (B, C, H, W) turned counterclockwise around their middle by angles (B,).

    Pixels are interpolated between the four nearest; what comes in repeats the old border.
    """
    height, width = pictures.shape[2:]
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    # where each pixel comes from; PyTorch measures both sides of a picture as -1 .. 1
    from_x = torch.stack([cos, -sin * height / width, zero], dim=1)
    from_y = torch.stack([sin * width / height, cos, zero], dim=1)
    places = functional.affine_grid(
        torch.stack([from_x, from_y], dim=1), list(pictures.shape), align_corners=False
    )
    return functional.grid_sample(pictures, places, padding_mode="border", align_corners=False)


def _refuse_all_but_pictures(choice: str, inputs: Tensor) -> None:
    if inputs.dim() != 4 or not inputs.is_floating_point():
        raise UserError(
            f"augmentation={choice}: takes pictures (C, H, W); the data has {tuple(inputs.shape[1:])}"
        )
