"""What is drawn at random is fixed by the utterance's id and its purpose alone, and neither reads nor moves the generators
that everybody shares.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from asking import COUNT, VALID, noise
from toys import GRID, N_SAMPLES, SHAPE, ConvCM, pairs, view_of

from xaibench.metrics import again
from xaibench.metrics.probe import Probe
from xaibench.metrics.regions import SIDE, SUBSETS, regions, subsets
from xaibench.view import derive_seed


@pytest.fixture(scope="module")
def view():
    return view_of(ConvCM(), COUNT)


def generator(*parts):
    return torch.Generator().manual_seed(derive_seed(*parts))


def test_tied_cells_stand_in_the_order_drawn_for_the_utterance(view):
    probe = Probe(view, VALID, ())
    ranks = probe.ranks(torch.zeros(COUNT, *SHAPE))
    cells = int(VALID.sum())
    for i, name in enumerate(view.ids):
        order = torch.randperm(cells, generator=generator(0, "ties", name))
        assert torch.equal(ranks[i][VALID].argsort(), order)
    assert (ranks[:, ~VALID] == cells).all()


def test_tied_regions_stand_in_an_order_of_their_own(view):
    probe = Probe(view, VALID, ())
    ranks = probe.region_ranks(torch.zeros(COUNT, probe.regions.count))
    for i, name in enumerate(view.ids):
        order = torch.randperm(probe.regions.count, generator=generator(0, "region ties", name))
        assert torch.equal(ranks[i].argsort(), order)


@pytest.mark.parametrize(("full", "size"), [(56, 3), (1, 1), (30, 2), (29, 1), (200, 10)])
def test_subsets_are_of_five_per_cent_of_the_regions_of_full_size(full, size):
    sizes = torch.full((full + 3,), 81.0)
    sizes[:3] = torch.tensor([9.0, 80.0, 27.0])
    chosen = subsets(["a", "b"], sizes)
    assert (
        chosen.shape == (2, 50, full + 3) and SUBSETS == 50 and (chosen.sum(2) == size).all() and not chosen[..., :3].any()
    )
    draw = generator(0, "subsets", "b")
    for subset in chosen[1]:
        assert torch.equal(subset.nonzero()[:, 0], 3 + torch.randperm(full, generator=draw)[:size].sort().values)


def test_regions_are_of_nine_cells():
    made = regions(torch.ones(20, 10, dtype=torch.bool))
    assert SIDE == 9 and made.count == 6 and made.number.flatten().bincount().tolist() == [81, 9, 81, 9, 18, 2]


def test_the_name_of_an_order_is_the_same_in_every_process(view):
    probe = Probe(view, VALID, ())
    factors = torch.randint(-(2**62), 2**62, SHAPE, generator=generator(0, "orders"))
    order = probe.order(noise())
    assert order.name == tuple((order.ranks * factors).sum((1, 2)).tolist())
    assert Probe(view, VALID, ()).order(noise()).name == order.name
    assert len(set(order.name)) == COUNT


@pytest.mark.parametrize("text", ["noise:40:0", "white:20:3"])
def test_noise_is_drawn_for_the_utterance_and_the_change(text):
    speech = pairs()[0].double()
    (change,) = again.parse(text)
    ids = ["a", "b", "c"]
    made = again.perturb(speech, change, ids, grid=GRID)
    for x, y, name in zip(speech, made, ids, strict=True):
        if text.startswith("white"):
            drawn = torch.randn(1, N_SAMPLES, generator=generator(name, text))
        else:
            drawn = again.masked_noise(x[None], generator(name, text), GRID)
        torch.testing.assert_close(y[None], again.add_at(x[None], drawn, change.values[0]))
    assert made.dtype == torch.float64


def test_parameters_are_drawn_by_the_modules_name_and_the_parameters(view):
    model, fresh = ConvCM().backend, ConvCM().backend
    names = again.redraw(model, 1.0, 5)
    for name in names:
        for key, before in fresh.get_submodule(name).named_parameters(recurse=False):
            values = before.detach().double()
            drawn = torch.randn(before.shape, generator=generator(5, "randomised", name, key), dtype=torch.float64)
            wanted = (values.mean() + values.std(correction=0) * drawn).float()
            assert torch.equal(model.get_submodule(name).get_parameter(key), wanted)


def test_a_module_within_a_module_is_drawn_once_under_its_own_name():
    class Outer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
            self.inner = torch.nn.Linear(2, 2)

    model = torch.nn.Sequential(Outer(), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.named_parameters()}
    for share, names in ((0.34, ["2"]), (0.67, ["2", "0.inner"]), (1.0, ["2", "0.inner", "0"])):
        model.load_state_dict(before)
        assert again.redraw(model, share, 0) == names
        for name, after in model.named_parameters():
            holder, _, key = name.rpartition(".")
            drawn = torch.randn(after.shape, generator=generator(0, "randomised", holder, key), dtype=torch.float64)
            old = before[name].double()
            wanted = (old.mean() + old.std(correction=0) * drawn).float() if holder in names else before[name]
            assert torch.equal(after, wanted)


def test_nobodys_generator_is_read_or_moved(view):
    def everything() -> list[torch.Tensor]:
        probe = Probe(view, VALID, ())
        model = ConvCM().backend
        again.redraw(model, 1.0, 0)
        changes = [again.parse(text)[0] for text in ("noise:40:0", "white:20:0")]
        made = [again.perturb(pairs()[0], change, ["a", "b", "c"], grid=GRID) for change in changes]
        changed = [again.opposite(view), again.bonafide_logit(view, ["spoof", "bonafide"]), again.shifted(view, 1.0)]
        made += [other.score(other.inputs) for other in changed]
        flat = torch.zeros(COUNT, *SHAPE)
        return [*made, *model.parameters(), probe.ranks(flat), probe.subsets, probe.region_ranks(probe.regions.sums(flat))]

    found = []
    for seed in (1, 2):
        ConvCM()  # its own weights are another's
        torch.manual_seed(seed), np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        found.append(everything())
        assert torch.equal(torch.get_rng_state(), before[0]) and np.array_equal(np.random.get_state()[1], before[1])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


# ---- changed views ---------------------------------------------------------------------------------------------------


def test_a_changed_view_keeps_precision_and_has_nothing_to_train(view):
    double = replace(
        view, model=view.model.double(), inputs=view.inputs.double(), references=view.references.double(),
        fills={name: fill.double() for name, fill in view.fills.items()},
    )  # fmt: skip
    try:
        untouched = double.score(double.inputs)
        assert torch.equal(again.opposite(double).score(double.inputs), -untouched)
        other = again.shifted(double, 1.0)
        deviation = double.references.std()
        torch.testing.assert_close(other.inputs, double.inputs + deviation)
        torch.testing.assert_close(other.references, double.references + deviation)
        torch.testing.assert_close(other.score(other.inputs), untouched)
        assert next(iter(dict(other.model.named_children()))) == "shift"
        for one in (again.opposite(double), again.bonafide_logit(double, ["spoof", "bonafide"])):
            assert one.model(double.inputs).shape == (COUNT, 1)
        assert again.bonafide_logit(double, ["spoof", "bonafide"]).model.get_submodule("contrast").out_features == 1
        for made in (other, again.opposite(double), again.bonafide_logit(double, ["spoof", "bonafide"])):
            assert not made.model.training
            assert {p.dtype for p in made.model.parameters()} == {torch.float64}
        sign = again.opposite(double).model.get_submodule("sign")
        fresh = [*other.model.get_submodule("shift").parameters(), *sign.parameters()]
        assert fresh and not any(p.requires_grad for p in fresh)
    finally:
        view.model.float()


def test_beyond_full_scale_is_clipped_on_both_sides():
    wave = torch.linspace(-3, 3, 6_001)[None]
    for change in (again.mu_law, lambda x: again.vorbis(x, 16_000)):
        assert torch.equal(change(wave), change(wave.clamp(-1, 1)))
        assert change(wave).shape == wave.shape
    assert again.mu_law(wave)[0, [0, -1]].tolist() == pytest.approx([-1, 1])
    longer = torch.randn(1, 40_000, generator=torch.Generator().manual_seed(0)).mul(0.1)
    assert again.vorbis(longer, 16_000).shape == longer.shape and again.vorbis(longer, 16_000).dtype == torch.float32


def test_every_recording_has_its_own_level():
    waves = torch.tensor([[2.0, 0.0], [0.0, 100.0]])
    noises = torch.tensor([[0.0, 5.0], [1.0, 0.0]])
    assert again.add_at(waves, noises, 20.0).tolist() == [[2.0, pytest.approx(0.2)], [pytest.approx(10.0), 100.0]]
    assert again.add_at(waves, torch.zeros(2, 2), 20.0).tolist() == waves.tolist()
