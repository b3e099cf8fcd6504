"""A run's countermeasures asked again, with the run's own settings: bona fide halves explained, and class maps.

A run explains spoofed halves only, and keeps one map a method. What a method says of the bona fide twin, and what a
countermeasure with class maps of its own says of each class, is computed here from the settings in run.json: the same
weights, route, options, references and seed. A method that needs the twin or the truth cannot explain a bona fide recording
and says so. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xaibench.analysis.recording import RecordingBench
from xaibench.analysis.temporal import ClassCurves
from xaibench.errors import RunError, XaibenchError, told
from xaibench.grid import Grid
from xaibench.harness import cell
from xaibench.harness.sizes import is_poisoned, lost_device
from xaibench.harness.spec import RunSpec
from xaibench.harness.workbench import Workbench
from xaibench.run_record import read_record
from xaibench.truth import TruthSpec


class RunBench(RecordingBench):
    """A bench for recordings, with the settings and the data set (for references) of a run; one countermeasure."""

    corpus = Workbench.corpus


def spec_of_run(run: Path) -> RunSpec:
    """The spec that a run was made with. Raises RunError for a folder without one, or one of another version."""
    path = Path(run) / "run.json"
    try:
        facts: dict[str, Any] = dict(read_record(run)["spec"])
        facts["grid"] = Grid(**facts["grid"])
        truth: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["truth"].items()}
        facts["truth"] = TruthSpec(**truth)
        facts = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        return RunSpec(**{k: v for k, v in facts.items() if k in {f.name for f in fields(RunSpec)}})
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{path}: not the record of a run of this version ({error!r}); run again with the same --out"
        ) from error


def bench_of_run(run: Path, countermeasure: str, route: str, *, device: str = "cpu") -> RunBench:
    """The bench of one countermeasure of a run. Raises RunError, or CheckpointError for weights that are gone."""
    return RunBench(replace(spec_of_run(run).only(countermeasure), route=route), device=device)


def explained(
    bench: RunBench, waves: Iterable[tuple[str, np.ndarray]], methods: Sequence[str], failures: dict[str, str]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Every method's map of recordings: yields (id, method, `(F, T)` on the grid).

    waves: (id, `(N,)` cut as the countermeasure hears it), one after the other. failures: gets method -> why it has no map
    of some recording; such a method is not asked again.
    """
    for name, wave in waves:
        prepared = bench.seen(np.asarray(wave, dtype=np.float32)[None], (name,))
        for method in methods:
            if method in failures:
                continue
            try:
                made = cell.explain(bench, prepared, method).on_grid.values
            except XaibenchError as reason:  # Unsupported and Undefined, too
                failures[method] = str(reason)
                continue
            except Exception as error:  # whatever a plugin raises costs its own map only
                if is_poisoned(error):
                    raise RunError(lost_device(error, bench.device, f"{method} on {bench.name}", "")) from error
                bench.forget(bench.name)
                failures[method] = told(error)
                prepared = bench.seen(np.asarray(wave, dtype=np.float32)[None], (name,))
                continue
            yield name, method, made[0].cpu().numpy()


def class_maps(bench: RunBench, wave: np.ndarray) -> ClassCurves | None:
    """The class maps of a recording `(N,)`; None of a countermeasure that has none.

    A countermeasure has them if it has a method `class_maps(tap) -> (B, K, T)`, K in the order of its `classes`; `tca` does.
    Raises XaibenchError for maps of another shape.
    """
    module = bench.countermeasure(bench.name).module
    if not hasattr(module, "class_maps"):
        return None
    with torch.no_grad():
        tap = module.frontend(torch.as_tensor(np.asarray(wave, dtype=np.float32))[None].to(bench.device))
        values = module.class_maps(tap)
    time = module.axes[1]
    expected = (1, len(module.classes), len(time))
    if tuple(values.shape) != expected:
        raise XaibenchError(f"{bench.name}: class maps of shape {tuple(values.shape)}, expected (B, K, T) = {expected}")
    return ClassCurves(tuple(module.classes), values[0].double().cpu().numpy(), np.array(time.edges))
