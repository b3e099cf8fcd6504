"""A countermeasure looking at a batch through a route: all that an attributor sees.

Two routes. **native** cuts the countermeasure at its tap (log power for LCNN) and explains there. **grid** puts an STFT and
its inverse in front of the whole countermeasure, the virtual inspection layer of Vielhaben et al. (DFT-LRP, 2024):

    x --stft--> Z (2, F, T), real and imaginary part --istft--> x --[the whole countermeasure]--> score

so a raw-waveform model, too, becomes a function of one common grid. Either way the model is an `nn.Module` from the
explained tensor `(B, C, F, T)` to the spoof log-odds `(B, 1)`: higher = more spoofed, the sign attributions use.

What stands where a mask is zero is a named tensor: `silence` (zero energy), `mean` (the training mean of that
frequency) and `twin` (the bona fide half of the pair: it removes the artefact instead of the signal).
"""

from __future__ import annotations

import copy
import hashlib
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xaibench.errors import Unsupported, XaibenchError
from xaibench.frontends import whole_band
from xaibench.grid import Grid
from xaibench.passes import Passes
from xaibench.precision import computed_in
from xaibench.protocols import NEEDS, Countermeasure
from xaibench.scoring import bonafide_index
from xaibench.types import Axis, Truth

FILLS = ("silence", "mean", "twin")
BOTH = frozenset({"frequency", "time"})


class SpoofLogOdds(nn.Module):
    """Logits `(B, K)` -> spoof log-odds `(B, 1)`; for two classes a plain linear layer, which every library can see."""

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.index = bonafide_index(classes)
        self.linear = None
        if len(classes) == 2:
            self.linear = nn.utils.skip_init(nn.Linear, 2, 1, bias=False)  # without drawing from the global RNG
            weight = torch.ones(1, 2)
            weight[0, self.index] = -1.0
            self.linear.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, logits: Tensor) -> Tensor:
        if torch.is_autocast_enabled(logits.device.type):  # a difference of rounded numbers is not rounded once more
            with torch.autocast(logits.device.type, enabled=False):
                return self.forward(logits.float())
        if self.linear is not None:
            return self.linear(logits)
        others = torch.cat([logits[:, : self.index], logits[:, self.index + 1 :]], dim=1)
        return others.logsumexp(dim=1, keepdim=True) - logits[:, self.index : self.index + 1]


class Resynthesis(nn.Module):
    """Real and imaginary STFT `(B, 2, F, T)` -> waveform `(B, n_samples)`."""

    def __init__(self, grid: Grid, n_samples: int) -> None:
        super().__init__()
        self.grid, self.n_samples = grid, n_samples

    def forward(self, parts: Tensor) -> Tensor:
        return self.grid.istft(torch.complex(parts[:, 0], parts[:, 1]), self.n_samples)


@dataclass(frozen=True, eq=False)
class View:
    """One batch, one countermeasure, one route.

    model:      `(B, C, F, T)` -> spoof log-odds `(B, 1)`, in eval mode; shared: work on `private_model()` to change it.
    inputs:     `(B, C, F, T)`, the explained tensor of the vocoded utterances.
    axes:       frequency and time axis of `inputs`.
    fills:      name -> tensor broadcastable to `inputs`; of `inputs`' four dimensions if it differs between utterances.
    references: `(R, C, F, T)`, bona fide utterances of the data set's training (or dev) split; R is 0 where it has neither.
    layers:     dotted names, within `model`, of its two-dimensional layers from input to output.
    attentions: dotted names, within `whole()`, of its self-attention layers from input to output.
    lead:       what stands between the recordings and `inputs`, where attention layers lie there; None otherwise.
    ids, seed:  one name an utterance; together with the seed they fix every random draw.
    offers:     which of `xaibench.protocols.NEEDS` this view can serve.
    """

    route: str
    model: nn.Module
    inputs: Tensor
    axes: tuple[Axis, Axis]
    fills: Mapping[str, Tensor]
    references: Tensor
    layers: tuple[str, ...]
    ids: tuple[str, ...]
    offers: frozenset[str]
    seed: int = 0
    truth: Truth | None = None
    prior: Tensor | None = None  # (F,), the mean truth region of training pairs
    batch_size: int = 8  # forward passes at a time; never changes a result beyond rounding
    precision: str = "fp32"  # of `score`: a name of `xaibench.precision.PRECISIONS`; maps are always made in fp32
    energy: Tensor | None = None  # (B, F, T), magnitude of the vocoded STFT on this view's axes
    resolves: frozenset[str] = BOTH  # what a map on these axes can tell apart
    layers_resolve: frozenset[str] | None = None  # the same for a map of `layers`; None: as `resolves`
    intrinsic: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # the countermeasure's own maps
    attentions: tuple[str, ...] = ()
    attention_axes: tuple[Axis, Axis] | None = None  # of their tokens, F' * T' of them, time running fastest
    lead: nn.Module | None = None
    recordings: Tensor | None = None  # (B, N), what `lead` takes
    passes: Passes | None = None  # passes shared with other methods; read them only where `passes.holds(model, inputs)`

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def device(self) -> torch.device:
        return self.inputs.device

    @property
    def shape(self) -> tuple[int, int]:
        """`(F, T)` of a map on this view's axes."""
        return self.inputs.shape[-2], self.inputs.shape[-1]

    def require(self, needs: frozenset[str], what: str) -> None:
        """Raise Unsupported, with the reason, unless this view offers all of `needs`."""
        missing = sorted(needs - self.offers)
        if missing:
            reasons = "; ".join(f"{m} ({NEEDS.get(m, 'unknown')})" for m in missing)
            data = (
                " (has the data set a train or dev split, and does its truth tell frequencies apart?)"
                if {"references", "prior"} & set(missing)
                else ""
            )
            if "gradients" not in self.offers:
                data += "; it offers scores only, which methods that mask and ask explain (occlusion, kernel-shap, lime)"
            raise Unsupported(f"{what} needs what the {self.route} route of this countermeasure lacks: {reasons}{data}")

    def known_truth(self) -> Truth:
        """`truth`, for a method that declares the need. Raises Unsupported where this view has none."""
        if self.truth is None:
            raise Unsupported("this view holds no truth: a method that reads it declares the need `truth`")
        return self.truth

    def private_model(self) -> nn.Module:
        """A deep copy for libraries that patch, hook or set attributes on modules."""
        return copy.deepcopy(self.model)

    def whole(self) -> nn.ModuleDict:
        """`model`, and in front of it `lead` where there is one: what `attentions` names. Shared, as `model` is."""
        lead = {} if self.lead is None else {"lead": self.lead}
        return nn.ModuleDict({**lead, "model": self.model})

    def fill(self, name: str) -> Tensor:
        """A fill, expanded to the shape of `inputs`; also the baseline of path methods. Raises Unsupported."""
        if name not in self.fills:
            raise Unsupported(f"the fill {name!r} is not available on this view; there are: {', '.join(self.fills)}")
        return self.fills[name].expand_as(self.inputs)

    def filled(self, keep: Tensor, fill: str) -> Tensor:
        """Mixtures `keep * input + (1 - keep) * fill`. Shape: keep `(B, K, F, T)` in [0, 1] -> `(B * K, C, F, T)`.

        Raises XaibenchError when `keep` has another shape: broadcasting would mix utterances in silence.
        """
        if keep.ndim != 4 or len(keep) != len(self) or tuple(keep.shape[2:]) != self.shape:
            raise XaibenchError(
                f"expected masks (B, K, F, T) = ({len(self)}, K, {self.shape[0]}, {self.shape[1]}), got "
                f"{tuple(keep.shape)}; one mask an utterance is keep[:, None]"
            )
        keep = keep.to(self.inputs.dtype).unsqueeze(2)
        # One kernel, one allocation; exactly the input where keep is 1 and the fill where it is 0. On a CPU, torch.where
        # with a boolean mask takes several times as long.
        return torch.lerp(self.fill(fill).unsqueeze(1), self.inputs.unsqueeze(1), keep).flatten(0, 1)

    @torch.no_grad()
    def score(self, inputs: Tensor) -> Tensor:
        """Spoof log-odds of any tensors of this view's kind, in batches. Shape: `(M, C, F, T)` -> `(M,)`."""
        with computed_in(self.precision, self.device.type):
            return torch.cat([self.model(part)[:, 0] for part in inputs.split(self.batch_size)])

    def select(self, index: Sequence[int]) -> View:
        """The same view of some of its utterances, in the given order."""
        rows = [int(i) for i in index]
        at = torch.tensor(rows, dtype=torch.long, device=self.device)  # a list would be copied there for every tensor
        truth = self.truth
        if truth is not None:
            added = None if truth.added is None else truth.added[at]
            truth = replace(truth, values=truth.values[at], region=truth.region[at], added=added)
        # Fewer dimensions than the inputs: the first one is not the batch, whatever its length.
        own = {n for n, t in self.fills.items() if t.ndim == self.inputs.ndim and len(t) == len(self)}
        fills = {n: t[at] if n in own else t for n, t in self.fills.items()}
        energy = None if self.energy is None else self.energy[at]
        ids = tuple(self.ids[i] for i in rows)
        recordings = None if self.recordings is None else self.recordings[at]
        return replace(
            self, inputs=self.inputs[at], fills=fills, ids=ids, truth=truth, energy=energy, recordings=recordings
        )  # fmt: skip

    def each(self) -> Iterator[View]:
        """One view an utterance: for methods that draw random numbers or take one input at a time."""
        return (self.select([i]) for i in range(len(self)))

    def generator(self, index: int = 0) -> torch.Generator:
        """A fresh CPU generator fixed by (seed, utterance id), so order and batching never change a draw."""
        return torch.Generator().manual_seed(derive_seed(self.seed, self.ids[index]))

    @contextmanager
    def seeded(self, index: int = 0) -> Iterator[None]:
        """Within the block torch, numpy and `random` are seeded as `generator(index)`; afterwards they are as before."""
        seed = derive_seed(self.seed, self.ids[index])
        python, numeric = random.getstate(), np.random.get_state()
        # Only the generators that are restored are seeded; torch.manual_seed would also reach every other device.
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.default_generator.manual_seed(seed)
                if devices:
                    with torch.cuda.device(self.device):
                        torch.cuda.manual_seed(seed)
                np.random.seed(seed % 2**32)
                random.seed(seed)
                yield
        finally:
            random.setstate(python)
            np.random.set_state(numeric)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine.

    >>> derive_seed(0, "a") == derive_seed(0, "a") != derive_seed(0, "b")
    True
    """
    digest = hashlib.sha256("\x1f".join(str(p) for p in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def patches(shape: tuple[int, int], height: int, width: int) -> Tensor:
    """Rectangular features for perturbation methods: the patch number of every cell. Shape: `(F, T)` long, from 0.

    >>> patches((2, 4), 1, 2).tolist()
    [[0, 0, 1, 1], [2, 2, 3, 3]]
    """
    rows = torch.arange(shape[0]) // height
    columns = torch.arange(shape[1]) // width
    return rows[:, None] * (int(columns.max()) + 1) + columns[None, :]


def native_view(
    cm: Countermeasure, spoof: Tensor, bonafide: Tensor | None, references: Tensor, ids: Sequence[str], *,
    seen: Tensor | None = None, **facts: Any,
) -> View:  # fmt: skip
    """Explain at the tap. Waveforms `(B, n_samples)`, `(B, n_samples)` or None for speech without twins, `(R, n_samples)`;
    `seen` are the references of an earlier view, not to be made again; `facts` go to `View`.
    """
    model = nn.Sequential(OrderedDict(backend=cm.backend, contrast=SpoofLogOdds(cm.classes).to(spoof)))
    model = model.to(spoof.device).eval()
    frontend = cm.frontend.to(spoof.device).eval()
    with torch.no_grad():  # contiguous: an STFT has time before frequency in memory, and every mask would be read across
        inputs = frontend(spoof).contiguous()
        twin = {} if bonafide is None else {"twin": frontend(bonafide).contiguous()}
        if seen is None:
            seen = frontend(references) if len(references) else inputs[:0]  # many operations refuse an empty batch
        silence = frontend(torch.zeros_like(spoof[:1])).contiguous()
    if inputs.ndim != 4:
        raise XaibenchError(f"the tap must be (B, C, F, T), got {tuple(inputs.shape)}; use --route grid")
    fills = {"silence": silence, "mean": cm.mean_tap.to(inputs), **twin}
    # The log-odds of three and more classes hold a logsumexp, which no library has a rule for.
    modules = len(cm.classes) == 2 and getattr(cm, "module_rules", True)
    own = {
        "resolves": frozenset(getattr(cm, "resolves", BOTH)),
        "layers_resolve": getattr(cm, "layers_resolve", None),
        "intrinsic": dict(getattr(cm, "intrinsic", {})),
    }
    # Self-attention in front of the tap is reached through the recordings; a map of it says which frames the tap heard.
    declared = {id(module) for module in getattr(cm, "attentions", {}).values()}
    if any(id(module) in declared for module in frontend.modules()):
        own |= {"lead": frontend, "recordings": spoof}
    facts = {**own, **facts}
    return _view(cm, "native", model, inputs, cm.axes, fills, seen, ids, modules=modules, facts=facts)


def grid_view(
    cm: Countermeasure,
    spoof: Tensor,
    bonafide: Tensor | None,
    references: Tensor,
    ids: Sequence[str],
    *,
    grid: Grid,
    seen: Tensor | None = None,
    **facts: Any,
) -> View:
    """Explain the complex STFT in front of the whole countermeasure. Arguments as `native_view`, and the grid."""
    n_samples = spoof.shape[1]
    stages = OrderedDict(
        resynthesis=Resynthesis(grid, n_samples), frontend=cm.frontend, backend=cm.backend,
        contrast=SpoofLogOdds(cm.classes).to(spoof),
    )  # fmt: skip
    model = nn.Sequential(stages).to(spoof.device).eval()

    def parts(waveform: Tensor) -> Tensor:
        spectrum = grid.stft(waveform)
        return torch.stack([spectrum.real, spectrum.imag], dim=1)

    inputs = parts(spoof)
    refs = seen
    if refs is None:
        refs = parts(references) if len(references) else inputs[:0]  # torch.stft refuses an empty batch
    fills = {"silence": torch.zeros_like(inputs[:1])} | ({} if bonafide is None else {"twin": parts(bonafide)})
    if len(refs):  # there is no mean of no references
        magnitude = inputs.square().sum(1, keepdim=True).sqrt()
        level = refs.square().sum(1, keepdim=True).clamp_min(1e-20).log().mean(dim=(0, 3), keepdim=True).div(2).exp()
        fills["mean"] = inputs / magnitude.clamp_min(1e-10) * level
    axes = grid.frequency, grid.time(n_samples)
    # A map of a layer lies on the tap's axes, whatever stands in front of the tap.
    own = getattr(cm, "layers_resolve", None) or frozenset(getattr(cm, "resolves", BOTH))
    facts = {"layers_resolve": own, **facts}
    return _view(cm, "grid", model, inputs, axes, fills, refs, ids, modules=False, facts=facts)


def _view(cm, route, model, inputs, axes, fills, references, ids, *, modules, facts) -> View:
    names = {id(module): name for name, module in model.named_modules()}
    layers = tuple(names[id(layer)] for layer in cm.layers.values() if id(layer) in names)  # in the declared order
    facts = {**facts, **_attention(cm, model, facts.get("lead"))}
    offers = {"twin"} & set(fills)
    offers |= {"references"} if len(references) else set()
    if getattr(cm, "gradients", True):  # without them the score is a number and nothing else
        offers |= {"gradients"} | ({"layers"} if layers else set()) | ({"modules"} if modules else set())
    offers |= {"intrinsic"} if facts.get("intrinsic") else set()
    offers |= {"attention"} if facts.get("attentions") and "gradients" in offers else set()
    offers |= {need for need in ("truth", "prior") if facts.get(need) is not None}
    return View(
        route=route, model=model, inputs=inputs, axes=axes, fills=fills, references=references, layers=layers,
        ids=tuple(ids), offers=frozenset(offers), **facts,
    )  # fmt: skip


def _attention(cm, model: nn.Module, lead: nn.Module | None) -> dict[str, object]:
    """The countermeasure's self-attention layers that lie within `model` or `lead`, and the axes of their tokens."""
    declared = getattr(cm, "attentions", {})
    stages = nn.ModuleDict({"model": model} if lead is None else {"lead": lead, "model": model})
    names = {id(module): name for name, module in stages.named_modules()}
    found = tuple(names[id(layer)] for layer in declared.values() if id(layer) in names)
    if not found:
        return {}
    axes = getattr(cm, "attention_axes", None) or (whole_band(cm.sample_rate), cm.axes[1])
    return {"attentions": found, "attention_axes": axes}
