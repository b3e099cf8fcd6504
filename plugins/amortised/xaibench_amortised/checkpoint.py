"""Where trained networks lie, and which one belongs to a view. A network of another countermeasure is never used.

A checkpoint is NAME.safetensors with its card NAME.json. The card records the hash of the model behind the cut, the route,
the fill and the patches; the weights hold the front end's answer to silence, because the front end is not part of that model
on the native route. All of them have to fit the view: a network that learned other weights would answer, and be wrong.

Searched, in this order: the file that the method's option `weights` names, the folder of the environment variable
XAIBENCH_EXPLAINERS, this package's own folder.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaibench.errors import CheckpointError, Unsupported
from xaibench.view import View
from xaibench.weights import load_weights, read_card, weights_hash
from xaibench_amortised.network import PatchNetwork

#: The environment variable that names a folder of trained networks.
FOLDER = "XAIBENCH_EXPLAINERS"
OWN = Path(__file__).parent / "checkpoints"


def unscaled(model: nn.Module) -> tuple[nn.Module, float]:
    """The model without last layers that only multiply the log-odds by a number, and that number.

    Shapley values are linear in the score, so a network that learned f knows those of -f, too: the question "why bona fide"
    (`xaibench.metrics.again.opposite`) is answered by the same network.

    >>> half = nn.Linear(1, 1, bias=False)
    >>> nn.init.constant_(half.weight, 0.5).item(), unscaled(nn.Sequential(nn.Linear(3, 1), half))[1]
    (0.5, 0.5)
    """
    stages, factor = list(model.named_children()), 1.0
    while (
        len(stages) > 1
        and isinstance(last := stages[-1][1], nn.Linear)
        and last.weight.shape == (1, 1)
        and last.bias is None
    ):
        factor *= float(last.weight.detach())
        stages.pop()
    return nn.Sequential(OrderedDict(stages)) if len(stages) < len(list(model.children())) else model, factor


def network_for(view: View, fill: str, weights: str = "") -> tuple[PatchNetwork, float]:
    """The network that learned this view's countermeasure, route and fill, in eval mode, on the view's device.

    With the factor of `unscaled`. Raises Unsupported, with what to do, where there is none, and where the named file belongs
    to something else.
    """
    stem, factor = unscaled(view.model)
    model = weights_hash(stem)
    refused = []
    for path in [Path(weights)] if weights else _found():
        card = read_card(path)
        why = _mismatch(card, view, fill, model)
        if not why:
            network = load(path, card)
            silence = view.fill("silence")[:1].mean(dim=(0, 3)).cpu()
            if torch.allclose(network.silence, silence, rtol=1e-3, atol=1e-4):
                return network.to(view.device), factor
            why = "another front end: the answer to silence differs"
        refused.append(f"{path.name}: {why}")
    known = f" Of what is here, {'; '.join(refused)}." if refused else ""
    raise Unsupported(
        f"fast-shap has to learn a countermeasure first, and no network of these weights is here (route {view.route}, fill "
        f"{fill!r}). Train one: `python -m xaibench_amortised train --cm NAME --route {view.route} --fill {fill} --out "
        f"FILE.safetensors`, then point to it by the option `weights` or the folder {FOLDER}.{known}"
    )


def load(path: Path, card: Mapping[str, Any] | None = None) -> PatchNetwork:
    """A network from its file and card, in eval mode. Raises CheckpointError for a card without its shapes."""
    card = card or read_card(path)
    try:
        shape, patch = tuple(card["shape"]), tuple(card["patch"])
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn, and thrown away
            network = PatchNetwork(shape, patch, channels=card["channels"], width=card["width"])
    except KeyError as error:
        raise CheckpointError(f"{path}: its card has no {error}; expected what `xaibench_amortised train` writes") from error
    load_weights(network, path)
    return network.eval()


def _found() -> Iterator[Path]:
    named = os.environ.get(FOLDER)
    for folder in ([Path(named)] if named else []) + [OWN]:
        yield from sorted(folder.glob("*.safetensors"))


def _mismatch(card: Any, view: View, fill: str, model: str) -> str:
    """Why a card does not belong to a view; empty where it does."""
    spec = card.get("spec", {})
    if spec.get("route") != view.route:
        return f"learned on the {spec.get('route')} route"
    if spec.get("fill") != fill:
        return f"learned with the fill {spec.get('fill')!r}"
    if card.get("model") != model:
        return f"learned from other weights ({card.get('countermeasure')})"
    if list(card.get("shape", ())) != list(view.shape):
        return f"learned on {card.get('shape')} cells, this view has {list(view.shape)}"
    return ""
