"""What is installed, by the names of the command line: `all`, plugins, metrics of a preset, countermeasures with weights."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xaibench import probe, registry
from xaibench.errors import CheckpointError, PluginError
from xaibench.metrics import catalog
from xaibench.protocols import Countermeasure
from xaibench.weights import load_weights, read_card

#: What people call a method -> its name here. A plugin of that very name goes first.
ALIASES = {
    "ig": "integrated-gradients",
    "gxi": "input-x-gradient",
    "ixg": "input-x-gradient",
    "input*gradient": "input-x-gradient",
    "inputxgradient": "input-x-gradient",
    "gradient": "saliency",
    "gradcam": "grad-cam",
    "gradcam++": "grad-cam++",
    "scorecam": "score-cam",
    "layercam": "layer-cam",
    "eigencam": "eigen-cam",
    "sg": "smoothgrad",
    "gbp": "guided-backprop",
    "guided-backpropagation": "guided-backprop",
    "deconvnet": "deconvolution",
    "deepshap": "deeplift-shap",
    "kernelshap": "kernel-shap",
    "gradientshap": "gradient-shap",
}


#: `registry.load`, or `registry.stand_in`: group, name -> plugin.
Load = Callable[[str, str], Any]


def load_countermeasure(
    name: str, checkpoint: str | None, options: Mapping[str, Any]
) -> tuple[Countermeasure, dict[str, Any], Path]:
    """A countermeasure with its weights, its card, and where they lie; built with its card's options and `options` on top.

    Weights are looked for in `checkpoint`, in the folder that XAIBENCH_WEIGHTS names (as NAME.safetensors), and in the
    package. Raises CheckpointError when there are none (saying how to get them), or weights of something else.
    """
    recipe = registry.load("countermeasures", name)
    path = Path(checkpoint) if checkpoint else found_weights(name)
    if path is None:
        how = _how_to_get(name)
        raise CheckpointError(
            f"no trained weights of the countermeasure {name!r} are here: {how}. Then pass --checkpoint {name}=FILE, or put "
            f"{name}.safetensors and its card in the folder named by XAIBENCH_WEIGHTS; an untrained countermeasure explains "
            f"nothing"
        )
    if not os.path.lexists(path):  # what is there and no file is named as that when it is opened
        raise CheckpointError(f"{path}: no such checkpoint; `xaibench train --cm {name}` makes one")
    card = dict(read_card(path))
    try:
        module = recipe.untrained(seed=0, **{**card.get("options", {}), **options})
    except PluginError as error:
        raise CheckpointError(f"{path}: the countermeasure of its card cannot be built: {error}") from error
    if card.get("name") != name or list(card.get("classes", ())) != list(module.classes):
        raise CheckpointError(
            f"{path}: its card describes {card.get('name')!r} with classes {card.get('classes')}, expected {name!r} "
            f"with {list(module.classes)}"
        )
    load_weights(module, path)
    return module, card, path


def _how_to_get(name: str) -> str:
    recipe = registry.load("countermeasures", name)
    return getattr(recipe, "obtain", "") or f"make them with `xaibench train --cm {name}`"


def found_weights(name: str) -> Path | None:
    """The checkpoint of a countermeasure where none is named: in the folder XAIBENCH_WEIGHTS, else in its package."""
    folder = os.environ.get("XAIBENCH_WEIGHTS")
    mine = Path(folder) / f"{name}.safetensors" if folder else None
    return mine if mine is not None and mine.is_file() else registry.load("countermeasures", name).shipped()


def known_names(group: str, wanted: Sequence[str], load: Load = registry.load) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names as given, `all` expanded to every plugin of the group that loads and is not optional; and why others do not.

    load: `registry.stand_in` where nothing is to be imported into this process that could harm it.

    A broken plugin asked for by name is an error; among `all` it is a named problem. Raises PluginError.
    """
    available = sorted(registry.plugins(group))
    if not available:
        raise PluginError(f"no {group} are installed; the first-party ones are in plugins/ of the repository")
    names: list[str] = []
    broken: list[str] = []
    for asked in wanted:
        name = ALIASES.get(asked.lower(), asked) if group == "attributors" and asked not in available else asked
        if name == "all":
            for plugin in available:
                try:
                    found = load(group, plugin)
                except PluginError as error:
                    broken.append(str(error))
                else:
                    names += [] if getattr(found, "optional", False) else [plugin]
        elif name not in available:
            raise PluginError(registry.unknown(group.removesuffix("s"), name, available))
        else:
            load(group, name)
            names.append(name)
    if not names:
        raise PluginError(f"no {group} chosen; name some, or `all`")
    return tuple(dict.fromkeys(names)), tuple(broken)


def known_datasets(wanted: Sequence[str]) -> tuple[str, ...]:
    """Data sets by name, or by the path of a manifest (NAME.toml). Raises PluginError for an unknown name."""
    names: list[str] = []
    for name in wanted:
        names += [name] if name.endswith(".toml") else known_names("datasets", [name])[0]
    return tuple(dict.fromkeys(names))


def known_countermeasures(
    wanted: Sequence[str], checkpoints: Mapping[str, str], load: Load = registry.load
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """As `known_names`; of `all`, those without weights become named problems instead of stopping everything."""
    names, broken = known_names("countermeasures", wanted, load)
    if "all" not in wanted:
        return names, broken
    bare = [n for n in names if n not in checkpoints and n not in wanted and found_weights(n) is None]
    how = [f"countermeasure {n!r} is left out: no weights of it are here; {_how_to_get(n)}" for n in bare]
    left = tuple(n for n in names if n not in bare)
    if not left:
        raise CheckpointError("no countermeasure has weights here: " + "; ".join(how))
    return left, (*broken, *how)


def known_metrics(wanted: Sequence[str], preset: str) -> tuple[str, ...]:
    """Metrics by name; `preset` is the preset's own list, `all` everything. Raises PluginError for an unknown one."""
    ours = list(catalog.METRICS)
    theirs = [name for name in sorted(registry.plugins("metrics")) if name not in ours]  # xaibench's names are its own
    names: list[str] = []
    for name in wanted:
        if name == "preset":
            names += [*(catalog.FULL if preset == "full" else catalog.QUICK), *theirs]
        elif name == "all":
            names += [*ours, *theirs]
        elif name in ours or name in theirs:
            names.append(name)
        else:
            raise PluginError(registry.unknown("metric", name, [*ours, *theirs]))
    return tuple(dict.fromkeys(names))


#: Seconds in which a countermeasure must have loaded its weights and heard a second of silence.
REHEARSAL = 600.0


def rehearsed(names: Sequence[str], fields: Mapping[str, Any]) -> dict[str, str]:
    """Countermeasure -> why its process ended when it was loaded and asked once, elsewhere; only those whose process did.

    fields: those of `RunSpec`, of which `checkpoints` and `cm_options` count. What is wrong but no end is not said: the
    run itself finds it and says it better.
    """
    asked = {}
    for name in names:
        if name in fields.get("checkpoints", {}) or found_weights(name) is not None:
            of = fields.get("checkpoints", {}).get(name), fields.get("cm_options", {}).get(name, {})
            asked[json.dumps([name, *of], default=str)] = name
    found = probe.ask(f"{__name__}:rehearse", list(asked), seconds=REHEARSAL)
    return {asked[question]: str(why) for question, why in found.items() if isinstance(why, probe.Silent)}


def rehearse(question: str) -> str:
    """Load a countermeasure and give it silence: `[name, checkpoint, options]` in JSON. Returns what it raised, or ""."""
    import torch

    name, checkpoint, options = json.loads(question)
    try:
        module, _, _ = load_countermeasure(name, checkpoint, options)
        with torch.no_grad():
            module.eval()(torch.zeros(1, module.n_samples))
    except Exception as error:  # noqa: BLE001 - the run itself will say it
        return f"{type(error).__name__}: {error}"
    return ""


def loadable_metrics(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that can be imported without harm, and why others cannot; ours are not asked."""
    good: list[str] = []
    broken: list[str] = []
    for name in names:
        try:
            if name not in catalog.METRICS:
                registry.stand_in("metrics", name)
        except PluginError as error:
            broken.append(str(error))
        else:
            good.append(name)
    return tuple(good), tuple(broken)


def control_names() -> tuple[str, ...]:
    """The reference rows that every board carries: the attributors of xaibench itself, but for the optional ones."""
    claims = registry.plugins("attributors").items()
    ours = (name for name, who in claims if any(plugin.distribution == registry.CORE for plugin in who))
    return tuple(name for name in ours if not registry.load("attributors", name).optional)
