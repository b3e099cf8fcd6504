"""The optimised order of cells: exact where the best order is known, never worse than its start, shared by nobody."""

from dataclasses import replace

import pytest
import torch
from toys import SHAPE, ConvCM, LinearCM, truth_of, view_of

from xaibench import extremal
from xaibench.metrics.catalog import METRICS
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution

COUNT = 3
FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4)


def seen(cm, **facts):
    return view_of(cm, COUNT, truth=truth_of(COUNT), **facts)


def scores(view, values, *names):
    asked = Evidence(Attribution(values, *view.axes), values, view.truth, Probe(view, view.truth.valid, FRACTIONS))
    return [METRICS[name].function(asked) for name in names]


@pytest.mark.parametrize("name", ["twin", "silence"])
def test_of_a_linear_countermeasure_it_is_the_exact_attributions_order(name):
    cm = LinearCM()
    view = seen(cm)
    method = getattr(extremal, f"extremal_{name}")
    found, exact = method(view).values, cm.exact(view, name)
    for metric in (f"deletion-{name}", f"insertion-{name}", f"drop-{name}"):
        (ours,), (best,) = scores(view, found, metric), scores(view, exact, metric)
        torch.testing.assert_close(ours, best, atol=0.02 * float(best.abs().max()), rtol=0.02)


def test_more_steps_never_end_lower_and_the_start_is_the_floor_of_the_search():
    view = seen(ConvCM())
    games = []
    for steps in (0, 10, 40):
        found = extremal.extremal(view, "twin", steps=steps, rate=0.2)
        games.append(extremal._game(view, found, "twin"))
    assert (games[1] <= games[0] + 1e-5).all() and (games[2] <= games[0] + 1e-5).all()
    assert games[2].mean() < games[0].mean()


def test_it_beats_every_gradient_order_on_a_network():
    view = seen(ConvCM())
    x = view.inputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(view.model(x).sum(), x)
    simple = (gradient * (view.inputs - view.fill("twin"))).sum(1)
    (ours, ins), (theirs, their_ins) = (
        scores(view, v, "deletion-twin", "insertion-twin") for v in (extremal.extremal_twin(view).values, simple)
    )
    assert (ours - ins).mean() < (theirs - their_ins).mean()


def test_it_is_the_same_alone_and_in_a_batch_and_leaves_the_countermeasure_as_it_was():
    cm = ConvCM()
    view = seen(cm)
    before = {name: value.clone() for name, value in view.model.state_dict().items()}
    flags = [p.requires_grad for p in view.model.parameters()]
    together = extremal.extremal_twin(view).values
    alone = torch.cat([extremal.extremal_twin(one).values for one in view.each()])
    assert torch.isfinite(together).all() and together.shape == (COUNT, *SHAPE)
    assert torch.equal(together, alone)
    assert torch.equal(together, extremal.extremal_twin(replace(view, batch_size=1)).values)
    assert all(torch.equal(before[name], value) for name, value in view.model.state_dict().items())
    assert flags == [p.requires_grad for p in view.model.parameters()]
    assert all(p.grad is None for p in view.model.parameters())


def test_cells_that_are_not_valid_are_never_filled():
    view = seen(ConvCM())
    valid = view.truth.valid
    ends = []
    hook = view.model.register_forward_pre_hook(lambda module, args: ends.append(args[0].detach()))
    extremal.extremal(view, "silence", steps=3, rate=0.2)
    hook.remove()
    # all but the points of the starting path, which lie between input and fill everywhere
    searched = [x for x in ends if len(x) == 2]
    wanted = view.inputs[:, 0][:, ~valid]
    assert len(searched) % COUNT == 0 and searched
    for at, x in enumerate(searched):
        mine = wanted[at // (len(searched) // COUNT)]
        assert torch.allclose(x[:, 0][:, ~valid], mine.expand(2, -1), atol=1e-5)


def test_normal_scores_keep_the_order():
    values = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    made = extremal._normal_scores(values)
    assert torch.equal(made.flatten(1).argsort(dim=1), values.flatten(1).argsort(dim=1))
    assert abs(float(made.mean())) < 1e-5
