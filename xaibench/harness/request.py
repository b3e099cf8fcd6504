"""From the names a user gives to a `RunSpec`: what `xaibench run` and `xaibench.run` share.

Names are looked up (`all`, `preset`, plugins, manifests), the controls are added, and the run gets its folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xaibench import registry
from xaibench.errors import PluginError, XaibenchError
from xaibench.harness.known import (
    control_names,
    known_countermeasures,
    known_datasets,
    known_metrics,
    known_names,
    loadable_metrics,
    rehearsed,
)
from xaibench.harness.spec import RunSpec

#: Where runs lie whose folder nobody names, relative to the working directory.
RESULTS = Path("results")


@dataclass(frozen=True)
class Request:
    """A run that can begin: what to compute, where, and what of `all` is left out and why (one sentence each)."""

    spec: RunSpec
    folder: Path
    notes: tuple[str, ...] = ()


def request(
    cm: Sequence[str],
    xai: Sequence[str],
    metrics: Sequence[str] = ("preset",),
    *,
    data: str = "minivoc",
    ssl: Path | str | None = None,
    out: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    isolate: bool = False,
) -> Request:
    """Look up countermeasures, attributors (`all` for every one; the controls are always added), metrics and data set.

    ssl: folder of a wav2vec 2.0 encoder, for the countermeasures that take one. out: the run's folder; by default
    `results/<countermeasures>-<data>-<preset>`. settings: the other fields of `RunSpec`, by name. isolate: import no
    attributor here, and nothing else before it is known that this ends well (`registry.stand_in`).

    Raises PluginError for unknown names, CheckpointError for a countermeasure without weights, RunError and XaibenchError
    for settings that cannot be.

    >>> asked = request(["lcnn"], ["grad-cam"], settings={"limit": 2})
    >>> asked.folder.name, asked.spec.attributors[0], "random" in asked.spec.attributors
    ('lcnn-minivoc-quick', 'grad-cam', True)
    """
    fields = dict(settings or {})
    load = registry.stand_in if isolate else registry.load
    methods, broken = known_names("attributors", xai, load)
    cms, without = known_countermeasures(cm, fields.get("checkpoints", {}), load)
    measured = known_metrics(metrics, fields.get("preset", RunSpec.preset))
    if isolate:
        measured, silent = loadable_metrics(measured)  # a metric is imported by whoever prints a board, too
        ends = rehearsed(cms, fields)
        broken += (*silent, *(f"countermeasure {name!r} is left out: {why}" for name, why in ends.items()))
        cms = tuple(name for name in cms if name not in ends)
        for what in ("checkpoints", "cm_options"):
            fields[what] = {name: of for name, of in fields.get(what, {}).items() if name not in ends}
        if not cms:
            raise PluginError(f"no countermeasure is left: {'; '.join(broken)}")
    if ssl is not None:
        fields["cm_options"] = with_encoder(fields.get("cm_options", {}), cms, ssl)
    spec = RunSpec(
        countermeasures=cms,
        attributors=tuple(dict.fromkeys([*methods, *control_names()])),
        metrics=measured,
        data=known_datasets([data])[0],
        **fields,
    )
    name = "all" if list(cm) == ["all"] else "-".join(cms)
    return Request(spec, Path(out or RESULTS / f"{name}-{Path(data).stem}-{spec.preset}"), (*broken, *without))


def with_encoder(options: Mapping[str, Mapping[str, Any]], cms: Sequence[str], ssl: Path | str) -> dict[str, dict[str, Any]]:
    """The options of countermeasures with a wav2vec 2.0 folder for every one of `cms` that takes it.

    Raises XaibenchError where none does.
    """
    takers = [name for name in cms if "ssl" in registry.load("countermeasures", name).options]
    if not takers:
        raise XaibenchError(f"--ssl {ssl}: none of {', '.join(cms)} takes a wav2vec 2.0 encoder")
    given = {name: dict(mine) for name, mine in options.items()}
    for name in takers:
        given.setdefault(name, {})["ssl"] = str(ssl)
    return given
