"""The planted countermeasure: it hears the notch, within the notch, and the whole chain finds it there."""

import numpy as np
import pytest
import torch
from torch import nn
from xaibench_planted.cnn import PlantedCNN, recipe
from xaibench_planted.notch import planted_rectangle

from xaibench import registry
from xaibench.audio import read
from xaibench.harness.known import load_countermeasure
from xaibench.harness.run import run
from xaibench.harness.spec import RunSpec
from xaibench.leaderboard import table
from xaibench.manifest import pairs
from xaibench.protocols import lacking
from xaibench.scoring import bonafide_log_odds
from xaibench.training import error_rates, evaluate

RATE = 16_000
FLOORS = ("random", "constant", "energy", "inverse-energy", "frequency-prior", "centre")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One folder for the twins of all tests here."""
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def corpus(root):
    return registry.open_corpus("planted", root)


@pytest.fixture(scope="module")
def cm():
    return load_countermeasure("planted-cnn", None, {})[0].eval()


def waves(corpus, *, most: int) -> tuple[torch.Tensor, torch.Tensor, list[tuple[float, float, float, float]]]:
    """Bona fide and notched recordings `(B, N)` of the evaluation split, and their rectangles."""
    chosen = [p for p in pairs(corpus) if p.spoof.split == "eval"][:: 48 // most][:most]
    real, fake = (
        np.stack([read(getattr(p, h).path, sample_rate=RATE) for p in chosen])[:, : 2 * RATE] for h in ("bonafide", "spoof")
    )
    return torch.from_numpy(real), torch.from_numpy(fake), [planted_rectangle(x, RATE) for x in real]


def test_it_keeps_the_contract():
    cm = recipe.untrained(seed=0).eval()
    assert not lacking(cm)
    assert (cm.sample_rate, cm.n_samples, cm.classes) == (RATE, 32_000, ("spoof", "bonafide"))
    x = 0.1 * torch.randn(2, 32_000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tap = cm.frontend(x)
        assert tap.shape == (2, 1, *(len(a) for a in cm.axes)) == (2, 1, 257, 201)
        assert torch.equal(cm.backend(tap), cm(x)) and cm(x).shape == (2, 2)
    assert list(cm.layers) == ["relu_1", "relu_2", "relu_3", "relu_4"]
    assert "xaibench train --cm planted-cnn" in recipe.obtain


def test_every_activation_is_a_module_of_its_own():
    modules = [m for m in PlantedCNN().modules() if isinstance(m, (nn.ReLU, nn.MaxPool2d, nn.BatchNorm2d))]
    assert len(modules) == len({id(m) for m in modules}) == 10 and not any(getattr(m, "inplace", False) for m in modules)


def test_a_feature_sees_less_than_the_rectangle():
    """0.7 kHz by 0.2 s, as the module says."""
    torch.manual_seed(0)
    cm = PlantedCNN().eval()
    kept = []
    cm.layers["relu_4"].register_forward_hook(lambda _m, _i, out: kept.append(out))
    x = torch.randn(1, 1, 257, 201, requires_grad=True)
    cm.backend(x)
    (gradient,) = torch.autograd.grad(kept[0][0, :, 32, 25].sum(), x)
    rows, columns = (gradient[0, 0].abs().sum(axis).nonzero().flatten() for axis in (1, 0))
    assert 11 < len(rows) <= rows[-1] - rows[0] + 1 <= 22 and columns[-1] - columns[0] + 1 <= 22


def test_the_card_says_what_it_was_trained_on(corpus, cm):
    path = recipe.shipped()
    _, card, _ = load_countermeasure("planted-cnn", None, {})
    assert card["trained_on"]["data"] == {"planted": corpus.hash} and card["trained_on"]["vocoders"] == ["planted-notch"]
    assert card["parameters"] == sum(p.numel() for p in cm.parameters()) and path.stat().st_size < 300_000
    masks = {k: card["spec"][k] for k in ("time_mask", "frequency_mask", "equaliser_db")}
    assert masks == {"time_mask": 0, "frequency_mask": 0, "equaliser_db": 0.0}
    assert card["eer"]["eval"]["planted"]["pooled"] <= 0.05


def test_the_notched_twin_scores_lower_in_every_pair(corpus, cm):
    real, fake, _ = waves(corpus, most=12)
    with torch.no_grad():
        gap = bonafide_log_odds(cm(real), cm.classes) - bonafide_log_odds(cm(fake), cm.classes)
    assert float(gap.min()) > 2


def test_its_evidence_is_in_the_rectangle_and_not_at_its_edges_alone(corpus, cm):
    """Bona fide log power put back within the rectangle takes the whole gap away; outside it, next to nothing; and
    the inner half of the rectangle, edges left as they are, takes its share.
    """
    real, fake, rectangles = waves(corpus, most=12)
    frequency, time = cm.axes[0].centres, np.arange(201) * 0.01
    with torch.no_grad():
        true, false = cm.frontend(real), cm.frontend(fake)

        def restored(inside: torch.Tensor) -> torch.Tensor:
            return bonafide_log_odds(cm.backend(torch.where(inside[:, None], true, false)), cm.classes)

        def within(shrink: float) -> torch.Tensor:
            found = []
            for start, end, low, high in rectangles:
                t, f = shrink * (end - start) / 2, shrink * (high - low) / 2
                found.append(
                    ((frequency >= low + f) & (frequency <= high - f))[:, None]
                    & ((time >= start + t) & (time <= end - t))[None, :]
                )
            return torch.from_numpy(np.stack(found))

        nothing = restored(torch.zeros(len(real), 257, 201, dtype=torch.bool))
        gap = restored(torch.ones(len(real), 257, 201, dtype=torch.bool)) - nothing
        share = {name: float(((restored(cells) - nothing) / gap).mean()) for name, cells in {
            "rectangle": within(0.0), "outside": ~within(0.0), "inner half": within(1 - 0.5**0.5),
        }.items()}  # fmt: skip
    assert share["rectangle"] > 0.97 and abs(share["outside"]) < 0.05 and share["inner half"] > 0.6, share


def test_good_methods_find_the_rectangle_and_no_floor_does(root, tmp_path):
    """The chain as users run it, on six pairs: truth, view, methods, metrics, rows."""
    methods = [n for n in ("grad-cam", "smoothgrad", "saliency") if n in registry.plugins("attributors")]
    if not methods:
        pytest.skip("needs xaibench-captum or xaibench-gradcam")
    spec = RunSpec(
        countermeasures=("planted-cnn",), attributors=(*methods, *FLOORS, "oracle"), metrics=("rank-accuracy", "roc-auc"),
        data="planted", root=str(root), split="eval", limit=6,
    )  # fmt: skip
    run(spec, tmp_path / "run")
    scores = table.read_rows([tmp_path / "run"]).groupby(["metric", "attributor"]).value.mean().unstack(0)
    assert scores["rank-accuracy"]["oracle"] == 1
    floor = scores.loc[list(FLOORS)].max()
    assert floor["rank-accuracy"] < 0.3 and floor["roc-auc"] < 0.75
    assert (scores.loc[methods, "rank-accuracy"] > floor["rank-accuracy"] + 0.15).all(), scores
    assert (scores.loc[methods, "roc-auc"] > 0.8).all(), scores
    if "grad-cam" in methods:
        assert scores["rank-accuracy"]["grad-cam"] > 0.7 and scores["roc-auc"]["grad-cam"] > 0.95


@pytest.mark.heavy
def test_the_error_rates_of_the_card_are_measured_again(corpus, cm):
    _, card, _ = load_countermeasure("planted-cnn", None, {})
    for split in ("dev", "eval"):
        found = error_rates(evaluate(cm, [corpus], split), ())
        for name, rate in card["eer"][split]["planted"].items():
            assert found[name] == pytest.approx(rate, abs=0.022), (split, name)  # one utterance of 48
    assert found["pooled"] < 0.05
