"""The network that answers Shapley values: a few convolutions from the explained tensor to one value a patch.

It sees what the countermeasure sees behind the cut, `(B, C, F, T)`, and nothing else: no truth, no twin, no label. Channels
(real and imaginary part on the grid) become their norm, and the level is compressed, asinh(x / scale), linear for small
and logarithmic for large values, so that log spectra, powers and samples can all be taken as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xaibench.view import patches


class PatchNetwork(nn.Module):
    """Values of patches, not yet efficient. Shape: `(B, C, F, T)` -> `(B, rows * columns)`, spoof log-odds, spoof positive.

    shape:          `(F, T)` of the explained tensor; patch: cells `(height, width)` of a patch (`xaibench.view.patches`).
    scale, typical: fitted to training inputs by `fit`; unit: of the spoof log-odds, for targets of about one.

    >>> PatchNetwork((257, 201), (33, 41))(torch.zeros(2, 1, 257, 201)).shape
    torch.Size([2, 40])
    """

    scale: Tensor
    unit: Tensor
    silence: Tensor

    def __init__(self, shape: tuple[int, int], patch: tuple[int, int], *, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.shape, self.patch, self.width = (shape[0], shape[1]), (patch[0], patch[1]), width
        self.rows, self.columns = -(-shape[0] // patch[0]), -(-shape[1] // patch[1])
        flat = shape[0] == 1  # a tap that resolves time alone
        self.register_buffer("scale", torch.ones(shape[0], 1))
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("silence", torch.zeros(channels, shape[0]))  # the front end's silence, its finger-print

        def layer(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
            tall = (1, 1) if flat else (size, stride)
            convolution = nn.Conv2d(
                inputs, outputs, (tall[0], size), (tall[1], stride), (tall[0] // 2, size // 2), bias=False
            )  # fmt: skip
            return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

        self.body = nn.Sequential(
            *layer(1, width // 2, 5, 2), *layer(width // 2, width, 3, 2), *layer(width, 2 * width, 3, 2),
            *layer(2 * width, 2 * width, 3, 1),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d((self.rows, self.columns))
        self.place = nn.Parameter(torch.zeros(2 * width, self.rows, self.columns))
        self.head = nn.Sequential(nn.Conv2d(4 * width, 2 * width, 1), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(2 * width, 1, 1))

    @property
    def numbers(self) -> Tensor:
        """The patch number of every cell. Shape: `(F, T)`."""
        return patches(self.shape, *self.patch)

    def features(self, inputs: Tensor) -> Tensor:
        """What the convolutions see. Shape: `(B, C, F, T)` -> `(B, 1, F, T)`."""
        one = inputs if inputs.shape[1] == 1 else inputs.norm(dim=1, keepdim=True)
        return torch.asinh(one / self.scale)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.of_features(self.features(inputs))

    def of_features(self, features: Tensor) -> Tensor:
        """As `forward`, of `features`. Shape: `(B, 1, F, T)` -> `(B, d)`."""
        local = self.pool(self.body(features))
        everywhere = local.mean(dim=(2, 3), keepdim=True).expand_as(local)
        return self.unit * self.head(torch.cat([local + self.place, everywhere], dim=1)).flatten(1)

    @torch.no_grad()
    def fit(self, inputs: Tensor, worth: Tensor) -> None:
        """Set `scale` from training inputs `(B, C, F, T)` and `unit` from v(S) - v(none) of any shape."""
        one = inputs if inputs.shape[1] == 1 else inputs.norm(dim=1, keepdim=True)
        self.scale.copy_(one.abs().mean(dim=(0, 1, 3))[:, None].clamp_min(1e-12))
        self.unit.copy_(worth.std().clamp_min(1e-6) / (self.rows * self.columns) ** 0.5)
