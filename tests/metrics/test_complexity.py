"""How many cells a map spreads over: against twins, against Quantus, and on maps whose answer is plain."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import SHAPE
from twins import complexity as twin

from xaibench.errors import XaibenchError
from xaibench.metrics import complexity as ours
from xaibench.metrics.catalog import METRICS

FUNCTIONS = ("gini", "entropy", "effective_area")
every = pytest.mark.parametrize("name", FUNCTIONS)
cells = st.lists(st.integers(-50, 50).map(lambda v: v / 8), min_size=6, max_size=6).filter(any)


def score(name, values, valid=None):
    return getattr(ours, name)(torch.as_tensor(values), valid)


def noise(count=3, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@every
@given(values=cells)
@settings(max_examples=60, deadline=None)
def test_is_its_twin(name, values):
    found = score(name, torch.tensor(values, dtype=torch.float64).view(1, 2, 3)).item()
    assert found == pytest.approx(getattr(twin, name)(values), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "one", "alike"), [("gini", 1 - 1 / 12, 0), ("entropy", 0, math.log(12)), ("effective_area", 1 / 12, 1)]
)
def test_one_cell_and_all_alike_are_the_ends(name, one, alike):
    maps = torch.zeros(2, 3, 4)
    maps[0, 1, 2], maps[1] = -5.0, 2.0
    assert score(name, maps).tolist() == pytest.approx([one, alike], abs=1e-12)


@every
@given(values=cells, scale=st.sampled_from([1e-30, 1e-8, 3.0, 1e20]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_neither_scale_sign_nor_place_counts(name, values, scale, seed):
    maps = torch.tensor(values, dtype=torch.float64).view(1, 2, 3)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    other = -scale * maps.flatten()[order].view(1, 3, 2)
    assert score(name, other).item() == pytest.approx(score(name, maps).item(), rel=1e-9, abs=1e-12)


@every
def test_only_valid_cells_count_and_a_map_of_zeros_is_undefined(name):
    maps = noise()
    valid = torch.zeros(SHAPE, dtype=torch.bool)
    valid[3:7, 10:90] = True
    part = score(name, maps[:, 3:7, 10:90].contiguous())
    torch.testing.assert_close(score(name, maps, valid), part)
    maps[1] = 0
    maps[2, 3:7, 10:90] = 0
    assert score(name, maps, valid).isnan().tolist() == [False, True, True]


@every
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_bad_maps_and_masks_are_refused(name, bad):
    maps = noise()
    with pytest.raises(XaibenchError, match=r"valid must be bool of shape \(33, 126\)"):
        score(name, maps, torch.ones(SHAPE[::-1], dtype=torch.bool))
    with pytest.raises(XaibenchError, match=r"\(B, F, T\)"):
        score(name, maps[0])
    maps[0, 0, 0] = bad
    with pytest.raises(XaibenchError, match="1 NaN or infinite"):
        score(name, maps)


def test_noise_has_the_declared_chance():
    uniform = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    for metric, name in (("sparseness", "gini"), ("effective-area", "effective_area")):
        assert score(name, uniform).mean().item() == pytest.approx(METRICS[metric].chance, abs=0.003)


@pytest.mark.parametrize(("name", "theirs"), [("gini", "Sparseness"), ("entropy", "Complexity")])
def test_agrees_with_quantus_unless_values_are_small(name, theirs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus", minversion="0.6")
    metric = getattr(quantus, theirs)(abs=True, normalise=False, disable_warnings=True, display_progressbar=False)

    def quantus_score(maps):
        zeros = np.zeros((len(maps), 1, *SHAPE))
        return metric(
            model=torch.nn.Identity(), x_batch=zeros, y_batch=np.zeros(len(maps), dtype=int), device="cpu",
            a_batch=maps.double().unsqueeze(1).numpy().copy(), channel_first=True,
        )  # fmt: skip

    maps = noise()
    assert score(name, maps).tolist() == pytest.approx(quantus_score(maps), abs=1e-6)
    if name == "gini":  # Quantus adds 1e-7 to every cell, as if that were small beside any map
        assert score(name, 1e-9 * maps).tolist() == pytest.approx(score(name, maps).tolist(), abs=1e-6)
        assert max(quantus_score(1e-9 * maps)) < 0.02 < 0.4 < score(name, maps).min()


@pytest.mark.parametrize("scale", [1e-40, 1.0, 1e38])
def test_no_map_is_too_small_or_too_large_in_double_precision(scale):
    maps = torch.tensor([[[3.0, -1.0, 0.0, 2.0]], [[1.0, 1.0, 1.0, 1.0]]], dtype=torch.float64) * scale
    assert score("gini", maps).tolist() == pytest.approx([(3 * 3 + 2 - 1) / (4 * 6), 0])
    assert score("effective_area", maps).tolist() == pytest.approx([36 / (4 * 14), 1])
    assert score("entropy", maps).tolist() == pytest.approx([1.0114, 1.3863], abs=1e-4)
