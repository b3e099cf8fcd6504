"""No metric makes a tensor wherever tensors are made by default: all come to lie where the map is.

The default here is `meta`, whose tensors hold no numbers: a score that touches one is an error, or has none itself. What a
registered second device says of the whole benchmark: tests/test_second_device.py.
"""

from types import SimpleNamespace

import pytest
import torch
from asking import COUNT, VALID, noise
from toys import GRID, N_SAMPLES, truth_of

from xaibench.metrics import localisation, sanity, stability
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence
from xaibench.truth import smooth, top_share
from xaibench.types import Attribution

ALONE = [name for name, metric in METRICS.items() if not {"forward", "explain"} & metric.needs]


@pytest.mark.parametrize("name", ALONE)
def test_a_score_lies_where_its_map_does(name):
    values = noise().round(decimals=1)  # with ties
    asked = Evidence(
        Attribution(values, GRID.frequency, GRID.time(N_SAMPLES)), values, truth_of(COUNT), SimpleNamespace(valid=VALID)
    )
    with torch.device("meta"):
        score = METRICS[name].function(asked)
    assert score.device.type == "cpu"
    assert score.isfinite().all() or name.endswith("-added")  # the toys' vocoder adds nothing


@pytest.mark.parametrize("score", [stability.rank_correlation, stability.relative_change])
def test_so_does_a_comparison_of_two_maps(score):
    one, two = noise(), noise(seed=1)
    with torch.device("meta"):
        assert score(one, two, VALID).isfinite().all()
        assert sanity.histogram_entropy(one, VALID).isfinite().all()
        assert localisation.roc_auc(one.double(), two > 1, VALID).isfinite().all()


def test_the_truths_parts_lie_where_the_spectrum_does():
    values, wave = noise(), noise()[:, 0].repeat(1, 9)
    with torch.device("meta"):
        assert smooth(values).isfinite().all() and GRID.stft(wave).isfinite().all()
        assert top_share(values, VALID, 0.05).sum().item() == COUNT * round(0.05 * int(VALID.sum()))
