"""A benchmark run as an object: its rows, its board, what the board says, and how a notebook shows it.

A `Run` is a folder. Everything is read from its files, so a run of the command line and one of `run` are the same thing, and
the same call in the same folder continues. Reading one imports no torch.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench.errors import RunError

if TYPE_CHECKING:
    import pandas as pd

    from xaibench.api.map import Map
    from xaibench.harness.run import Progress
    from xaibench.truth import TruthSpec


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder. notes: what the run that made it had to say (methods left out, countermeasures that failed a check)."""

    folder: Path
    notes: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The long table: one row a countermeasure x attributor x metric x utterance, with `value` and `status`."""
        from xaibench.leaderboard.table import read_rows

        return read_rows([self.folder])

    @cached_property
    def board(self) -> pd.DataFrame:
        """One row an attributor: means, intervals, skill between floor and ceiling (`xaibench.leaderboard.table`)."""
        from xaibench.leaderboard import table

        return table.board(self.rows)

    @property
    def verdict(self) -> list[str]:
        """What the board says, in sentences computed from it."""
        from xaibench.leaderboard.verdict import verdict

        return verdict(self.board)

    @cached_property
    def checks(self) -> pd.DataFrame:
        """What preflight asked of every countermeasure and of every method on it: outcome, number, tolerance, sentence; one
        line a check (`xaibench.harness.verdicts`, whose QUESTIONS say what each is there for).
        """
        from xaibench.harness.verdicts import read_checks

        return read_checks([self.folder])

    @cached_property
    def warnings(self) -> pd.DataFrame:
        """What methods, metrics and libraries warned of while cells were computed, each once (`xaibench.harness.warned`)."""
        from xaibench.harness.warned import read_warnings

        return read_warnings([self.folder])

    @cached_property
    def record(self) -> Mapping[str, Any]:
        """What `run.json` holds: spec, environment, versions, countermeasures. Raises RunError where it is damaged."""
        from xaibench.run_record import read_record

        return read_record(self.folder)

    def map(self, method: str, pair: str, *, countermeasure: str | None = None, route: str | None = None) -> Map:
        """The map of a method on a pair `source/vocoder` (a bare source, if one pair of it was scored), with its truth.

        countermeasure, route: where the run has several. Raises RunError when it was not kept (`keep_maps=True`).
        """
        from xaibench import maps
        from xaibench.api.map import Map
        from xaibench.grid import Grid

        pairs = maps.kept_pairs(self.folder, pair)
        if len(pairs) > 1:
            raise RunError(f"{self.folder}: maps of {', '.join(pairs)} were kept; name one of them")
        sections = maps.kept_maps(self.folder, pairs[0])
        fits = {k: v for k, v in sections.items() if countermeasure in (None, k[0]) and route in (None, k[1])}
        if len(fits) != 1:
            there = "; ".join(f"countermeasure {c!r}, route {r!r}" for c, r in sections)
            raise RunError(f"{self.folder}: {'no' if not fits else 'several'} maps of {pairs[0]} fit; there are {there}")
        ((_, files),) = fits.items()
        if method not in files:
            raise RunError(f"{self.folder}: no map of {method!r} was kept for {pairs[0]}; there are {', '.join(files)}")
        stored = maps.read_map(files[method])
        grid, frames = Grid(*maps.grid_of(stored.metadata)), stored.values.shape[1]
        kept = maps.read_truth(maps.truth_path(self.folder, stored.metadata.get("truth", ""), frames, pairs[0]))
        axes = grid.frequency, grid.time((frames - 1) * grid.hop)
        return Map(method, pairs[0], stored.values, *axes, valid=kept.valid, region=kept.region)

    def show(self, utterance: str) -> Pictures:
        """Real, fake, truth, and every method's map with its top 5 %, of an utterance or a pair: a picture for notebooks.

        Raises RunError when its maps were not kept (`keep_maps=True`).
        """
        import tempfile

        from xaibench.figures import show_run

        with tempfile.TemporaryDirectory() as scratch:
            pictures = tuple(path.read_bytes() for path in show_run(self.folder, utterance, Path(scratch)))
        return Pictures(pictures, f"real, vocoded, truth, and every method's map of {utterance}")

    def site(self, out: Path | str) -> Path:
        """Write the leaderboard's site into a folder and return its first page, which any browser opens."""
        from xaibench.site.build import build

        return build([self.folder], Path(out))

    def __repr__(self) -> str:
        from xaibench.leaderboard import render
        from xaibench.screen import Screen

        width = shutil.get_terminal_size((render.WIDTH, 24)).columns
        columns = min(width, render.WIDTH)
        text = io.StringIO()
        Screen(file=text, width=columns, plain=True).print(render.terminal(self.board, narrow=width < render.WIDTH))
        return f"Run {self.folder}\n\n" + "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _repr_markdown_(self) -> str:
        from xaibench.leaderboard import render

        return render.markdown(self.board)

    def _repr_html_(self) -> str:
        from xaibench.api.board_html import html

        return html(self.board, folder=str(self.folder), notes=self.notes)


@dataclass(frozen=True, eq=False)
class Pictures:
    """PNG pictures that a notebook shows, one below the other. what: said of them to who cannot see them."""

    png: tuple[bytes, ...]
    what: str = "picture"

    def save(self, out: Path | str) -> list[Path]:
        """Write them as `OUT/0.png`, `OUT/1.png`, ... Raises RunError where that is not possible."""
        paths = [Path(out) / f"{number}.png" for number in range(len(self.png))]
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            for path, content in zip(paths, self.png, strict=True):
                path.write_bytes(content)
        except OSError as error:
            raise RunError(f"{out}: cannot write pictures here ({error.strerror})") from error
        return paths

    def __repr__(self) -> str:
        return f"{len(self.png)} picture{'' if len(self.png) == 1 else 's'}; .save(FOLDER) writes them"

    def _repr_html_(self) -> str:
        from html import escape

        from xaibench.site.shell import data_uri

        alt = escape(self.what)
        return "".join(f'<img style="max-width:100%" alt="{alt}" src="{data_uri(png, "image/png")}">' for png in self.png)


def open_run(folder: Path | str) -> Run:
    """A run that is there already. Raises RunError for a folder that holds none."""
    if not (Path(folder) / "run.json").is_file():
        raise RunError(f"{folder}: not a run folder, it has no run.json; expected the --out of `xaibench run`")
    return Run(Path(folder))


def run(
    cm: str | Sequence[str] = "lcnn",
    xai: str | Sequence[str] = "all",
    *,
    data: str = "minivoc",
    root: str | Mapping[str, str] | None = None,
    split: str = "eval",
    preset: str = "quick",
    metrics: str | Sequence[str] = "preset",
    limit: int | None = None,
    route: str = "auto",
    truth: str | TruthSpec = "eq2",
    seed: int = 0,
    device: str = "auto",
    keep_maps: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    checkpoints: Mapping[str, str] | None = None,
    out: Path | str | None = None,
    isolate: bool = False,
    cell_timeout: float | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Run:
    """Score attribution methods, as `xaibench run` does with the same options. Names: "a,b", ["a", "b"], or "all".

    keep_maps: also keep every map, for `Run.show` and `Run.map`. options: method -> its options. checkpoints: countermeasure
    -> weights (safetensors) instead of the shipped. out: the run's folder; by default results/<cm>-<data>-<preset>. The same
    call in the same folder computes only what is missing. isolate: each method on each countermeasure in a process of its
    own. cell_timeout: seconds that one may take for an utterance; implies `isolate`. report: called with every step; by
    default a notebook shows a bar.

    Raises PluginError, CheckpointError, ManifestError, RunError before any work when the run cannot be right.
    """
    from xaibench.api.progress import shown
    from xaibench.harness.device import choose_device
    from xaibench.harness.engine import Engine
    from xaibench.harness.isolate import Isolated
    from xaibench.harness.request import request
    from xaibench.harness.run import run as run_harness
    from xaibench.truth import TruthSpec

    settings = {
        "root": root, "split": split, "route": route, "preset": preset, "limit": limit, "seed": seed,
        "keep_maps": keep_maps, "options": options or {}, "checkpoints": checkpoints or {},
        "truth": TruthSpec(truth) if isinstance(truth, str) else truth,
    }  # fmt: skip
    apart = isolate or cell_timeout is not None
    asked = request(_names(cm), _names(xai), _names(metrics), data=data, out=out, settings=settings, isolate=apart)
    with Isolated(cell_timeout=cell_timeout) if apart else Engine() as engine, shown(report) as tell:
        here = device if apart else choose_device(device)
        summary = run_harness(asked.spec, asked.folder, device=here, engine=engine, report=tell)
    return Run(asked.folder, (*asked.notes, *summary.problems))


def _names(names: str | Sequence[str]) -> list[str]:
    """
    >>> _names("a, b"), _names(("a", "b"))
    (['a', 'b'], ['a', 'b'])
    """
    return [n.strip() for n in names.split(",") if n.strip()] if isinstance(names, str) else list(names)
