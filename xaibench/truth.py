"""Where a vocoder changed the speech: the truth that attributions are scored against.

Grinberg et al., Interspeech 2025 (arXiv 2506.03425), as implemented in a public reproduction (github.com, repository
thinganhado/segdiff_concept):

    M_b = |STFT(bona fide)|, M_s = |STFT(vocoded)|              linear magnitude
    D   = |G(M_s) - G(M_b)| / (G(M_b) + eps)                    Eq. 2, G a separable Gaussian
    S   = the top 5 % of D over the valid cells of the pair     (tau = 0.95)

G has kernel sizes 3 (time) and 11 (frequency) and variances 3 and 5; borders are reflected (`d c b a | a b c d`). Eq. 1 is
the same without G. `log-difference` is `|ln(M_s + eps) - ln(M_b + eps)|`: symmetric, so it does not favour cells of
low energy. D divides by the real energy: its largest values sit where speech is quiet, which the controls expose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xaibench.errors import Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.types import Truth

#: Not from a difference of twins but from the labels of partially spoofed speech: `xaibench.segments`.
SEGMENTS = "segments"
DIFFERENCES = ("eq2", "eq1", "log-difference")
DEFINITIONS = (*DIFFERENCES, SEGMENTS)

#: The two signs of a difference: energy that the vocoder added, and energy that it lost.
HALVES = ("added", "missing")


@dataclass(frozen=True)
class TruthSpec:
    """Every constant of the truth; all are recorded with a run.

    kernel and variance are (time, frequency), in cells and cells squared; share is 1 - tau.
    """

    name: str = "eq2"
    kernel: tuple[int, int] = (3, 11)
    variance: tuple[float, float] = (3.0, 5.0)
    epsilon: float = 1e-8
    share: float = 0.05

    def __post_init__(self) -> None:
        if self.name not in DEFINITIONS:
            raise XaibenchError(f"unknown truth {self.name!r}; expected one of {', '.join(DEFINITIONS)}")
        if any(k < 1 or k % 2 == 0 for k in self.kernel):
            raise XaibenchError(f"kernel sizes must be odd and positive, got {self.kernel}")
        if not all(v > 0 for v in self.variance):
            raise XaibenchError(f"variances must be positive, in cells squared, got {self.variance}")
        if not self.epsilon > 0:
            raise XaibenchError(f"epsilon must be positive, it keeps silence from dividing by zero, got {self.epsilon}")
        if not 0 < self.share < 1:
            raise XaibenchError(f"share must lie between 0 and 1, got {self.share}")


def smooth(magnitude: Tensor, *, kernel: tuple[int, int] = (3, 11), variance: tuple[float, float] = (3.0, 5.0)) -> Tensor:
    """Separable Gaussian with reflected borders, scipy's `gaussian_filter1d(..., mode="reflect")` on both axes.

    Shape: `(B, F, T)` -> `(B, F, T)`. kernel, variance: (time, frequency).

    >>> float(smooth(torch.ones(1, 20, 20)).std()) < 1e-6
    True
    """
    for size, var, dim in ((kernel[1], variance[1], 1), (kernel[0], variance[0], 2)):
        radius = size // 2
        length = magnitude.shape[dim]
        offsets = torch.arange(-radius, radius + 1, dtype=magnitude.dtype, device=magnitude.device)
        taps = torch.exp(-0.5 * offsets.square() / var)
        taps = taps / taps.sum()
        mirror = torch.arange(-radius, length + radius, device=magnitude.device) % (2 * length)
        mirror = torch.minimum(mirror, 2 * length - 1 - mirror)
        padded = magnitude.index_select(dim, mirror)
        # A sum of shifted copies, not a convolution: those may round to TF32 on a GPU and differ with the batch's size.
        magnitude = sum(tap * padded.narrow(dim, i, length) for i, tap in enumerate(taps))
    return magnitude


def difference(spoof: Tensor, bonafide: Tensor, spec: TruthSpec) -> Tensor:
    """The continuous truth D from magnitudes. Shape: `(B, F, T)` twice -> `(B, F, T)`, non-negative."""
    return signed_difference(spoof, bonafide, spec).abs()


def signed_difference(spoof: Tensor, bonafide: Tensor, spec: TruthSpec) -> Tensor:
    """D without its absolute value: above 0 where the vocoder added energy (smoothed, for `eq2`), below where it is gone.

    Shape: `(B, F, T)` twice -> `(B, F, T)`. Of `eq1` and `eq2` at least -1: no more can be missing than there was.
    """
    if spoof.shape != bonafide.shape:
        raise XaibenchError(f"a pair must agree in shape, got {tuple(spoof.shape)} and {tuple(bonafide.shape)}")
    if spec.name == SEGMENTS:
        raise XaibenchError("the truth `segments` comes from labels, not from a pair: see xaibench.segments.segment_truth")
    if spec.name == "log-difference":
        return (spoof + spec.epsilon).log() - (bonafide + spec.epsilon).log()
    if spec.name == "eq2":
        spoof = smooth(spoof, kernel=spec.kernel, variance=spec.variance)
        bonafide = smooth(bonafide, kernel=spec.kernel, variance=spec.variance)
    return (spoof - bonafide) / (bonafide + spec.epsilon)


def top_share(values: Tensor, valid: Tensor, share: float) -> Tensor:
    """Exactly the `round(share * valid cells)` largest valid cells of every map; among equals the first in row order.

    Shape: `(B, F, T)`, valid `(F, T)` bool -> `(B, F, T)` bool. A bare `>= quantile` would mark every tied cell.

    >>> top_share(torch.tensor([[[1.0, 3.0], [3.0, 0.0]]]), torch.ones(2, 2, dtype=bool), 0.25).tolist()
    [[[False, True], [False, False]]]
    """
    count = round(share * int(valid.sum()))
    if count < 1:
        raise XaibenchError(f"{share} of {int(valid.sum())} valid cells is less than one cell")
    flat = values.flatten(1).masked_fill(~valid.flatten(), -torch.inf)
    order = flat.argsort(dim=1, descending=True, stable=True)
    region = torch.zeros_like(flat, dtype=torch.bool)
    return region.scatter_(1, order[:, :count], True).view_as(values)


def truth(spoof: Tensor, bonafide: Tensor, *, grid: Grid, band: tuple[float, float], spec: TruthSpec = TruthSpec()) -> Truth:
    """The truth of pairs. Waveforms `(B, N)` twice, aligned and of equal length; `band` in Hz is the corpus' valid band.

    A cell that did not change (D = 0, as in shared digital silence) is never in the region: that of identical twins is
    empty, and scores against it are undefined, instead of being those of arbitrary cells.

    Raises XaibenchError for pairs of different lengths.

    >>> x = torch.randn(2, 8_000)
    >>> t = truth(x + 0.1 * torch.randn(2, 8_000), x, grid=Grid(), band=(90, 7_000))
    >>> int(t.region[0].sum()) == round(0.05 * int(t.valid.sum()))
    True
    """
    if spoof.shape != bonafide.shape:
        raise XaibenchError(f"a pair must agree in length, got {tuple(spoof.shape)} and {tuple(bonafide.shape)} samples")
    values = signed_difference(grid.stft(spoof).abs(), grid.stft(bonafide).abs(), spec)
    inside = torch.from_numpy(np.asarray(grid.band(*band))).to(values.device)
    valid = inside[:, None].expand(values.shape[1:]).contiguous()
    values = values * valid
    added, values = values > 0, values.abs()
    region = top_share(values, valid, spec.share) & (values > 0)
    return Truth(values=values, region=region, valid=valid, name=spec.name, added=added)


def half(truth: Truth, which: str) -> Tensor:
    """The cells of the region where the vocoder "added" energy, or where energy is "missing". Shape: `(B, F, T)` bool.

    Raises Unsupported for a truth that has no sign.

    >>> region = torch.tensor([[[True, True, False]]])
    >>> t = Truth(region.float(), region, region[0], "eq2", added=torch.tensor([[[True, False, True]]]))
    >>> half(t, "added").tolist(), half(t, "missing").tolist()
    ([[[True, False, False]]], [[[False, True, False]]])
    """
    if which not in HALVES:
        raise XaibenchError(f"the halves of a truth are {' and '.join(HALVES)}, got {which!r}")
    if truth.added is None:
        why = "comes from labels" if truth.name == SEGMENTS else "lies on other axes than the pairs were compared on"
        raise Unsupported(f"the truth {truth.name!r} has no sign, it {why}: it cannot tell added from missing energy")
    return truth.region & (truth.added if which == "added" else ~truth.added)
