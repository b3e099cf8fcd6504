"""Results depend neither on utterances a chunk nor on inputs at a time: every method here, every metric of ours."""

from __future__ import annotations

import pytest
import torch
from toys import ConvCM, truth_of, view_of

from xaibench import registry
from xaibench.errors import Unsupported
from xaibench.metrics import catalog
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution
from xaibench.view import View

COUNT = 3
#: Relative to the largest value of a map, or to a score.
TOLERANCE = 1e-5
#: They take longer than all others together.
SLOW = {"partition-explainer", "ablation-cam"}


def view(size: int) -> View:
    """Three utterances, `size` inputs at a time; the halves of a pair differ in score by enough to be compared with."""
    cm = ConvCM()
    cm.backend[-1].weight.data *= -3  # and the vocoded half is the more spoofed
    truth = truth_of(COUNT)
    prior = truth.region.float().mean((0, 2))
    return view_of(cm, COUNT, batch_size=size, truth=truth, prior=prior, energy=truth.values.abs() + 1.0)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.heavy] if n in SLOW else []) for n in sorted(registry.plugins("attributors"))],
)
def test_a_map_depends_neither_on_its_neighbours_nor_on_inputs_at_a_time(name):
    method = registry.load("attributors", name)

    def maps(seen: View) -> torch.Tensor:
        found = method(seen)
        return (found.values if isinstance(found, Attribution) else found).detach()

    try:
        whole = maps(view(8))
    except Unsupported as reason:
        pytest.skip(str(reason))
    largest = whole.abs().amax(dim=(1, 2))
    others = {f"{size} at a time": maps(view(size)) for size in (1, 3)}
    others["one utterance a chunk"] = torch.cat([maps(one) for one in view(3).each()])
    for what, found in others.items():
        gap = (found - whole).abs().amax(dim=(1, 2))
        assert (gap <= TOLERANCE * largest).all(), f"{what}: off by {(gap / largest).tolist()} of the largest value"


def scores(seen: View, maps: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every metric of ours that needs no second map. Shape of each: `(B,)`."""
    attribution = Attribution(maps, *seen.axes)
    evidence = Evidence(
        attribution=attribution, on_view=maps, truth=seen.truth, probe=Probe(seen, seen.truth.valid, (0.02, 0.1, 0.4))
    )
    found = {}
    for name, metric in catalog.METRICS.items():
        try:
            found[name] = metric.function(evidence).double()
        except Unsupported:
            continue
    return found


def test_a_score_depends_neither_on_its_neighbours_nor_on_inputs_at_a_time():
    draw = torch.Generator().manual_seed(0)
    maps = torch.rand(COUNT, *view(1).shape, generator=draw) - 0.3
    whole = scores(view(8), maps)
    assert len(whole) > 80 and all("-added" in name for name, v in whole.items() if v.isnan().all()), "nothing to compare"
    single = [scores(one, maps[i : i + 1]) for i, one in enumerate(view(3).each())]
    others = {f"{size} at a time": scores(view(size), maps) for size in (1, 3)}
    others["one utterance a chunk"] = {name: torch.cat([s[name] for s in single]) for name in whole}
    for what, found in others.items():
        for name, values in whole.items():
            assert found[name].tolist() == pytest.approx(values.tolist(), rel=TOLERANCE, abs=TOLERANCE, nan_ok=True), (
                f"{name}, {what}"
            )
