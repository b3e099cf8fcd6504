"""GMM-LFCC: the likelihood against scikit-learn's and a literal sum, the ratio, scores only, EM under a seed, training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor
from xaibench_gmm.gmm_lfcc import GMMLFCC, cepstra, fit, recipe
from xaibench_gmm.mixture import Mixture

import xaibench
from xaibench import registry
from xaibench.errors import RunError, Unsupported
from xaibench.grid import Grid
from xaibench.protocols import Countermeasure, attributor, lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.training import TrainSpec, train
from xaibench.view import View, grid_view, native_view
from xaibench.weights import weights_hash

COMPONENTS, LENGTH = 3, 8_000


def noise(count: int, length: int = LENGTH, *, seed: int = 0, colour: float = 0.0) -> Tensor:
    """White noise; colour lowers or lifts its high frequencies."""
    x = 0.1 * torch.randn(count, length, generator=torch.Generator().manual_seed(seed))
    return x + colour * torch.nn.functional.pad(x, (1, 0))[:, :-1]


def recordings() -> dict[str, list[np.ndarray]]:
    """Two recordings a kind, of different lengths; one vocoder muffles, one sharpens."""
    kinds = {"bonafide": 0.0, "muffled": 0.6, "sharpened": -0.6}
    return {k: [noise(1, n, seed=s, colour=c)[0].numpy() for s, n in enumerate((9_000, 7_000))] for k, c in kinds.items()}


@pytest.fixture(scope="module")
def cm() -> GMMLFCC:
    made = GMMLFCC(components=COMPONENTS, n_samples=LENGTH).eval()
    fit(made, recordings(), seed=0)
    return made


def view(cm: Countermeasure, route: str, **facts: object) -> View:
    spoof, bonafide, references = noise(2, seed=1, colour=0.5), noise(2, seed=2), noise(2, seed=3)
    if route == "native":
        return native_view(cm, spoof, bonafide, references, ["a/x", "b/x"], **facts)
    return grid_view(cm, spoof, bonafide, references, ["a/x", "b/x"], grid=Grid(), **facts)


def fitted(seed: int = 0) -> tuple[GaussianMixture, np.ndarray]:
    """A mixture whose scales differ by thousands, as those of energies and of deltas do."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(400, 5)) * [30, 1, 0.01, 2, 0.5] + [-60, 3, 0, 1, 5]
    x[:200] += [50, -1, 0.05, 4, 0]
    return GaussianMixture(4, covariance_type="diag", random_state=seed).fit(x), x


def test_the_likelihood_is_scikit_learns():
    model, x = fitted()
    mine = Mixture(4, 5)
    mine.take(model)
    assert np.allclose(mine(torch.from_numpy(x)).numpy(), model.score_samples(x), atol=1e-3)


def test_the_likelihood_is_the_literal_sum():
    model, x = fitted(1)
    mine = Mixture(4, 5)
    mine.take(model)
    for frame in x[:5]:
        total = 0.0
        for k in range(4):
            density = math.exp(float(mine.log_weights[k]))
            for d in range(5):
                variance = math.exp(float(mine.log_variances[k, d]))
                density *= math.exp(-((frame[d] - float(mine.means[k, d])) ** 2) / (2 * variance))
                density /= math.sqrt(2 * math.pi * variance)
            total += density
        assert float(mine(torch.from_numpy(frame))) == pytest.approx(math.log(total), abs=1e-4)


def test_the_score_is_the_mean_ratio_over_frames_as_in_the_organisers_code(cm):
    waves = noise(2, seed=5, colour=0.3)
    with torch.no_grad():
        score = bonafide_log_odds(cm(waves), cm.classes)
    for wave, got in zip(waves, score, strict=True):
        frames = cepstra(cm, [wave.numpy()]).astype(np.float64)
        ratio = [_library(m).score(frames) for m in (cm.backend.bonafide, cm.backend.spoof)]
        assert float(got) == pytest.approx(ratio[0] - ratio[1], abs=1e-3)


def _library(mixture: Mixture) -> GaussianMixture:
    made = GaussianMixture(len(mixture.log_weights), covariance_type="diag")
    made.weights_ = mixture.log_weights.double().exp().numpy()
    made.means_ = mixture.means.double().numpy()
    made.covariances_ = mixture.log_variances.double().exp().numpy()
    made.precisions_cholesky_ = 1 / np.sqrt(made.covariances_)
    return made


def test_em_tells_the_kinds_apart_and_the_higher_score_is_bona_fide(cm):
    def score(colour: float) -> Tensor:
        with torch.no_grad():
            return bonafide_log_odds(cm(noise(4, seed=9, colour=colour)), cm.classes)

    assert score(0.0).min() > max(score(0.6).max(), score(-0.6).max())


def test_the_same_seed_gives_the_same_mixtures_and_another_seed_others(cm):
    def hashed(seed: int) -> str:
        made = GMMLFCC(components=COMPONENTS, n_samples=LENGTH)
        fit(made, recordings(), seed=seed)
        return weights_hash(made)

    assert hashed(0) == weights_hash(cm) != hashed(1)


def test_more_components_than_frames_are_refused():
    with pytest.raises(RunError, match="lower `components`"):
        fit(GMMLFCC(components=500, n_samples=LENGTH), recordings(), seed=0)


def test_it_keeps_the_contract_and_its_tap_is_a_true_cut(cm):
    assert not lacking(cm)
    waves = noise(2)
    tap, logits = cm.frontend(waves), cm(waves)
    assert torch.equal(cm.backend(tap), logits) and not logits.requires_grad
    assert tuple(tap.shape[2:]) == tuple(len(axis) for axis in cm.axes)
    assert float(cm.mean_tap.min()) > 0 and cm.mean_tap.shape == (1, 1, 257, 1)
    assert torch.allclose(torch.cat([cm(one[None]) for one in waves]), logits, atol=1e-5)


@pytest.mark.parametrize("route", ["native", "grid"])
def test_a_view_offers_scores_and_fills_but_no_gradients_layers_modules(cm, route):
    seen = view(cm, route)
    assert not seen.offers & {"gradients", "layers", "modules", "attention"}
    assert {"twin", "references"} <= seen.offers
    for needs in ({"gradients"}, {"layers", "gradients"}, {"modules"}):
        with pytest.raises(Unsupported, match=f"{route} route .* offers scores only"):
            seen.require(frozenset(needs), "it")
    changed = seen.score(seen.filled(torch.zeros(2, 1, *seen.shape), "mean"))
    assert changed.isfinite().all() and not torch.equal(changed, seen.score(seen.inputs))


@pytest.mark.parametrize("route", ["native", "grid"])
@pytest.mark.parametrize("name", ["occlusion", "kernel-shap", "lime", "shapley-sampling", "random"])
def test_methods_that_mask_and_ask_explain_it(cm, route, name):
    method = registry.load("attributors", name)
    small = {"bands": 2, "spans": 3}
    options = {"occlusion": small, "shapley-sampling": small, "random": {}}.get(name, {**small, "samples": 12})
    seen = view(cm, route)
    seen.require(method.needs, name)
    values = method.with_options(**options)(seen).values
    assert values.shape == (2, *seen.shape) and values.isfinite().all() and bool(values.any())


def test_a_method_that_asks_for_gradients_without_saying_so_does_not_get_any(cm):
    @attributor(name="sly", paper="none")
    def sly(view):
        at = view.inputs.requires_grad_()
        return torch.autograd.grad(view.model(at).sum(), at)[0].sum(1)

    with pytest.raises(RuntimeError, match="does not require grad"):
        sly(view(cm, "native"))


def test_xaibench_train_fits_it_and_writes_its_card(tmp_path):
    corpus = registry.open_corpus("minivoc")
    few = {"train": 12, "dev": 6, "eval": 6}
    kept = []
    for split, count in few.items():
        mine = [u for u in corpus.utterances if u.split == split]
        sources = sorted({u.source for u in mine})[:count]
        kept += [u for u in mine if u.source in sources]
    small = replace(corpus, utterances=tuple(kept))
    weights = train(recipe, [small], tmp_path, TrainSpec.suited(recipe, seed=3), options={"components": 2})
    card = json.loads(weights.with_suffix(".json").read_text())
    assert card["spec"] == {"seed": 3} and card["options"] == {"components": 2}
    assert "lyra" not in card["trained_on"]["vocoders"] and "lyra" in card["eer"]["eval"]["minivoc"]
    read = xaibench.countermeasure("gmm-lfcc", checkpoint=str(weights), device="cpu")
    assert len(read.module.backend.spoof.means) == 2


def test_training_needs_both_classes(tmp_path):
    corpus = registry.open_corpus("minivoc")
    alone = replace(corpus, utterances=tuple(u for u in corpus.utterances if u.bonafide or u.split != "train"))
    with pytest.raises(RunError, match="bona fide and vocoded training recordings"):
        train(recipe, [alone], tmp_path, TrainSpec.suited(recipe))


@pytest.mark.skipif(not Path(recipe.folder or "", "gmm-lfcc.safetensors").is_file(), reason="no weights ship")
def test_the_shipped_weights_tell_minivoc_apart_as_their_card_says():
    shipped = xaibench.countermeasure("gmm-lfcc", device="cpu")
    data = xaibench.load_data("minivoc")
    real = [u for u in data.utterances if u.bonafide][::4]
    fake = [u for u in data.utterances if u.vocoder == "griffinlim"][::4]
    scores = [shipped.score([data.waveform(u) for u in group]) for group in (real, fake)]
    card = shipped.card["eer"]["eval"]["minivoc"]["griffinlim"]
    assert abs(xaibench.equal_error_rate(*scores) - card) < 0.2
    assert shipped.checkpoint is None and recipe.shipped().stat().st_size < 2_000_000
