"""The plugin contract, on one page.

A package offers a plugin by an entry point in one of five groups; the entry point's name is the plugin's name on the
command line.

    [project.entry-points."xaibench.attributors"]   # in pyproject.toml
    my-method = "my_package:mine"

    group                      an entry                           the object
    xaibench.countermeasures   lcnn = "my_package:lcnn"           CountermeasureRecipe
    xaibench.attributors       my-method = "my_package:mine"      Attributor
    xaibench.metrics           my-metric = "my_package:score"     Metric
    xaibench.datasets          my-set = "my_package:corpus"       Dataset
    xaibench.vocoders          my-coder = "my_package:coder"      Vocoder
    xaibench.api               1 = "xaibench.protocols"           the version of this page

Names are lower-case letters and digits, with `-`, `+` and `@` between or after them, at most 64 (`NAME`); a full stop, a
comma and an equals sign mean something on the command line. `all`, `preset`, `quick` and `full` are taken.

`xaibench plugin new attributor my-method` writes such a package, `xaibench check my-method` holds it against this page.

Versions. `API_VERSION` goes up only when a plugin that follows the page would have to change; additions do not count. A
release of xaibench serves every version of `SERVED`: the one before stays there for a year at least, and `xaibench list`
says of its plugins until when. A package without the last line counts as version 1.

Conventions: spectrograms `(B, C, F, T)`, attributions `(B, F, T)`, waveforms `(B, N)`; the countermeasure's score is the
log-odds of bona fide against the rest, so higher means more bona fide; an attribution explains the *spoof* log-odds, so
positive means evidence for spoof. This module needs no torch at run time: the command line lists plugins without it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from xaibench.errors import PluginError
from xaibench.types import Attribution, Axis, Utterance

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from xaibench.metrics.evidence import Evidence
    from xaibench.view import View

GROUPS = ("countermeasures", "attributors", "metrics", "datasets", "vocoders")
#: The same in the singular: what a user types.
KINDS = tuple(group.removesuffix("s") for group in GROUPS)
API_VERSION = 1
#: Versions of the contract that this xaibench serves -> until when ("" for the current one).
SERVED = {1: ""}
#: What a plugin may be called.
NAME = re.compile(r"[a-z0-9][a-z0-9@+-]{0,63}")
RESERVED = frozenset({"all", "preset", "quick", "full"})

#: What an attributor may need of a view. The native route of a convolutional countermeasure offers all of them.
NEEDS = {
    "gradients": "the score is differentiable with respect to the explained tensor",
    "layers": "convolutional layers with two-dimensional activations (the CAM family)",
    "modules": "every operation between the explained tensor and the score is an nn.Module with a known rule",
    "references": "bona fide reference tensors",
    "twin": "the bona fide twin of each utterance",
    "truth": "the truth itself (the oracle only)",
    "prior": "the mean truth per frequency over training pairs",
    "intrinsic": "a countermeasure that computes maps of its own",
    "attention": "self-attention layers that the countermeasure names",
}


class TorchModule(Protocol):
    """What of torch's `nn.Module` the harness calls on a countermeasure: every `nn.Module` has it."""

    @property
    def training(self) -> bool: ...

    def to(self, *args: Any, **kwargs: Any) -> Self: ...

    def eval(self) -> Self: ...

    def train(self, mode: bool = True) -> Self: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> object: ...


class Countermeasure(TorchModule, Protocol):
    """A torch module `(B, N) -> logits (B, len(classes))`, cut in two at its *tap*.

    The tap is the last tensor whose axes are still physical. It must be a true cut:
    `backend(frontend(x)) == forward(x)`, with nothing bypassing it.

    A countermeasure may further have (the defaults stand where it has not):

    resolves       frozenset({"time"}) for a tap `(B, C, 1, T)` of frames or samples, whose frequency axis is one cell
                   (`frontends.whole_band`); default both axes.
    gradients      False for one that offers scores only (a mixture, a library's classifier, a service): its logits need not
                   be differentiable, and `gradients`, `layers`, `modules` and `attention` are not offered; default True.
    module_rules   False where an operation behind the tap is no `nn.Module` with a known rule (attention, a recurrent
                   layer): DeepLift and LRP are not offered then; default True.
    layers_resolve  what a map of `layers` tells apart, where that is less than the tap (the height of a cepstral network's
                   feature maps is no frequency); default as `resolves`.
    intrinsic      name -> function of the tap `(B, C, F, T)` -> `(B, F, T)`: maps that it computes itself, positive = spoof.
    attentions     name -> self-attention module, from input to output, whose forward calls torch's softmax,
                   scaled_dot_product_attention or multi_head_attention_forward on `n` tokens.
    attention_axes  frequency and time axis of these tokens, of `F' * T' = n` cells, time running fastest; default one cell
                   of frequency and the tap's time axis.
    frontend.fit   `fit(waveforms (B, N))`: sets the front end's normalisation before training.
    settle         `settle(waveforms (B, N))`: sets buffers after training, such as the mean of a learned tap.
    training_loss  `training_loss(tap, labels (B,), weight (K,) or None)`: a scalar; default cross-entropy of the logits.
    """

    @property
    def sample_rate(self) -> int:
        """Hz."""

    @property
    def n_samples(self) -> int:
        """The length it looks at; the harness cuts or repeats to it."""

    @property
    def classes(self) -> Sequence[str]:
        """One name per logit; exactly one is "bonafide"."""

    @property
    def frontend(self) -> nn.Module:
        """`(B, N)` -> tap `(B, C, F, T)`, differentiable."""

    @property
    def backend(self) -> nn.Module:
        """Tap -> logits."""

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Frequency and time axis of the tap."""

    @property
    def mean_tap(self) -> Tensor:
        """The tap's training mean per frequency, broadcastable to `(B, C, F, T)`: the fill `mean`."""

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """Layers with `(B, C', F', T')` output, from input to output; the last one is the CAM family's default."""

    def __call__(self, waveform: Tensor, /) -> Tensor: ...


def lacking(thing: object) -> tuple[str, ...]:
    """What of a `Countermeasure` an object does not have; nothing for one that is one.

    `isinstance` would not do: from Python 3.12 on it does not see the submodules of a torch module.

    >>> lacking(object())[:2]
    ('sample_rate', 'n_samples')
    """
    return tuple(name for name in vars(Countermeasure) if not name.startswith("_") and not hasattr(thing, name))


class CountermeasureRecipe(Protocol):
    """How to get a countermeasure: the object behind an entry point of `xaibench.countermeasures`.

    `xaibench.recipe.Recipe` is one, made from a builder function.
    """

    @property
    def name(self) -> str:
        """What the command line calls it."""

    @property
    def paper(self) -> str:
        """Where it is described."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Name -> default of what `untrained` may be given."""

    @property
    def training(self) -> Mapping[str, Any]:
        """Settings of `xaibench train` that suit it."""

    @property
    def obtain(self) -> str:
        """How to get weights where none ship."""

    def untrained(self, *, seed: int, **options: Any) -> Countermeasure:
        """A fresh one, for `xaibench train`. Same seed and options, same weights."""

    def shipped(self) -> Path | None:
        """The checkpoint (safetensors, with a card in JSON beside it) that comes with the package, if any."""


@dataclass(frozen=True)
class Attributor:
    """A method that says which cells made the countermeasure say "spoof". Made by the decorator `attributor`."""

    name: str
    function: Callable[..., Any]
    paper: str
    needs: frozenset[str] = frozenset()
    signed: bool = True  # False: magnitudes only
    random: bool = False  # True: draws from view.generator(...) or runs under view.seeded(...)
    complete: bool = False  # True: declares that the map sums to score(input) - score(baseline)
    class_specific: bool = True  # False: the map ignores the score explained, or its sign (declared, so not a defect)
    control: bool = False  # True: a reference row (floor, sham or ceiling), not a method
    optional: bool = False  # True: too dear, or too special, for `all`: run by name only
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.needs) - set(NEEDS), key=str)
        if unknown:
            raise PluginError(
                f"attributor {self.name!r} needs {', '.join(map(str, unknown))}; a view can offer: {', '.join(NEEDS)}"
            )
        if not callable(self.function) or not all(isinstance(option, str) for option in self.options):
            raise PluginError(f"attributor {self.name!r} is a function and options by name; use the decorator `attributor`")

    def __call__(self, view: View) -> Attribution:
        """Explain a batch. Returns an `Attribution`; a bare tensor `(B, F, T)` is taken to be on the view's axes."""
        result = self.function(view, **self.options)
        if isinstance(result, Attribution):
            return result
        frequency, time = view.axes
        resolves = view.layers_resolve if "layers" in self.needs and view.layers_resolve is not None else view.resolves
        return Attribution(result, frequency, time, resolves)

    def with_options(self, **options: Any) -> Attributor:
        """The same method with other options. Unknown names raise PluginError.

        >>> @attributor(name="demo", paper="none")
        ... def demo(view, *, steps=20): ...
        >>> demo.with_options(steps=5).options
        {'steps': 5}
        """
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            known = ", ".join(self.options) or "none"
            raise PluginError(f"attributor {self.name!r} has no option {', '.join(unknown)}; its options: {known}")
        return replace(self, options={**self.options, **options})


def attributor(
    *,
    name: str,
    paper: str,
    needs: Sequence[str] = (),
    signed: bool = True,
    random: bool = False,
    complete: bool = False,
    class_specific: bool = True,
    control: bool = False,
    optional: bool = False,
) -> Callable[[Callable[..., Any]], Attributor]:
    """Make a function `(view, *, option=default, ...) -> (B, F, T)` an attributor. Its keywords are its options.

    Raises PluginError for an unknown need, or for a function that is not of that form.
    """
    unknown = sorted(set(needs) - set(NEEDS))
    if unknown:
        raise PluginError(f"attributor {name!r} needs {', '.join(unknown)}; a view can offer: {', '.join(NEEDS)}")

    def wrap(function: Callable[..., Any]) -> Attributor:
        keywords = list(inspect.signature(function).parameters.values())[1:]
        for p in keywords:
            if p.kind is not p.KEYWORD_ONLY or p.default is p.empty:
                raise PluginError(f"option {p.name!r} of attributor {name!r} must be keyword-only with a default")
        return Attributor(
            name=name,
            function=function,
            paper=paper,
            needs=frozenset(needs),
            signed=signed,
            random=random,
            complete=complete,
            class_specific=class_specific,
            control=control,
            optional=optional,
            options={p.name: p.default for p in keywords},
        )

    return wrap


@dataclass(frozen=True)
class Metric:
    """A score of an attribution. `function(evidence)` returns `(B,)`, NaN where the score is undefined."""

    name: str
    family: str  # localisation | faithfulness | stability | complexity | sanity | axioms
    function: Callable[[Evidence], Tensor]
    direction: str  # "higher" or "lower" is better
    range: tuple[float, float]
    paper: str
    equation: str
    misleads: str  # when a good value means nothing
    needs: frozenset[str] = frozenset()  # of {"truth", "forward", "explain" (maps made again), "frequency", "time"}
    chance: float | None = None  # expected value of a random map, where it is a constant

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise PluginError(f"metric {self.name!r}: direction is 'higher' or 'lower', got {self.direction!r}")


@dataclass(frozen=True)
class Corpus:
    """A data set, opened: utterances with absolute paths and the facts that scoring needs."""

    name: str
    utterances: tuple[Utterance, ...]
    sample_rate: int
    valid_band: tuple[float, float]  # Hz; outside it neither truth nor metrics look
    held_out: tuple[str, ...] = ()  # vocoders that no training may use
    licence: str = ""
    citation: str = ""
    hash: str = ""  # of the manifest
    kinds: Mapping[str, str] = field(default_factory=dict)  # vocoder or attack -> what sort of spoofing it is


@dataclass(frozen=True)
class Dataset:
    """The object behind an entry point of `xaibench.datasets`: `open(root)`; `root` None means the embedded audio."""

    name: str
    summary: str
    open: Callable[[Path | None], Corpus]


@dataclass(frozen=True)
class Vocoder:
    """Analysis and re-synthesis: `function(waveform (N,), sample_rate) -> (N,)`, aligned and of equal length."""

    name: str
    paper: str
    function: Callable[[np.ndarray, int], np.ndarray]
