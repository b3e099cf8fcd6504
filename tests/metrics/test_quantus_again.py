"""Metrics that explain again, and those of sums, against Quantus 0.6.0. Both sides have the same perturbed inputs, the same
randomised models and the same method (gradient times input), so that only the arithmetic can differ. To 1e-6 where the
definitions coincide; elsewhere the difference is pinned, with what the paper says.
"""

import copy
import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from asking import ALL, VALID, Recorder
from torch import nn
from toys import GRID, N_SAMPLES, SHAPE, ConvCM, LinearCM, truth_of, view_of

from xaibench.metrics import axioms, sanity, stability, subsets
from xaibench.metrics.again import Again, bonafide_logit, redraw, shifted
from xaibench.metrics.evidence import Evidence, Probe
from xaibench.types import Attribution

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    quantus = pytest.importorskip("quantus", minversion="0.6")
    from quantus.functions.similarity_func import correlation_spearman
    from quantus.helpers.model.pytorch_model import PyTorchModel

COUNT = 3
PLAIN = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def numpys_generator():
    """Quantus seeds it."""
    state = np.random.get_state()
    yield
    np.random.set_state(state)


@pytest.fixture(scope="module")
def view():
    return view_of(ConvCM(), COUNT)


def explain(model, inputs, targets=None, **_):
    """Gradient times input in double precision, of the log-odds or of the logit `targets`. Arrays `(B, 1, F, T)`."""
    x = torch.as_tensor(np.asarray(inputs)).double().requires_grad_()
    answers = copy.deepcopy(model).double()(x)
    chosen = answers[:, 0] if targets is None else answers[torch.arange(len(x)), torch.as_tensor(targets)]
    return (torch.autograd.grad(chosen.sum(), x)[0] * x).detach().numpy()


def mapped(model, inputs):
    """The same as our map. Shape: `(B, F, T)` float64."""
    return torch.from_numpy(explain(model, inputs))[:, 0]


def evidence(view, values, again=None, valid=ALL):
    attribution = Attribution(values, GRID.frequency, GRID.time(N_SAMPLES))
    return Evidence(attribution, values, truth_of(COUNT), Probe(view, valid, ()), again)


def theirs(metric, view, model=None, attributions=None, **options):
    """The scores of Quantus; without `attributions` it explains the inputs itself."""
    given = None if attributions is None else attributions.unsqueeze(1).numpy()
    return metric(
        model=view.model if model is None else model, x_batch=view.inputs.numpy(), y_batch=np.zeros(COUNT, dtype=int),
        a_batch=given, explain_func=explain, device="cpu", channel_first=True, **options,
    )  # fmt: skip


# ---- stability -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved(view):
    """Three perturbed inputs of three sizes; for each utterance another is the largest."""
    draw = torch.randn(3, *view.inputs.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sizes = torch.tensor([[0.05, 0.2, 0.1], [0.2, 0.1, 0.05], [0.1, 0.05, 0.2]])[..., None, None, None]
    return view.inputs + sizes * draw


def perturbed(metric, moved, **options):
    draws = iter(moved.flatten(2).numpy())
    return metric(nr_samples=3, perturb_func=lambda **_: next(draws), **{**PLAIN, **options})


def noisy(view, moved, values=None):
    """Our evidence about the same perturbed inputs; `values`: the maps before and after, in place of the method's."""
    before, *after = [mapped(view.model, x) for x in (view.inputs, *moved)] if values is None else values
    return evidence(view, before, lambda change: Again(after[int(change[-1])], moved[int(change[-1])]))


def test_max_sensitivity(view, moved):
    given = noisy(view, moved)
    expected = theirs(perturbed(quantus.MaxSensitivity, moved), view, None, given.on_view)
    ours = stability.max_sensitivity(given)
    assert ours.tolist() == pytest.approx(list(expected), abs=1e-6) and len(set(ours.tolist())) == COUNT

    paper = perturbed(quantus.MaxSensitivity, moved, norm_denominator=lambda a: np.ones(len(a)))
    size = given.on_view.flatten(1).norm(dim=1)  # Yeh et al. do not divide
    assert (ours * size).tolist() == pytest.approx(list(theirs(paper, view, None, given.on_view)), rel=1e-6)


def test_local_lipschitz_of_maps_at_their_largest_size_differs_by_the_size_of_the_input(view, moved):
    """The paper and Quantus divide neither. Quantus with each map at its largest size 1 is ours without rms(x)."""
    given = noisy(view, moved)
    unit = perturbed(
        quantus.LocalLipschitzEstimate, moved, normalise=True, normalise_func_kwargs={"normalise_axes": (1, 2, 3)}
    )
    rms = view.inputs.double().square().mean((1, 2, 3)).sqrt()
    expected = np.array(theirs(unit, view, None, given.on_view)) * rms.numpy()
    ours = stability.local_lipschitz(given)
    assert ours.tolist() == pytest.approx(expected.tolist(), abs=1e-6) and ours.min() > 1e-3


def test_local_lipschitz_without_any_division_is_the_papers_and_quantus(view, moved):
    """Of maps that share their largest cell the factor to ours is exact: rms(x) / max|A|."""
    before, *after = [mapped(view.model, x) for x in (view.inputs, *moved)]
    largest = 2 * max(float(values.abs().max()) for values in (before, *after))
    for values in (before, *after):
        values[:, 5, 17] = largest
    answers = iter(after)
    metric = perturbed(quantus.LocalLipschitzEstimate, moved)
    raw = metric(
        model=view.model, x_batch=view.inputs.numpy(), y_batch=np.zeros(COUNT, dtype=int), device="cpu", channel_first=True,
        a_batch=before.unsqueeze(1).numpy(), explain_func=lambda **_: next(answers).unsqueeze(1).numpy(),
    )  # fmt: skip
    paper = [
        max(
            float((a[i] - before[i]).norm() / (x[i] - view.inputs[i].double()).norm())
            for a, x in zip(after, moved, strict=True)
        )
        for i in range(COUNT)
    ]
    assert list(raw) == pytest.approx(paper, rel=1e-6)
    factor = view.inputs.double().square().mean((1, 2, 3)).sqrt() / before.abs().amax((1, 2))
    ours = stability.local_lipschitz(noisy(view, moved, (before, *after)))
    assert ours.tolist() == pytest.approx((factor.numpy() * np.array(raw)).tolist(), abs=1e-6)
    assert (factor - 1).abs().min() > 0.1


# ---- sanity ----------------------------------------------------------------------------------------------------------


def randomised(view, share):
    model = view.private_model()
    redraw(model.backend, share, 7)
    return model


def hand_over(monkeypatch, models):
    """Quantus randomises by these models, in this order."""
    steps = [(f"step {i}", model) for i, model in enumerate(models)]
    monkeypatch.setattr(PyTorchModel, "get_random_layer_generator", lambda *_, **__: iter(steps))
    monkeypatch.setattr(PyTorchModel, "random_layer_generator_length", len(steps))


def size_of_rank_correlation(a, b, batched):
    return np.abs(correlation_spearman(a, b, batched=batched))


@pytest.mark.parametrize("name", ["MPRT", "ModelParameterRandomisation"])
def test_mprt(view, monkeypatch, name):
    cascade = {f"randomised:{share}": randomised(view, share) for share in sanity.CASCADE}
    hand_over(monkeypatch, cascade.values())
    given = evidence(view, mapped(view.model, view.inputs), lambda c: Again(mapped(cascade[c], view.inputs), view.inputs))
    metric = getattr(quantus, name)(similarity_func=size_of_rank_correlation, **PLAIN)
    scores = theirs(metric, view, None, given.on_view)
    assert scores.pop("original") == pytest.approx([1.0] * COUNT, abs=1e-12)
    expected = np.mean(list(scores.values()), axis=0)
    ours = sanity.mprt(given)
    assert len(scores) == 4 and np.ptp(list(scores.values())) > 0.01
    assert ours.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_the_average_of_quantus_mprt_counts_the_model_that_was_not_randomised_and_signs_cancel(view, monkeypatch):
    """It leaves out "orig" where it wrote "original": the map with itself. Adebayo et al. plot randomised models."""
    cascade = {f"randomised:{share}": randomised(view, share) for share in sanity.CASCADE}
    hand_over(monkeypatch, cascade.values())
    values = mapped(view.model, view.inputs)
    rho = torch.stack([stability.rank_correlation(values, mapped(model, view.inputs)) for model in cascade.values()])
    average = theirs(quantus.MPRT(return_average_correlation=True, **PLAIN), view, None, values)
    assert average == pytest.approx(((1 + rho.sum(0)) / (1 + len(rho))).tolist(), abs=1e-6)
    sizes = quantus.MPRT(return_average_correlation=True, similarity_func=size_of_rank_correlation, **PLAIN)
    ours = sanity.mprt(evidence(view, values, lambda c: Again(mapped(cascade[c], view.inputs), view.inputs)))
    assert theirs(sizes, view, None, values) == pytest.approx(((1 + 4 * ours) / 5).tolist(), abs=1e-6)


def test_mprts_order_of_layers_is_ours_top_down_and_the_reverse_bottom_up():
    """Adebayo et al. go from the output to the input. MPRT's default is top down, that of its two successors bottom up."""
    model = ConvCM().backend.eval()
    names = redraw(copy.deepcopy(model), 1.0, 7)
    for order, expected in (("top_down", names), ("bottom_up", names[::-1])):
        with torch.random.fork_rng(devices=[]):
            wrapped = PyTorchModel(model, channel_first=True)
            assert [n for n, _ in wrapped.get_random_layer_generator(order=order)] == expected
    orders = [metric(**PLAIN).layer_order for metric in (quantus.MPRT, quantus.SmoothMPRT, quantus.EfficientMPRT)]
    assert orders == ["top_down", "bottom_up", "bottom_up"] and len(names) == 4


def test_quantus_forgets_the_statistics_of_batch_normalisation_and_we_keep_them():
    """Statistics are no parameters (Adebayo et al.); `reset_parameters` of torch resets both."""
    model = ConvCM().backend.eval()
    model[3].running_mean += 0.5
    with torch.random.fork_rng(devices=[]):
        *_, (_, last) = PyTorchModel(model, channel_first=True).get_random_layer_generator(order="top_down")
    assert last[3].running_mean.tolist() == [0.0] * 4
    redraw(model, 1.0, 7)
    assert model[3].running_mean.tolist() == [0.5] * 4


def smooth(view, monkeypatch, model, draws):
    """Scores of Quantus for `draws` of noise and the clean input, and the noisy inputs. It calls its own `explain`, whatever
    `explain_func` it was given, and draws for the map, for the original model and for the randomised one.
    """
    x = view.inputs.numpy()
    unit = np.random.default_rng(5).standard_normal((draws, *x.shape))
    again = itertools.cycle(unit)
    monkeypatch.setattr(np.random, "randn", lambda *shape: next(again).reshape(shape))
    monkeypatch.setattr(quantus, "explain", lambda model, inputs, targets, **_: explain(model, inputs))
    hand_over(monkeypatch, [model])
    metric = quantus.SmoothMPRT(
        nr_samples=draws + 1, noise_magnitude=0.1, similarity_func=size_of_rank_correlation, return_last_correlation=True,
        **PLAIN,
    )  # fmt: skip
    width = x.max((1, 2, 3), keepdims=True) - x.min((1, 2, 3), keepdims=True)
    return theirs(metric, view), [x + noise * (0.1 * width) for noise in unit]


def smooth_evidence(view, model, inputs):
    def again(change):
        x = inputs[int(change[-1])]
        return Again(mapped(model if change.startswith("randomised:1.0+") else view.model, x), torch.as_tensor(x))

    return evidence(view, mapped(view.model, view.inputs), again)


def test_smooth_mprt(view, monkeypatch):
    """The last of Quantus' inputs is the clean one, so ours is handed that in place of the third noisy one."""
    model = randomised(view, 1.0)
    expected, inputs = smooth(view, monkeypatch, model, 2)
    ours = sanity.smooth_mprt(smooth_evidence(view, model, [*inputs, view.inputs]))
    assert ours.tolist() == pytest.approx(expected, abs=1e-6) and len(set(expected)) == COUNT


def test_smooth_mprt_of_quantus_counts_the_clean_input_among_the_noisy_ones(view, monkeypatch):
    """Hedstroem et al. average over noisy inputs alone."""
    model = randomised(view, 1.0)
    found, inputs = smooth(view, monkeypatch, model, 3)
    with_clean = [
        torch.stack([mapped(m, x) for x in (*inputs, view.inputs)]).mean(0) for m in (view.model, model)
    ]  # fmt: skip
    assert found == pytest.approx(stability.rank_correlation(*with_clean).abs().tolist(), abs=1e-6)
    ours = sanity.smooth_mprt(smooth_evidence(view, model, inputs))
    assert (ours - torch.tensor(found)).abs().min() > 1e-4


def test_efficient_mprt(view, monkeypatch):
    model = randomised(view, 1.0)
    hand_over(monkeypatch, [randomised(view, 0.5), model])  # the last counts
    given = evidence(view, mapped(view.model, view.inputs), lambda _: Again(mapped(model, view.inputs), view.inputs))
    expected = theirs(quantus.EfficientMPRT(**{**PLAIN, "abs": True}), view, None, given.on_view)
    ours = sanity.efficient_mprt(given)
    assert ours.tolist() == pytest.approx([float(v) for v in expected], abs=1e-6)
    assert ours.abs().min() > 1e-3 and len(set(ours.tolist())) == COUNT


def test_efficient_mprt_of_quantus_takes_the_histogram_of_signed_values_unless_told_otherwise(view, monkeypatch):
    model, values = randomised(view, 1.0), mapped(view.model, view.inputs)
    hand_over(monkeypatch, [model])
    signed = theirs(quantus.EfficientMPRT(disable_warnings=True), view, None, values)
    ours = sanity.efficient_mprt(evidence(view, values, lambda _: Again(mapped(model, view.inputs), view.inputs)))
    assert (ours - torch.tensor([float(v) for v in signed])).abs().min() > 1e-3


def test_random_logit(view):
    """Of two classes the class that is not the target is the other one. The map is of the log-odds on both sides."""
    logits = view.model.backend
    other = bonafide_logit(view, ConvCM.classes).model
    given = evidence(view, mapped(view.model, view.inputs), lambda _: Again(mapped(other, view.inputs), view.inputs))
    metric = quantus.RandomLogit(num_classes=2, similarity_func=size_of_rank_correlation, **{**PLAIN, "abs": True})
    expected = theirs(metric, view, logits, given.on_view)
    ours = sanity.random_logit(given)
    assert ours.tolist() == pytest.approx(list(expected), abs=1e-6)
    assert ours.min() > 0.01 and ours.max() < 0.999


def test_random_logit_of_quantus_is_ssim_of_the_map_as_one_row_of_cells(view):
    """Sixt et al. compare pictures. Frame after frame of one row is no neighbourhood."""
    ssim = pytest.importorskip("skimage.metrics").structural_similarity
    values = mapped(view.model, view.inputs)
    other = explain(view.model.backend, view.inputs, np.ones(COUNT, dtype=int))[:, 0]
    found = theirs(quantus.RandomLogit(num_classes=2, **PLAIN), view, view.model.backend, values)
    for one, a, b in zip(found, values.numpy(), other, strict=True):
        width = max(a.max(), b.max()) - min(a.min(), b.min())
        assert one == pytest.approx(ssim(a.ravel(), b.ravel(), data_range=width), abs=1e-6)
        assert abs(one - ssim(a, b, data_range=width)) > 1e-3


# ---- axioms ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, -4.5])
def test_completeness_of_quantus_has_the_same_difference_and_only_says_whether_it_is_equal(view, baseline):
    seen = []
    metric = quantus.Completeness(perturb_baseline=baseline, output_func=lambda d: seen.append(d) or d, **PLAIN)
    view = replace(view, fills={"constant": torch.full((1, 1, 1, 1), baseline)})
    given = evidence(view, mapped(view.model, view.inputs), valid=VALID)  # all cells count, on both sides
    found = theirs(metric, view, None, given.on_view)
    (difference,) = seen
    assert [bool(v) for v in found] == [False] * COUNT
    wanted = given.probe.untouched - given.probe.nothing_but("constant")
    assert wanted.tolist() == pytest.approx(difference.tolist(), abs=1e-6)
    gap = np.abs(given.on_view.sum((1, 2)).numpy() - difference) / np.abs(difference)
    gap[np.abs(difference) < axioms.SMALLEST_DIFFERENCE] = np.nan
    ours = axioms.completeness(given, fill="constant")
    assert ours.tolist() == pytest.approx(gap.tolist(), abs=1e-6, nan_ok=True)


def test_completeness_of_quantus_is_the_equality_of_two_floats():
    """The paper's equality is of real numbers. Where both sides are whole numbers Quantus says true, and ours is 0."""
    weight = torch.zeros(SHAPE)
    weight[3, 5], weight[20, 100] = 2.0, -6.0
    cm = LinearCM(weight, bias=0.0)
    view = replace(view_of(cm, COUNT), fills={"constant": torch.zeros(1, 1, 1, 1)})
    view = replace(view, inputs=torch.ones_like(view.inputs) * torch.tensor([1.0, 2.0, 3.0])[:, None, None, None])
    exact = weight * view.inputs[:, 0]
    metric = quantus.Completeness(perturb_baseline=0.0, **PLAIN)
    assert [bool(v) for v in theirs(metric, view, None, exact)] == [True] * COUNT
    assert axioms.completeness(evidence(view, exact), fill="constant").tolist() == [0.0] * COUNT
    rounded = exact.double() * (1 + 1e-9)
    assert [bool(v) for v in theirs(metric, view, None, rounded)] == [False] * COUNT
    assert axioms.completeness(evidence(view, rounded), fill="constant").tolist() == pytest.approx([1e-9] * COUNT, rel=1e-6)
    unit = quantus.Completeness(perturb_baseline=0.0, disable_warnings=True)  # as it comes: of maps at their largest size 1
    assert not any(theirs(unit, view, None, exact))


class Padded(ConvCM):
    """Without padding a constant shift moves each output of a channel of the first convolution by the same amount."""

    def __init__(self, padding):
        super().__init__()
        self.backend[0].padding = (padding, padding)


def gradient(model, inputs, targets=None, **_):
    x = torch.as_tensor(np.asarray(inputs)).double().requires_grad_()
    return torch.autograd.grad(copy.deepcopy(model).double()(x)[:, 0].sum(), x)[0].numpy()


def invariance(padding, method, scale=1.0, **options):
    """Quantus' answers, by how much its maps moved, our metric, and the input and the scores of Quantus' shifted model less
    those of the model. The shift is ours on both sides.
    """
    view = view_of(Padded(padding), COUNT)
    flat = nn.Sequential(
        *view.model.backend, view.model.contrast
    ).eval()  # Quantus takes the second module for the first layer
    there, seen = shifted(view, 1.0), []

    def kept(model, inputs, **_):
        seen.append((torch.from_numpy(method(model, inputs) * scale)[:, 0], torch.from_numpy(inputs), scores(model, inputs)))
        return seen[-1][0].unsqueeze(1).numpy()

    before = torch.from_numpy(method(view.model, view.inputs)[:, 0] * scale)
    after = torch.from_numpy(method(there.model, there.inputs.double())[:, 0] * scale)
    metric = quantus.InputInvariance(input_shift=float((there.inputs - view.inputs).mean()), **options, **PLAIN)
    found = metric(
        model=flat, x_batch=view.inputs.double().numpy(), y_batch=np.zeros(COUNT, dtype=int), device="cpu",
        a_batch=before.unsqueeze(1).numpy(), explain_func=kept, channel_first=True,
    )  # fmt: skip
    ours = axioms.input_invariance(evidence(view, before, lambda _: Again(after, there.inputs)))
    ((again, inputs, answers),) = seen
    moved = (again - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    return (
        [bool(v) for v in found],
        moved,
        ours,
        (inputs - view.inputs)[:, 0],
        (answers - scores(view.model, view.inputs)).abs(),
    )


@torch.no_grad()
def scores(model, inputs):
    return copy.deepcopy(model).double()(torch.as_tensor(inputs).double())[:, 0]


EVERY_CELL = {"perturb_func": lambda arr, input_shift, **_: arr + input_shift}


def test_input_invariance_of_quantus_is_whether_ours_is_zero():
    """Handed a shift of every cell, its maps move by as much as ours; it says only whether that is within its tolerance."""
    kept, moved, ours, _, error = invariance(0, gradient, **EVERY_CELL)
    assert kept == [True] * COUNT and error.max() < 1e-5
    assert ours.tolist() == pytest.approx(moved.tolist(), abs=1e-6) and ours.max() < 1e-6
    kept, moved, ours, *_ = invariance(0, explain, **EVERY_CELL)
    assert kept == [False] * COUNT and ours.min() > 0.1
    assert ours.tolist() == pytest.approx(moved.tolist(), abs=1e-6)


def test_the_tolerance_of_quantus_is_in_the_maps_unit():
    """Gradient times input moves by more than a tenth above; Quantus finds it invariant once its maps are small."""
    kept, moved, ours, *_ = invariance(0, explain, scale=1e-6, **EVERY_CELL)
    assert kept == [True] * COUNT and ours.min() > 0.1 and moved.min() > 0.1


def test_quantus_leaves_the_first_cell_where_it_was():
    """Kindermans et al. shift every cell. Here the two functions then differ at that cell."""
    *_, shift, error = invariance(0, gradient)
    assert shift[:, 0, 0].tolist() == [0.0] * COUNT
    shift[:, 0, 0] = shift[:, 0, 1]
    assert shift.min() > 0.5 and np.ptp(shift.numpy()) < 1e-6
    assert error.min() > 1e-5 > invariance(0, gradient, **EVERY_CELL)[-1].max()


def test_quantus_takes_a_padded_edge_for_the_shift_of_every_cell():
    """Kindermans et al. compare one function of two inputs. Its bias takes away too little or too much: another function."""
    kept, moved, ours, _, error = invariance(1, gradient, **EVERY_CELL)
    assert kept == [False] * COUNT and moved.min() > 1e-3 and error.min() > 1e-3
    assert ours.max() < 1e-6


def test_of_a_model_made_of_stages_quantus_shifts_none():
    view = view_of(Padded(0), COUNT)
    values = torch.from_numpy(gradient(view.model, view.inputs))
    metric = quantus.InputInvariance(**EVERY_CELL, **PLAIN)
    try:
        found = metric(
            model=view.model, x_batch=view.inputs.double().numpy(), y_batch=np.zeros(COUNT, dtype=int), device="cpu",
            a_batch=values.numpy(), explain_func=gradient, channel_first=True,
        )  # fmt: skip
    except AttributeError as error:
        if "out_channels" not in str(error):
            raise
        pytest.skip(f"Quantus {quantus.__version__} takes the second module for a convolution: {error}")
    assert [bool(v) for v in found] == [True] * COUNT


# ---- infidelity ------------------------------------------------------------------------------------------------------


class Answers(Recorder):
    """Keeps what the countermeasure answered, too."""

    def __init__(self, model):
        super().__init__(model)
        self.answers = []

    def forward(self, inputs):
        self.answers.append(super().forward(inputs))
        return self.answers[-1]


@pytest.mark.parametrize("patch", [3, 9])
def test_infidelity_of_quantus_is_ours_without_the_scale(view, patch):
    """Definition 2.1 of Yeh et al. for the inputs that Quantus asked about; ours scales the map at best, as their code.

    Quantus multiplies the map with what the input lost, so it is handed the map divided by that.
    """
    recorder, contributions = Answers(view.model).eval(), mapped(view.model, view.inputs)
    baseline = -40.0  # below every cell: no division by 0
    lost = (view.inputs[:, 0] - baseline).double()
    metric = quantus.Infidelity(perturb_patch_sizes=[patch], n_perturb_samples=1, perturb_baseline=baseline, **PLAIN)
    try:
        expected = np.array(theirs(metric, view, recorder, contributions / lost))
    except ValueError as error:
        if "cannot reshape" not in str(error):
            raise
        pytest.skip(f"Quantus {quantus.__version__} fails where the patch does not divide the axes: {error}")
    untouched, *others = recorder.answers
    gone = [(x != view.inputs)[:, 0] for x in recorder.inputs[1:]]
    falls = torch.cat([untouched - other for other in others], 1).double()
    sums = torch.stack([(contributions * g).sum((1, 2)) for g in gone], 1)
    assert len(gone) == -(-SHAPE[0] // patch) * -(-SHAPE[1] // patch)
    assert expected.tolist() == pytest.approx((sums - falls).square().mean(1).tolist(), rel=1e-6)

    beta = torch.tensor(
        [np.linalg.lstsq(s[:, None], f, rcond=None)[0][0] for s, f in zip(sums.numpy(), falls.numpy(), strict=True)]
    )
    ours = subsets.scaled_infidelity(sums, falls)
    surplus = (1 - beta).square() * sums.square().mean(1)
    assert (ours + surplus).tolist() == pytest.approx(expected.tolist(), rel=1e-6) and surplus.min() > 0
    scaled = theirs(metric, view, view.model, beta[:, None, None] * contributions / lost)
    assert ours.tolist() == pytest.approx(list(scaled), rel=1e-6)


def test_the_patches_of_quantus_infidelity_add_up(view):
    """Yeh et al. take away one patch at a time. Quantus keeps away what it took before: its last input is all baseline."""
    recorder = Recorder(view.model)
    metric = quantus.Infidelity(perturb_patch_sizes=[3], n_perturb_samples=1, perturb_baseline=-40.0, **PLAIN)
    theirs(metric, view, recorder.eval(), mapped(view.model, view.inputs))
    gone = [int((x[0] == -40.0).sum()) for x in recorder.inputs[1:]]
    assert gone == [9 * k for k in range(1, 11 * 42 + 1)]
