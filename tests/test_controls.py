"""The floors and the ceiling: what each one says, on both routes."""

from dataclasses import replace

import pytest
import torch
from toys import GRID, SHAPE, ConvCM, pairs, truth_of, view_of

from xaibench import controls
from xaibench.errors import Unsupported
from xaibench.protocols import Attributor
from xaibench.view import View

ALL = (
    controls.random_map, controls.constant, controls.energy, controls.inverse_energy, controls.frequency_prior,
    controls.centre, controls.oracle, controls.moved_truth, controls.energy_matched,
)  # fmt: skip
NEEDS = {
    "frequency-prior": {"prior"}, "oracle": {"truth"}, "moved-truth": {"truth"}, "energy-matched": {"truth"},
}  # fmt: skip
PRIOR = torch.linspace(0, 1, SHAPE[0])


def full(route: str, count: int = 3) -> View:
    view = view_of(ConvCM(), count, route=route, truth=truth_of(count), prior=PRIOR)
    return replace(view, energy=GRID.stft(pairs(count)[0]).abs())


@pytest.mark.parametrize("route", ["native", "grid"])
@pytest.mark.parametrize("control", ALL, ids=lambda c: c.name)
def test_every_control_gives_one_finite_map_an_utterance_the_same_alone_and_in_a_batch(control, route):
    view = full(route)
    before = torch.random.get_rng_state()
    made = control(view)
    assert made.values.shape == (3, *SHAPE) and torch.isfinite(made.values).all()
    assert (made.frequency, made.time) == view.axes
    assert torch.equal(control(view).values, made.values)
    alone = torch.cat([control(part).values for part in view.each()])
    assert torch.equal(alone, made.values)
    swapped = control(view.select([2, 0])).values
    assert torch.equal(swapped, made.values[[2, 0]])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("control", ALL, ids=lambda c: c.name)
def test_controls_say_what_they_are(control):
    assert isinstance(control, Attributor)
    assert control.control and not control.class_specific and not control.complete
    assert control.random == (control.name in ("random", "moved-truth"))
    assert control.needs == NEEDS.get(control.name, frozenset())


def test_the_names_are_those_of_the_boards_reference_rows():
    assert [c.name for c in ALL] == [
        "random", "constant", "energy", "inverse-energy", "frequency-prior", "centre", "oracle", "moved-truth",
        "energy-matched",
    ]  # fmt: skip


def test_random_is_uniform_and_its_own_for_every_utterance_and_seed():
    view = full("native")
    values = controls.random_map(view).values
    assert values.min() >= 0 and values.max() < 1
    assert float(values.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(values.std()) == pytest.approx(1 / 12**0.5, abs=0.02)
    flat = torch.cat([values.flatten(1), controls.random_map(replace(view, seed=1)).values.flatten(1)])
    assert float((torch.corrcoef(flat) - torch.eye(6)).abs().max()) < 0.1


def test_constant_is_the_same_everywhere():
    assert controls.constant(full("native")).values.unique().tolist() == [1.0]


@pytest.mark.parametrize("route", ["native", "grid"])
def test_energy_is_the_magnitude_of_the_vocoded_speech(route):
    wanted = GRID.stft(pairs(3)[0]).abs()
    assert torch.allclose(controls.energy(full(route)).values, wanted)
    assert torch.allclose(controls.inverse_energy(full(route)).values, 1 / wanted.clamp_min(1e-12))


def test_the_grid_knows_the_energy_by_itself_and_the_native_route_must_be_told():
    view = replace(full("grid"), energy=None)
    assert torch.allclose(controls.energy(view).values, GRID.stft(pairs(3)[0]).abs(), atol=1e-6)
    for control in (controls.energy, controls.inverse_energy):
        with pytest.raises(Unsupported, match="the energy of the vocoded speech was not given"):
            control(replace(full("native"), energy=None))


def test_inverse_energy_of_silence_is_finite():
    view = replace(full("native"), energy=torch.zeros(3, *SHAPE))
    assert torch.isfinite(controls.inverse_energy(view).values).all()


def test_the_prior_depends_on_frequency_only():
    values = controls.frequency_prior(full("native")).values
    assert torch.equal(values, PRIOR[None, :, None].expand(3, *SHAPE))


def test_the_centre_is_highest_in_the_middle_symmetric_and_a_quarter_wide():
    bump = controls.centre(full("native", 1)).values[0]
    assert torch.allclose(bump, bump.flip(0)) and torch.allclose(bump, bump.flip(1))
    row, column = divmod(int(bump.argmax()), SHAPE[1])
    assert row == SHAPE[0] // 2 and abs(column - (SHAPE[1] - 1) / 2) <= 0.5
    quarter = (SHAPE[0] - 1) // 4  # one standard deviation from the middle
    assert float(bump[row - quarter, column] / bump[row, column]) == pytest.approx(2.718281828**-0.5, abs=1e-4)


def test_the_oracle_is_the_truth():
    view = full("grid")
    found = controls.oracle(view).values
    region, values = view.truth.region, view.truth.values
    for cells in (region, ~region):  # the order of D within and outside
        for f, v, c in zip(found, values, cells, strict=True):
            assert torch.equal(f[c].argsort(stable=True), v[c].argsort(stable=True))
    assert float(found[region].min()) >= 1 and float(found[~region].max()) < 0.01


# --- shams: the truth's size and shape in the wrong place ----------------------------------------------------------------


def top(values: torch.Tensor, view: View) -> torch.Tensor:
    """The largest valid cells, as many as the truth's region has."""
    cells = values.masked_fill(~view.truth.valid, -torch.inf).flatten(1)
    count = int(view.truth.region[0].sum())
    return torch.zeros_like(cells, dtype=torch.bool).scatter_(1, cells.topk(count, dim=1).indices, True).view_as(values)


@pytest.mark.parametrize("route", ["native", "grid"])
def test_the_moved_truth_is_the_truths_shape_elsewhere(route):
    view = full(route)
    moved, valid = controls.moved_truth(view).values, view.truth.valid
    rows = valid.any(1)
    assert not moved[:, ~rows].any()
    for i in range(3):
        region, found = view.truth.region[i][rows], top(moved, view)[i][rows]
        shifts = [
            (f, t)
            for f in range(region.shape[0]) for t in range(region.shape[1])
            if torch.equal(region.roll((f, t), (0, 1)), found)
        ]  # fmt: skip
        assert len(shifts) == 1, "exactly one shift in a circle turns the region into the moved one"
        for moved_by, length in zip(shifts[0], region.shape, strict=True):
            assert length / 4 <= moved_by <= 3 * length / 4
    again = replace(view, seed=7)
    assert not torch.equal(controls.moved_truth(again).values, moved)


def test_of_a_single_frequency_only_time_moves():
    view = full("native")
    truth = view.truth
    flat = {name: getattr(truth, name)[:, :1] for name in ("values", "region")}
    one = replace(
        view, inputs=view.inputs[:, :, :1], truth=replace(truth, **flat, valid=torch.ones(1, SHAPE[1], dtype=torch.bool))
    )
    best, moved = controls.oracle.function(one), controls.moved_truth.function(one)
    assert torch.equal(best.sort(dim=2).values, moved.sort(dim=2).values) and not torch.equal(best, moved)


@pytest.mark.parametrize("route", ["native", "grid"])
def test_energy_matched_cells_are_as_many_and_as_loud_and_elsewhere(route):
    view = full(route)
    chosen = controls.energy_matched(view).values.bool()
    region, valid = view.truth.region, view.truth.valid
    assert torch.equal(chosen.sum((1, 2)), region.sum((1, 2)))
    assert not (chosen & region).any() and not (chosen & ~valid).any()
    for i in range(3):
        inside, outside = (view.energy[i][cells].log().sort().values for cells in (region[i], chosen[i]))
        rest = view.energy[i][valid & ~region[i]].log().sort().values
        apart = (inside - outside).abs().mean()
        assert apart < 0.15 * (inside.mean() - rest.mean()).abs().clamp_min(rest.std())


def test_energy_matched_finds_the_nearest_free_cell_in_the_order_of_energy():
    view = full("native", 1)
    truth = view.truth
    region, energy = torch.zeros(1, *SHAPE, dtype=torch.bool), torch.zeros(1, *SHAPE)
    valid = torch.zeros(SHAPE, dtype=torch.bool)
    valid[4, :8] = True
    energy[0, 4, :8] = torch.tensor([1.0, 1.1, 2.0, 2.1, 3.0, 3.1, 9.0, 0.5])
    region[0, 4, [0, 4, 6]] = True  # 1.0 -> 1.1, 3.0 -> 3.1, 9.0 -> none as loud is left: the loudest free one, 2.1
    made = controls.energy_matched.function(replace(view, truth=replace(truth, region=region, valid=valid), energy=energy))
    # the assignment keeps the order: 3.0 takes 2.1 so that 9.0 can have 3.1
    assert made[0, 4, :8].nonzero()[:, 0].tolist() == [1, 3, 5]


def test_energy_matched_refuses_a_truth_of_more_than_half_of_the_cells():
    view = full("native")
    with pytest.raises(Unsupported, match="more than half"):
        controls.energy_matched(replace(view, truth=replace(view.truth, region=view.truth.valid.expand(3, *SHAPE))))
