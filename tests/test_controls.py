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
    controls.centre, controls.oracle,
)  # fmt: skip
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
    assert control.random == (control.name == "random")
    assert control.needs == {"frequency-prior": {"prior"}, "oracle": {"truth"}}.get(control.name, frozenset())


def test_the_names_are_those_of_the_boards_reference_rows():
    assert [c.name for c in ALL] == [
        "random", "constant", "energy", "inverse-energy", "frequency-prior", "centre", "oracle",
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
