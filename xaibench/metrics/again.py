"""The changes under which a metric may ask for the same method's map again, by name.

    again = ask(evidence, "noise:40:0")        again.maps (B, F, T) on the view's axes, again.inputs (B, C, F, T)

of the recording (in front of the countermeasure; what a vocoder's trace is, stays the vocoder's):

    noise:SNR:K        noise with the level of each STFT cell, which speech masks: SNR in dB, draw K
    white:SNR:K        white noise, SNR in dB, draw K
    codec:mu-law       8 bit logarithmic quantisation, as G.711 in North America and Japan
    codec:vorbis       Ogg Vorbis at libsndfile's default quality

of the countermeasure (always of a copy):

    randomised:SHARE   the last SHARE of its modules with parameters, from the output down, get new parameters (`redraw`)
    bonafide-logit     the bona fide logit alone is explained, not the log-odds
    opposite           the negated log-odds are explained: evidence for bona fide
    shift:C            a constant is added to the explained tensor and taken away again by a first layer: the same function

Several are joined by `+`: `randomised:1.0+noise:40:0`. Every draw is fixed by the utterance's id, or the module's name, and
by the change, on the CPU: it is the same for every method, batch and device. The harness makes the maps
(`xaibench.harness.again`); a method's own random draws are the same before and after.

References: Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv 1810.03292, for randomised parameters;
Sixt, Granz, Landgraf, "When explanations lie", ICML 2020, arXiv 1912.09818, for the other logit; Kindermans et al., "The
(un)reliability of saliency methods", 2017, arXiv 1711.00867, for the shift; ITU-T G.711 (1988) for mu-law.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import soundfile
import torch
from torch import Tensor, nn

from xaibench.errors import Unsupported, XaibenchError
from xaibench.grid import Grid
from xaibench.view import View, derive_seed

if TYPE_CHECKING:
    from xaibench.metrics.evidence import Evidence

#: What may follow the name of each change: how many numbers, or which words.
OF_RECORDING = {"noise": 2, "white": 2, "codec": ("mu-law", "vorbis")}
OF_MODEL = {"randomised": 1, "bonafide-logit": 0, "opposite": 0, "shift": 1}

#: libsndfile 1.2.2 crashes when it is handed a long recording to write as Vorbis at once.
VORBIS_BLOCK = 16_384


@dataclass(frozen=True, eq=False)
class Again:
    """The same method's maps `(B, F, T)` under a change, on the view's axes, and what was explained, `(B, C, F, T)`."""

    maps: Tensor
    inputs: Tensor


@dataclass(frozen=True)
class Change:
    """One change: its name, its numbers or word, and the text it was written as, which seeds its draws."""

    name: str
    values: tuple[float, ...]
    text: str

    @property
    def of_recording(self) -> bool:
        """Whether the waveform changes, not the countermeasure."""
        return self.name in OF_RECORDING


def ask(evidence: Evidence, change: str) -> Again:
    """The maps of `evidence`'s method under a change. Raises Unsupported for evidence that cannot explain again."""
    if evidence.again is None:
        raise Unsupported(
            f"this metric needs the method's map again, under {change!r}, and only the map was given, not the method; "
            f"`xaibench run` has both"
        )
    return evidence.again(change)


def parse(text: str) -> tuple[Change, ...]:
    """The changes of a name such as `randomised:1.0+noise:40:0`, those of the recording first.

    Raises XaibenchError for an unknown change, or numbers that are not as said.

    >>> [(c.name, c.values) for c in parse("randomised:0.5+noise:40:1")]
    [('noise', (40.0, 1.0)), ('randomised', (0.5,))]
    """
    found = [_parse_one(part) for part in text.split("+")]
    return tuple(sorted(found, key=lambda change: not change.of_recording))


def _parse_one(text: str) -> Change:
    name, *values = text.split(":")
    takes = {**OF_RECORDING, **OF_MODEL}.get(name)
    if takes is None:
        raise XaibenchError(f"unknown change {text!r}; there are {', '.join([*OF_RECORDING, *OF_MODEL])}")
    if isinstance(takes, tuple):
        if len(values) != 1 or values[0] not in takes:
            raise XaibenchError(f"the change {name!r} is one of {', '.join(f'{name}:{t}' for t in takes)}, got {text!r}")
        return Change(name, (), text)
    try:
        numbers = tuple(float(v) for v in values)
    except ValueError:
        numbers = ()
    if len(numbers) != takes or len(values) != takes:
        raise XaibenchError(f"the change {name!r} takes {takes} numbers, each after a colon, got {text!r}")
    if name == "randomised" and not 0 < numbers[0] <= 1:
        raise XaibenchError(f"the share of modules lies in ]0, 1], got {text!r}")
    return Change(name, numbers, text)


# ---- of the recording ------------------------------------------------------------------------------------------------


def perturb(waveforms: Tensor, change: Change, ids: Sequence[str], *, grid: Grid) -> Tensor:
    """The recordings under a change. Shape: `(B, N)` -> `(B, N)`; one id an utterance. Never longer, shorter or delayed."""
    if not change.of_recording or waveforms.ndim != 2 or len(waveforms) != len(ids):
        raise XaibenchError(
            f"expected a change of the recording and waveforms (B, N) with one id each, got {change.text!r}, "
            f"{tuple(waveforms.shape)} and {len(ids)} ids"
        )
    changed = [
        _perturbed(x.cpu()[None], change, derive_seed(i, change.text), grid) for x, i in zip(waveforms, ids, strict=True)
    ]
    return torch.cat(changed).to(waveforms)


def _perturbed(waveform: Tensor, change: Change, seed: int, grid: Grid) -> Tensor:
    if change.text == "codec:mu-law":
        return mu_law(waveform)
    if change.text == "codec:vorbis":
        return vorbis(waveform, grid.sample_rate)
    draw = torch.Generator().manual_seed(seed)
    noise = masked_noise(waveform, draw, grid) if change.name == "noise" else torch.randn(waveform.shape, generator=draw)
    return add_at(waveform, noise, change.values[0])


def add_at(waveform: Tensor, noise: Tensor, snr: float) -> Tensor:
    """The waveform and the noise at exactly that signal-to-noise ratio in dB. Shape: `(B, N)` each.

    >>> add_at(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]]), 20.0)
    tensor([[2.0000, 0.2000]])
    """
    level = waveform.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True).clamp_min(1e-20)
    return waveform + 10 ** (-snr / 20) * level * noise


def masked_noise(waveform: Tensor, draw: torch.Generator, grid: Grid) -> Tensor:
    """Noise with the level of the waveform in every STFT cell: its cells times complex Gaussian noise. Shape: `(B, N)`.

    Where the speech is weak the noise is, too, so that the speech masks it; at 40 dB it should not be heard. No listener was
    asked.
    """
    spectrum = grid.stft(waveform)
    return grid.istft(spectrum * torch.randn(spectrum.shape, dtype=spectrum.dtype, generator=draw), waveform.shape[1])


def mu_law(waveform: Tensor) -> Tensor:
    """There and back through 8 bit mu-law companding (mu = 255). Shape: `(B, N)`; clipped to full scale.

    The continuous curve of G.711; its segments of straight lines are not drawn.
    """
    from torchaudio.functional import mu_law_decoding, mu_law_encoding

    return mu_law_decoding(mu_law_encoding(waveform.clamp(-1, 1), 256), 256)


def vorbis(waveform: Tensor, sample_rate: int) -> Tensor:
    """There and back through Ogg Vorbis in memory. Shape: `(B, N)`; clipped to full scale, cut or zero-padded to N."""
    back = []
    for x in waveform.clamp(-1, 1):
        memory = io.BytesIO()
        with soundfile.SoundFile(memory, "w", sample_rate, 1, "VORBIS", format="OGG") as file:
            for block in x.split(VORBIS_BLOCK):
                file.write(block.numpy())
        memory.seek(0)
        decoded = torch.from_numpy(soundfile.read(memory, dtype="float32")[0])[: len(x)]
        back.append(nn.functional.pad(decoded, (0, len(x) - len(decoded))))
    return torch.stack(back)


# ---- of the countermeasure -------------------------------------------------------------------------------------------


@torch.no_grad()
def redraw(model: nn.Module, share: float, seed: int) -> list[str]:
    """Draw the parameters of a model's last modules anew, in place; returns these modules' names, the last one first.

    Of the modules that hold parameters themselves, in the order in which the model lists them, the last `round(share * n)`,
    at least one: a cascade from the output (Adebayo et al. 2018). Each parameter tensor is drawn from a normal distribution
    of its own mean and standard deviation. Adebayo et al. initialise anew instead, which modules of a countermeasure's own
    making do not offer. A tensor of equal values stays as it is, and so do buffers, such as the statistics of batch
    normalisation. A module's draw does not depend on the share.
    """
    holders = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    if not holders:
        raise Unsupported("no module behind the explained tensor has parameters, so none can be randomised")
    chosen = holders[::-1][: max(1, round(share * len(holders)))]
    for name in chosen:
        for key, parameter in model.get_submodule(name).named_parameters(recurse=False):
            draw = torch.Generator().manual_seed(derive_seed(seed, "randomised", name, key))
            values = parameter.double()
            noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float64).to(values.device)
            parameter.copy_(values.mean() + values.std(correction=0) * noise)
    return chosen


def opposite(view: View) -> View:
    """The same view of the negated score: evidence for bona fide."""
    sign = _linear(-torch.ones(1, 1), view)
    return replace(view, model=nn.Sequential(OrderedDict([*view.model.named_children(), ("sign", sign)])).eval())


def bonafide_logit(view: View, classes: Sequence[str]) -> View:
    """The same view of the bona fide logit alone, as a linear layer that every library can see."""
    stages = OrderedDict(view.model.named_children())
    if "contrast" not in stages:
        raise Unsupported(f"the model has no log-odds to take apart; its stages are {', '.join(stages)}")
    stages["contrast"] = _linear(torch.tensor([[float(c == "bonafide") for c in classes]]), view)
    return replace(view, model=nn.Sequential(stages).eval())


def shifted(view: View, units: float) -> View:
    """The same function of a tensor with a constant added: a first layer takes it away (Kindermans et al. 2017).

    The constant is `units` standard deviations of the references, the same for every cell, utterance and batch. The layer
    is a 1 x 1 convolution whose bias takes the shift away, as the first layer's bias does in the paper. Raises Unsupported
    on a view without references.
    """
    if not len(view.references):
        raise Unsupported("the shift is in units of the references' deviation, and this data set has no training utterances")
    constant = float(units * view.references.double().std())
    channels = view.inputs.shape[1]
    first = nn.utils.skip_init(nn.Conv2d, channels, channels, 1, groups=channels).to(view.inputs)
    first.weight = nn.Parameter(torch.ones_like(first.weight), requires_grad=False)
    first.bias = nn.Parameter(torch.full_like(first.bias, -constant), requires_grad=False)
    return replace(
        view, model=nn.Sequential(OrderedDict([("shift", first), *view.model.named_children()])).eval(),
        inputs=view.inputs + constant, references=view.references + constant,
        fills={name: fill + constant for name, fill in view.fills.items()},
        intrinsic={name: partial(_less, own, constant) for name, own in view.intrinsic.items()},
    )  # fmt: skip


def _less(own: Callable[[Tensor], Tensor], constant: float, tap: Tensor) -> Tensor:
    """A countermeasure's own map of a tap that has had `constant` added."""
    return own(tap - constant)


def _linear(weight: Tensor, view: View) -> nn.Linear:
    """A linear layer without bias, made without drawing from the global generator."""
    layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.to(view.inputs), requires_grad=False)
    return layer
