"""What an attributor may rely on in a view: its parts stay together, draws are seeded, and it offers what it says."""

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import BAND, GRID, SHAPE, ConvCM, LinearCM, pairs, truth_of, view_of
from view_toys import RawCM, make

from xaibench.errors import Unsupported
from xaibench.layers import MaxFeatureMap
from xaibench.protocols import lacking
from xaibench.truth import truth
from xaibench.view import FILLS, View, derive_seed, patches

ROUTES = ("native", "grid")

# Selecting


def full(route: str, count: int = 3) -> View:
    view = view_of(ConvCM(), count, route=route, truth=truth_of(count), prior=torch.ones(SHAPE[0]))
    return replace(view, energy=GRID.stft(pairs(count)[0]).abs())


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("count", "index"), [(3, [2, 0]), (3, [1]), (3, [1, 1, 0]), (1, [0]), (1, [0, 0]), (3, [-1])])
def test_selection_keeps_every_part_together(route, count, index):
    view = full(route, count)
    part = view.select(index)
    assert part.ids == tuple(view.ids[i] for i in index)
    assert len(part) == len(index)
    for at, i in enumerate(index):
        assert torch.equal(part.inputs[at], view.inputs[i])
        assert torch.equal(part.truth.values[at], view.truth.values[i])
        assert torch.equal(part.truth.region[at], view.truth.region[i])
        assert torch.equal(part.energy[at], view.energy[i])
        for name in FILLS:
            assert torch.equal(part.fill(name)[at], view.fill(name)[i])
    assert torch.equal(part.truth.valid, view.truth.valid)
    assert torch.equal(part.references, view.references)
    assert part.offers == view.offers and part.layers == view.layers
    assert torch.allclose(part.score(part.inputs), view.score(view.inputs)[list(index)], atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_selecting_twice_is_selecting_once(route):
    view = full(route)
    twice, once = view.select([2, 1]).select([1]).select([0, 0]), view.select([1, 1])
    assert twice.ids == once.ids
    assert all(torch.equal(twice.fill(name), once.fill(name)) for name in FILLS)


def test_a_fill_without_a_batch_dimension_is_not_cut_when_its_length_happens_to_be_the_batchs():
    view = full("native", 3)
    inputs = view.inputs[:, :, :3]  # three frequencies, three utterances
    per_frequency = torch.tensor([[1.0], [2.0], [3.0]])  # (F, 1)
    view = replace(view, inputs=inputs, fills={"mean": per_frequency}, truth=None, energy=None)
    assert torch.equal(view.select([2]).fill("mean"), view.fill("mean")[2:])


def test_each_is_one_view_an_utterance():
    view = full("native")
    parts = list(view.each())
    assert [p.ids for p in parts] == [(i,) for i in view.ids]
    assert torch.equal(torch.cat([p.fill("twin") for p in parts]), view.fill("twin"))


def test_scoring_in_parts_is_scoring_at_once():
    view = full("native")
    many = view.filled(torch.rand(3, 5, *SHAPE, generator=torch.Generator().manual_seed(0)), "twin")
    assert torch.allclose(view.score(many), replace(view, batch_size=100).score(many), atol=1e-5)
    assert view.score(many).shape == (15,)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fill", FILLS)
def test_a_mixture_is_the_arithmetic_and_exact_where_a_mask_is_zero_or_one(route, fill):
    view = full(route)
    soft = torch.rand(3, 4, *SHAPE, generator=torch.Generator().manual_seed(0))
    for keep, tolerance in ((soft, 1e-5), (soft < 0.5, 0.0), (torch.ones_like(soft), 0.0)):
        k = keep.float().unsqueeze(2)
        twin = (k * view.inputs.unsqueeze(1) + (1 - k) * view.fill(fill).unsqueeze(1)).flatten(0, 1)
        assert torch.allclose(view.filled(keep, fill), twin, rtol=0, atol=tolerance * float(twin.abs().max()))
        assert view.filled(keep, fill).is_contiguous() and view.inputs.is_contiguous()


# Randomness


def test_draws_belong_to_the_utterance_not_to_its_place():
    view = full("native")
    alone, moved = view.select([2]), view.select([2, 0])
    for draw in (lambda v, i: torch.rand(4, generator=v.generator(i)), _under_seed):
        assert torch.equal(draw(view, 2), draw(alone, 0))
        assert torch.equal(draw(view, 0), draw(moved, 1))
        assert not torch.equal(draw(view, 0), draw(view, 1))
        assert not torch.equal(draw(view, 0), draw(replace(view, seed=1), 0))


def _under_seed(view: View, index: int) -> Tensor:
    with view.seeded(index):
        return torch.cat([torch.rand(2), torch.tensor([float(np.random.rand()), random.random()])])


@pytest.mark.parametrize("fails", [False, True])
def test_global_generators_are_as_before_also_after_an_exception(fails):
    view = full("native", 1)

    def states() -> tuple[object, ...]:
        return torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = states()
    try:
        with view.seeded():
            torch.rand(5), np.random.rand(5), random.random()
            assert states() != before
            if fails:
                raise KeyError("inside")
    except KeyError:
        assert fails
    assert states() == before


def test_seeds_are_the_same_on_every_machine():
    assert derive_seed(0, "a", 1.5) == 3_457_743_688_920_621_769
    assert derive_seed("a", "b") != derive_seed("ab") != derive_seed("b", "a")


# What a view offers


def test_a_private_model_is_independent():
    view = make(ConvCM(), "native", torch.float32)
    before = view.score(view.inputs)
    private = view.private_model()
    assert torch.equal(private(view.inputs)[:, 0], before)
    with torch.no_grad():
        for p in private.parameters():
            p.add_(1.0)
    private.backend[1] = nn.Identity()
    private.register_forward_hook(lambda *_: None)
    assert torch.equal(view.score(view.inputs), before)
    assert not view.model._forward_hooks


@pytest.mark.parametrize("route", ROUTES)
def test_layer_names_resolve_to_the_declared_layers_in_their_order(route):
    cm = ConvCM()
    view = make(cm, route, torch.float32)
    assert [view.model.get_submodule(name) for name in view.layers] == list(cm.layers.values())
    assert view.layers == ("backend.1", "backend.5")
    assert [view.private_model().get_submodule(n).__class__ for n in view.layers] == [MaxFeatureMap] * 2
    assert "layers" in view.offers


def test_layers_follow_the_declaration_not_the_registration():
    class Crossed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early(x)).mean((2, 3))

    class CrossedCM(ConvCM):
        @property
        def layers(self) -> Mapping[str, nn.Module]:
            return {"early": self.backend.early, "late": self.backend.late}

    cm = CrossedCM()
    cm.backend = Crossed()
    assert make(cm, "native").layers == ("backend.early", "backend.late")


def test_offers_follow_route_and_facts():
    plain = {"gradients", "references", "twin"}
    assert make(LinearCM(), "native").offers == plain | {"modules"}
    assert make(LinearCM(), "grid").offers == plain
    spoof, bonafide = (w.double() for w in pairs(2))
    facts = {"truth": truth(spoof, bonafide, grid=GRID, band=BAND), "prior": torch.ones(SHAPE[0])}
    assert make(ConvCM(), "grid", **facts).offers == plain | {"layers", "truth", "prior"}


def test_require_says_what_is_missing_and_why():
    view = make(LinearCM(), "grid")
    view.require(frozenset({"gradients"}), "saliency")
    message = (
        r"^grad-cam needs what the grid route of this countermeasure lacks: layers \(convolutional layers.*; modules \("
    )
    with pytest.raises(Unsupported, match=message):
        view.require(frozenset({"modules", "layers", "gradients"}), "grad-cam")


def test_toys_are_countermeasures():
    for cm in (RawCM(), ConvCM(), LinearCM()):
        assert not lacking(cm)
    assert lacking(nn.Linear(2, 2))


def test_patches_number_rectangles_in_row_order_and_cover_the_rest():
    found = patches((5, 7), 2, 3)
    assert found.shape == (5, 7)
    for row in range(5):
        for column in range(7):
            assert int(found[row, column]) == (row // 2) * math.ceil(7 / 3) + column // 3


def test_stages_are_named_so_that_libraries_can_find_them():
    assert list(dict(make(ConvCM(), "grid").model.named_children())) == [
        "resynthesis", "frontend", "backend", "contrast",
    ]  # fmt: skip
    assert list(dict(make(ConvCM(), "native").model.named_children())) == ["backend", "contrast"]
