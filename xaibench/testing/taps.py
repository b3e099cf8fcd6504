"""The rules of a countermeasure's tap: a true cut, with the gradients, layers and axes that it claims.

Two rules measure the axes: a click at a known time and a tone at a known frequency are added to faint noise, and the cells
of the tap that change say where the countermeasure hears them. What moves is weighed by how much, above half of the most:
a centre of mass, to a fraction of a cell.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xaibench.harness.preflight import CUT_TOLERANCE, cut_gap
from xaibench.protocols import Countermeasure
from xaibench.testing.countermeasures import built, heard, listed, logits
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.signals import noise
from xaibench.types import Axis
from xaibench.view import BOTH, SpoofLogOdds

#: Where in the recording clicks are set, and at which cells of the frequency axis tones, as shares.
PLACES = (0.21, 0.34, 0.5, 0.66, 0.83)
#: How far a click may be heard from its time, in cells on average; a cell may be one sample, so at least this many seconds.
CELLS, LEAST_SECONDS = 1.0, 0.002


def tap_of(subject: Subject) -> Tensor:
    """The tap of three recordings of noise, made once. Shape: `(3, C, F, T)`."""

    @torch.no_grad()
    def make() -> Tensor:
        return built(subject).frontend(heard(subject))

    return subject.once("tap", make)


def axes_of(subject: Subject) -> tuple[Axis, Axis]:
    """Frequency and time axis of the tap. Raises Broken for anything else."""
    axes = built(subject).axes
    kinds = [getattr(a, "kind", type(a).__name__) for a in axes] if isinstance(axes, tuple | list) else [type(axes).__name__]
    if kinds != ["frequency", "time"]:
        raise Broken(f"its axes are of kind {', '.join(kinds)}; expected (frequency, time), two `Axis`")
    return axes[0], axes[1]


def resolves(cm: Countermeasure) -> frozenset[str]:
    """Which axes the tap tells apart, as declared."""
    return frozenset(getattr(cm, "resolves", BOTH))


def differentiable(cm: Countermeasure) -> None:
    """Raise NotApplicable for a countermeasure that says that it offers scores only."""
    if not getattr(cm, "gradients", True):
        raise NotApplicable("it declares gradients = False: it offers scores only")


@rule(
    "countermeasure",
    "true-cut",
    "The back end of the front end's tap is the whole countermeasure: nothing bypasses the tap.",
)
def true_cut(subject: Subject) -> Seen:
    """Relative to the largest logit; what bypasses the tap can never be explained at it."""
    cm, waveforms = built(subject), heard(subject)
    found = cut_gap(cm, waveforms)
    if not found <= CUT_TOLERANCE:
        raise Broken(
            f"backend(frontend(x)) differs from the whole by {found:.2g} of the largest logit; expected at most "
            f"{CUT_TOLERANCE:g}. "
            "Does forward use the waveform a second time, or a layer that is in neither?"
        )
    return Seen(found, f"backend(frontend(x)) and the whole differ by {found:.2g}")


@rule("countermeasure", "tap-shape", "The tap is (B, C, F, T), F and T as its axes say.")
def tap_shape(subject: Subject) -> Seen:
    """Also that a tap of one row, and no other, is declared to resolve time alone."""
    cm, tap, (frequency, time) = built(subject), tap_of(subject), axes_of(subject)
    expected = (3, "C", len(frequency), len(time))
    if tap.ndim != 4 or (len(tap), *tap.shape[2:]) != (3, *expected[2:]):
        raise Broken(f"the tap of 3 recordings is {tuple(tap.shape)}, its axes say {expected}; frequency comes before time")
    if not tap.is_floating_point() or not bool(tap.isfinite().all()):
        raise Broken(
            f"the tap is {tap.dtype} with {int((~tap.isfinite()).sum())} NaN or infinite cells; expected finite floats"
        )
    declared = resolves(cm)
    if (declared == {"time"}) != (tap.shape[2] == 1) or not declared <= BOTH or not declared:
        raise Broken(
            f"the tap has {tap.shape[2]} rows and resolves {sorted(declared)}; expected resolves = frozenset({{'time'}}) "
            "for a tap of one row, and only then"
        )
    return Seen(tap[0].numel(), f"tap {tuple(tap.shape[1:])}, resolves {' and '.join(sorted(declared))}")


@rule("countermeasure", "axes", "The axes are in Hz up to Nyquist, and in seconds over all that it listens to.")
def axes(subject: Subject) -> Seen:
    """Not more than Nyquist, not less than half of it; the duration within two cells or 0.05 s."""
    cm, (frequency, time) = built(subject), axes_of(subject)
    nyquist, seconds = cm.sample_rate / 2, cm.n_samples / cm.sample_rate
    low, high, start, end = (float(a.edges[i]) for a in (frequency, time) for i in (0, -1))
    if low < 0 or high > nyquist * (1 + 1e-6) or high < nyquist / 2:
        raise Broken(
            f"its frequency axis runs from {low:.4g} to {high:.4g}; expected Hz between 0 and {nyquist:.0f}, and at least "
            "half of that. Is it in kHz or in bins, or made for another sample rate?"
        )
    slack = max(0.05, 2 * float(np.diff(time.edges).max()))
    if abs(start) > slack or abs(end - seconds) > slack:
        raise Broken(
            f"its time axis runs from {start:.4g} to {end:.4g}; expected 0 to {seconds:.4g} s, what n_samples lasts, "
            f"within {slack:.2g} s. Is it in frames or milliseconds, or does the front end drop the end?"
        )
    return Seen(high, f"{low:.0f} to {high:.0f} Hz of {nyquist:.0f}, {start:.2g} to {end:.4g} s of {seconds:.4g}")


def weighed(change: np.ndarray) -> float:
    """The cell that changed, as a centre of mass of those that changed at least half as much as the most. Shape: `(N,)`.

    >>> weighed(np.array([0.0, 1.0, 1.0, 0.1]))
    1.5
    """
    heavy = np.where(change >= change.max() / 2, change, 0.0)
    return float((np.arange(len(change)) * heavy).sum() / heavy.sum())


@torch.no_grad()
def _change(cm: Countermeasure, added: Tensor, dims: tuple[int, ...]) -> np.ndarray:
    """How much the tap changes when something is added to faint noise. Shape: `(N,)` -> one number a cell of an axis."""
    base = noise(1, cm.n_samples, level=1e-3)
    change = (cm.frontend(base + added) - cm.frontend(base)).abs().mean(dims).double().numpy()
    if not change.max() > 0:
        raise Broken(
            "what is added to the recording changes no cell of the tap; expected it to be heard. Is its place cut off?"
        )
    return change


@rule("countermeasure", "click", "A click is heard in the cells that the time axis names.")
def click(subject: Subject) -> Seen:
    """The median error, in seconds, may be one cell; the worst three."""
    cm, (_, time) = built(subject), axes_of(subject)
    errors = []
    for place in PLACES:
        sample = int(place * cm.n_samples)
        added = torch.zeros(cm.n_samples)
        added[sample] = 0.5
        cell = weighed(_change(cm, added, (0, 1, 2)))
        errors.append(float(np.interp(cell, np.arange(len(time)), time.centres)) - sample / cm.sample_rate)
    limit = max(CELLS * float(np.diff(time.edges).mean()), LEAST_SECONDS)
    late, worst = float(np.median(errors)), max(errors, key=abs)
    if abs(late) > limit or abs(worst) > 3 * limit:
        raise Broken(
            f"clicks are heard {1e3 * late:+z.1f} ms from their time (median; {1e3 * worst:+z.1f} at worst); expected "
            f"within {1e3 * limit:.1f} ms, one cell. Are the frames centred (center=True) where the axis says so, is the "
            "hop right?"
        )
    told = f"{len(errors)} clicks are heard {1e3 * late:+z.1f} ms from their time, {1e3 * worst:+z.1f} ms at worst"
    return Seen(late, told)


@rule(
    "countermeasure", "tone", "A tone is heard in the cells that the frequency axis names, where the tap tells them apart."
)
def tone(subject: Subject) -> Seen:
    """The worst error, in cells, may be one."""
    cm, (frequency, _) = built(subject), axes_of(subject)
    if "frequency" not in resolves(cm):
        raise NotApplicable("its tap resolves time alone")
    errors, t = [], torch.arange(cm.n_samples, dtype=torch.float64) / cm.sample_rate
    for place in PLACES:
        row = int(place * len(frequency))
        added = 0.1 * torch.sin(2 * torch.pi * float(frequency.centres[row]) * t).float()
        errors.append(weighed(_change(cm, added, (0, 1, 3))) - row)
    worst = max(errors, key=abs)
    if abs(worst) > CELLS:
        hertz = [f"{float(frequency.centres[int(place * len(frequency))]):.0f}" for place in PLACES]
        raise Broken(
            f"tones at {', '.join(hertz)} Hz are heard {', '.join(f'{e:+.1f}' for e in errors)} cells from their place; "
            f"expected within {CELLS:g}. Is the axis upside down, in another unit, or of another n_fft?"
        )
    return Seen(worst, f"{len(errors)} tones are heard within {abs(worst):.2f} cells of their place")


@rule("countermeasure", "whole-length", "It hears all of n_samples: the first and the last tenth reach the tap.")
def whole_length(subject: Subject) -> Seen:
    """The share of frames that a change of the first or the last tenth reaches."""
    cm = built(subject)
    tenth, shares = max(1, cm.n_samples // 10), []
    for name, where in (("first", slice(0, tenth)), ("last", slice(cm.n_samples - tenth, None))):
        added = torch.zeros(cm.n_samples)
        added[where] = noise(1, tenth, seed=2)[0]
        try:
            change = _change(cm, added, (0, 1, 2))
        except Broken as error:
            raise Broken(
                f"the {name} {tenth} of {cm.n_samples} samples change no cell of the tap; expected them to be heard. "
                "n_samples is what it looks at: a trace beyond it can never be found"
            ) from error
        shares.append(float((change > change.max() / 100).mean()))
    return Seen(min(shares), f"each end changes {min(shares):.0%} of the frames or more")


@rule("countermeasure", "gradients", "The score has finite gradients at the tap and at the waveform, of silence too.")
def gradients(subject: Subject) -> Seen:
    """Of the spoof log-odds; the smallest norm over the recordings of noise must not be zero."""
    cm = built(subject)
    differentiable(cm)
    smallest = np.inf
    for what, waveforms in (("noise", heard(subject, 2)), ("silence", torch.zeros(1, cm.n_samples))):
        waveform = waveforms.clone().requires_grad_()
        tap = cm.frontend(waveform)
        if not tap.requires_grad:
            raise Broken(
                "no gradient passes from the tap to the waveform; expected a differentiable front end, or gradients = "
                "False declared. Is it under torch.no_grad, or computed by numpy?"
            )
        score = SpoofLogOdds(cm.classes)(cm.backend(tap))
        for where, found in zip(("tap", "waveform"), torch.autograd.grad(score.sum(), (tap, waveform)), strict=True):
            bad = int((~found.isfinite()).sum())
            if bad:
                raise Broken(
                    f"{bad} of {found.numel()} gradients at the {where} of {what} are NaN or infinite; expected finite "
                    "ones: paths start from silence. A square root, a norm or an angle of zero?"
                )
            size = float(found.flatten(1).norm(dim=1).min())
            if what == "noise":
                smallest = min(smallest, size)
    if not smallest > 0:
        raise Broken("the gradient of a recording of noise is zero everywhere; expected a score that depends on it")
    return Seen(smallest, f"finite; the smallest norm is {smallest:.2g}")


@rule("countermeasure", "mean-tap", "The mean tap is finite and broadcasts to the tap: it stands where cells are removed.")
def mean_tap(subject: Subject) -> Seen:
    """As `xaibench.view.View.fill` uses it, and with finite logits."""
    cm, tap = built(subject), tap_of(subject)
    mean = cm.mean_tap
    try:
        whole = mean.to(tap).expand_as(tap)
    except RuntimeError as error:
        raise Broken(f"mean_tap is {tuple(mean.shape)}, which does not broadcast to the tap {tuple(tap.shape)}") from error
    with torch.no_grad():
        score = cm.backend(whole[:1].contiguous())
    if not bool(mean.isfinite().all() & score.isfinite().all()):
        raise Broken(
            f"mean_tap has {int((~mean.isfinite()).sum())} NaN or infinite cells, its logits are {score[0].tolist()}"
        )
    return Seen(float(mean.mean()), f"mean_tap {tuple(mean.shape)} broadcasts, its mean is {float(mean.mean()):.3g}")


@rule("countermeasure", "layers", "The layers give (B, C, F, T) and run in the order in which they are declared.")
def layers(subject: Subject) -> Seen:
    """Every layer runs exactly once in a call."""
    cm, waveforms = built(subject), heard(subject, 2)
    if not cm.layers:
        raise NotApplicable("it declares no layers: the CAM family does not run on it")
    ran: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str, out: object) -> None:
        ran.append(name)
        shapes[name] = tuple(out.shape) if isinstance(out, Tensor) else (0,)

    hooks = [m.register_forward_hook(lambda _m, _i, out, n=name: note(n, out)) for name, m in cm.layers.items()]
    try:
        logits(cm, waveforms)
    finally:
        for hook in hooks:
            hook.remove()
    flat = [f"{name} {shape}" for name, shape in shapes.items() if len(shape) != 4 or shape[0] != 2]
    if flat:
        raise Broken(
            f"of 2 recordings the layers {listed(flat)} give no (2, C, F, T); expected four dimensions, the batch first"
        )
    if ran != list(cm.layers):
        idle = [name for name in cm.layers if name not in ran]
        what = f"{listed(idle)} never ran" if idle else f"they ran as {listed(ran)}"
        raise Broken(f"the layers are declared as {listed(list(cm.layers))}, but {what}; expected each once, in that order")
    return Seen(len(ran), f"{len(ran)} layers, the last is {ran[-1]} {shapes[ran[-1]][1:]}")


@rule(
    "countermeasure", "intrinsic", "Maps that it computes itself are (B, F, T), finite, and the same alone and in a batch."
)
def intrinsic(subject: Subject) -> Seen:
    """At most 0.001 of the largest value apart."""
    cm, tap = built(subject), tap_of(subject)
    own = dict(getattr(cm, "intrinsic", {}))
    if not own:
        raise NotApplicable("it computes no maps of its own")
    worst = 0.0
    for name, function in own.items():
        with torch.no_grad():
            maps, alone = function(tap), function(tap[:1])
        if tuple(maps.shape) != (len(tap), *tap.shape[2:]) or not bool(maps.isfinite().all()):
            raise Broken(
                f"the map {name!r} is {tuple(maps.shape)} with {int((~maps.isfinite()).sum())} cells that are not finite; "
                f"expected {(len(tap), *tap.shape[2:])}, finite"
            )
        worst = max(worst, float((maps[:1] - alone).abs().max() / maps.abs().max().clamp_min(1e-30)))
    if worst > 1e-3:
        raise Broken(f"a map alone and in a batch differ by {worst:.2g} of its largest value; expected at most 0.001")
    return Seen(len(own), f"maps of its own: {', '.join(own)}")
