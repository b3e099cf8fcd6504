"""The log-likelihood of frames under a Gaussian mixture with diagonal covariances.

    log p(x) = logsumexp_k (log w_k - 1/2 sum_d (log 2 pi s_kd^2 + (x_d - m_kd)^2 / s_kd^2))

Fitted by scikit-learn's EM (`sklearn.mixture.GaussianMixture`), evaluated here in torch, in double precision: the square is
multiplied out into matrix products, and a deviation of some hundred standard deviations would cost single precision its
digits. Weights and variances are kept as logarithms, so that any numbers in their place still are a mixture.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture


class Mixture(nn.Module):
    """Frames `(..., D)` -> log-likelihood `(...)`, natural logarithm, double precision.

    >>> Mixture(1, 2)(torch.zeros(3, 2)).mul(-1).tolist() == [math.log(2 * math.pi)] * 3
    True
    """

    def __init__(self, components: int, dimensions: int) -> None:
        super().__init__()
        self.log_weights = nn.Parameter(torch.zeros(components), requires_grad=False)
        self.means = nn.Parameter(torch.zeros(components, dimensions), requires_grad=False)
        self.log_variances = nn.Parameter(torch.zeros(components, dimensions), requires_grad=False)

    def forward(self, frames: Tensor) -> Tensor:
        frames, means, log_variances = frames.double(), self.means.double(), self.log_variances.double()
        precision = (-log_variances).exp()
        constant = (means.square() * precision + log_variances).sum(1) + means.shape[1] * math.log(2 * math.pi)
        distance = frames.square() @ precision.T - 2 * frames @ (means * precision).T + constant
        return (self.log_weights.double().log_softmax(0) - distance / 2).logsumexp(-1)

    @torch.no_grad()
    def take(self, fitted: GaussianMixture) -> None:
        """Take over what scikit-learn fitted, with `covariance_type="diag"` and as many components."""
        self.log_weights.copy_(torch.from_numpy(fitted.weights_).clamp_min(1e-12).log())
        self.means.copy_(torch.from_numpy(fitted.means_))
        self.log_variances.copy_(torch.from_numpy(fitted.covariances_).log())
