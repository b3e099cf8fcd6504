"""GMM-LFCC: two Gaussian mixtures over cepstra, one of bona fide and one of spoofed speech. Scores only.

Sahidullah, Kinnunen, Hanilci, "A comparison of features for synthetic speech detection", Interspeech 2015, made LFCC the
standard features; with Gaussian mixtures they are a baseline of ASVspoof 2019 (LA, PA) and 2021 (LA, PA, DF). The score is
the mean over frames of the log-likelihood ratio,

    s = 1/T sum_t (log p(c_t | bona fide) - log p(c_t | spoof))        c_t: 20 cepstra, 20 deltas, 20 delta-deltas

What was read in the organisers' code, and where this differs:

    2019    LFCC of 20 ms Hamming windows every 10 ms, pre-emphasis 0.97, 512 points, 20 filters, 20 coefficients with both
            deltas; two mixtures of 512 components
    2021    30 ms windows every 15 ms, 1024 points, 70 filters up to 4 kHz (LA, DF) or 8 kHz (PA); at most 10 rounds of EM
    here    2019's, as `xaibench_countermeasures.lfcc` has it (the log energy in the place of coefficient 0, deltas over
            three frames); fewer components, as the embedded corpus is small: chosen on dev, see the README

The mixtures are fitted by EM, not by gradients, and the countermeasure declares `gradients = False`: it stands for every
detector that answers with a number and nothing else, behind a network or in another library. Methods that mask and ask
(occlusion, Shapley values, LIME) explain it, those that need gradients or layers are refused with a reason.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from xaibench_countermeasures import lfcc

from xaibench.errors import RunError
from xaibench.recipe import Recipe
from xaibench.types import Axis
from xaibench_gmm.mixture import Mixture

#: Static, delta and delta-delta coefficients of a frame.
COEFFICIENTS = 3 * lfcc.FILTERS
#: Most frames a mixture is fitted to, drawn without replacement: 160,000 are 27 minutes.
FRAMES = 160_000
#: Rounds of EM at most.
ROUNDS = 60


class Ratio(nn.Module):
    """Power spectrum `(B, 1, 257, T)` -> logits `(B, 2)`, spoof and bona fide: minus and plus half the mean log ratio."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.cepstrum = lfcc.Cepstrum()
        self.bonafide, self.spoof = Mixture(components, COEFFICIENTS), Mixture(components, COEFFICIENTS)

    @torch.no_grad()
    def forward(self, power: Tensor) -> Tensor:
        with torch.autocast(power.device.type, enabled=False):
            frames = self.cepstrum(power)[:, 0].transpose(1, 2)
            score = (self.bonafide(frames) - self.spoof(frames)).mean(1)
        return (score[:, None] * torch.tensor([-0.5, 0.5], device=score.device, dtype=score.dtype)).to(power)


class GMMLFCC(nn.Module):
    """The countermeasure. Shape: `(B, n_samples)` -> `(B, 2)`, classes spoof, bonafide; any length.

    components: of each mixture. n_samples: the length the harness cuts or repeats to.

    >>> GMMLFCC()(torch.zeros(1, 32_000)).shape
    torch.Size([1, 2])
    """

    sample_rate = lfcc.SAMPLE_RATE
    classes = ("spoof", "bonafide")
    gradients = False

    def __init__(self, *, components: int = 64, n_samples: int = 32_000) -> None:
        super().__init__()
        self.n_samples = n_samples
        self.frontend = lfcc.PowerSpectrum()
        self.backend = Ratio(components)

    def forward(self, waveform: Tensor) -> Tensor:
        return self.backend(self.frontend(waveform))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        return lfcc.axes(self.n_samples // lfcc.HOP + 1)

    @property
    def mean_tap(self) -> Tensor:
        return self.frontend.mean[None, None]

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        return {}


@torch.no_grad()
def cepstra(cm: GMMLFCC, recordings: Sequence[np.ndarray]) -> np.ndarray:
    """Every frame of some recordings `(N,)`. Shape: `(frames, 60)`."""
    each = [cm.backend.cepstrum(cm.frontend(torch.from_numpy(x)[None]))[0, 0].T.numpy() for x in recordings]
    return np.concatenate(each)


def fit(cm: GMMLFCC, recordings: Mapping[str, Sequence[np.ndarray]], *, seed: int) -> None:
    """Fit both mixtures by EM to at most `FRAMES` frames each, and the front end's mean. See `xaibench.recipe.Recipe.fit`.

    Raises RunError for fewer frames than components.
    """
    from sklearn.exceptions import ConvergenceWarning  # here, because its import draws random numbers and adds filters
    from sklearn.mixture import GaussianMixture

    cm.frontend.mean.copy_(_mean_power(cm, [x for group in recordings.values() for x in group]))
    spoofed = [x for name, group in recordings.items() if name != "bonafide" for x in group]
    for number, (mixture, group) in enumerate([(cm.backend.bonafide, recordings["bonafide"]), (cm.backend.spoof, spoofed)]):
        frames = cepstra(cm, group)
        draw = np.random.default_rng([seed, number])
        chosen = frames[draw.permutation(len(frames))[:FRAMES]].astype(np.float64)
        if len(chosen) < len(mixture.log_weights):
            raise RunError(
                f"{len(chosen)} frames cannot be fitted by {len(mixture.log_weights)} components; lower `components`"
            )
        model = GaussianMixture(
            len(mixture.log_weights), covariance_type="diag", init_params="k-means++", max_iter=ROUNDS, tol=1e-3,
            reg_covar=1e-4, random_state=seed,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the last rounds change little; 2021's stops after ten
            mixture.take(model.fit(chosen))


@torch.no_grad()
def _mean_power(cm: GMMLFCC, recordings: Sequence[np.ndarray]) -> Tensor:
    """The mean power per bin over all frames. Shape: `(257, 1)`."""
    total, count = torch.zeros(lfcc.BINS, 1, dtype=torch.float64), 0
    for x in recordings:
        power = cm.frontend(torch.from_numpy(x)[None])[0, 0].double()
        total += power.sum(1, keepdim=True)
        count += power.shape[1]
    return (total / count).float()


recipe = Recipe(
    name="gmm-lfcc",
    paper="Sahidullah et al., Interspeech 2015; baseline of ASVspoof 2019 and 2021",
    build=GMMLFCC,
    folder=Path(__file__).parent / "checkpoints",
    fit=fit,
)
