"""`xaibench listen`: what the maps of a run point at, as sound files with levels and scores, and a page to play them.

For each pair, countermeasure and method there is *kept*, the top cells alone, and *removed*, the utterance without them; and
the same for random masks of that size, the control of every number here.

Scores are the countermeasure's: log-odds, higher = more bona fide. Each mask is scored twice, with silence and with the bona
fide twin where it keeps nothing. A few cells in silence are like nothing a countermeasure was trained on, and its answer is
hardly about them. Within the twin the rest stays speech, and the score says what the cells carry:

    carried = (s(cells in fill) - s(fill)) / (s(utterance) - s(fill))      0 as the fill alone, 1 as the whole utterance

The *triple* (original, plain resynthesis, explained audio) is that of Halpern et al., Odyssey 2020. There the map was
Grad-CAM on a constant-Q transform, cut at a threshold we could not read; here it is any map on the STFT, cut at a share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench import audio, maps
from xaibench.errors import CheckpointError, RunError, XaibenchError
from xaibench.grid import Grid
from xaibench.listen import file_part, griffin_lim, kept, leakage, level, level_matched, power_of, removed
from xaibench.run_record import read_record, spec_of
from xaibench.tables import csv_text
from xaibench.top import top_mask

if TYPE_CHECKING:
    from xaibench.protocols import Countermeasure

RANDOM = "random mask"  # the control's name; a method of the run may be called `random`
DRAWS = 5  # random masks that are scored; the first is written
PAUSE = 0.4  # s between the parts of a triple
FILLS = ("silence", "twin")
ENDINGS = ("wav", "flac")
_KINDS = {
    "original": "the vocoded utterance",
    "bonafide": "its bona fide twin",
    "resynthesis": "the whole utterance, its phase found by Griffin-Lim",
    "kept": "the top cells alone",
    "removed": "the utterance without its top cells",
    "triple": "original, plain resynthesis and explained audio, one after the other",
}


@dataclass(frozen=True)
class Wanted:
    """What to make. methods: () is all whose maps were kept. share: of the valid cells, in (0, 1]. fill: what stands where a
    mask keeps nothing. griffin_lim: find the phase instead of keeping it. triple: also the triple. ending: wav or flac, both
    16 bit. score: ask the countermeasure (its weights must be here). device: where.
    """

    methods: tuple[str, ...] = ()
    share: float = 0.05
    fill: str = "silence"
    griffin_lim: bool = False
    triple: bool = False
    ending: str = "wav"
    score: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise XaibenchError(f"share {self.share}, expected more than 0 and at most 1, as 0.05 for 5 %")
        if self.fill not in FILLS or self.ending not in ENDINGS:
            raise XaibenchError(
                f"fill {self.fill!r} and format {self.ending!r}, expected {' or '.join(FILLS)}, {' or '.join(ENDINGS)}"
            )


@dataclass
class Sound:
    """One file. `method` is "" for what belongs to no method.

    level: dBFS of the file. peak: its largest sample, of 1. gain: dB on what the mask gave; `limited` where the peak allowed
    no more, and the level is below the utterance's. energy: share of the utterance's energy in the cells that the mask
    keeps. outside: share of the file's energy outside those cells. in_silence, in_twin: scores of this mask, before
    any gain, with the original phase, with silence or the twin elsewhere; of_file: of the file as it is.
    """

    file: str
    pair: str
    countermeasure: str
    route: str
    method: str
    kind: str
    share: float | None = None
    seconds: float = 0.0
    level: float | None = None
    peak: float = 0.0
    gain: float = 0.0
    limited: bool = False
    silent: bool = False
    energy: float | None = None
    outside: float | None = None
    in_silence: float | None = None
    in_twin: float | None = None
    of_file: float | None = None


@dataclass
class Section:
    """A pair seen by one countermeasure through one route. `facts` are scores of no file: `silence`, `twin`, and of
    `DRAWS` random masks `kept_in_silence`, `kept_in_twin`, `removed_in_silence`, `removed_in_twin`.
    """

    pair: str
    countermeasure: str
    route: str
    sounds: list[Sound]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def find(self, kind: str, method: str = "") -> Sound | None:
        """The first file of that kind and method."""
        return next((s for s in self.sounds if (s.kind, s.method) == (kind, method)), None)

    def add(self, fact: str, score: float) -> None:
        """One more score of a fact that has one a random mask."""
        self.facts.setdefault(fact, []).append(score)

    def carried(self, sound: Sound | None, fill: str) -> float | None:
        """How much of the score the cells of `sound` carry into a fill; None without it or scores, or where fill and
        utterance are hardly apart (1 log-odds)."""
        if sound is None:
            return None
        return self.share_of(sound.in_silence if fill == "silence" else sound.in_twin, fill)

    def random(self, fill: str) -> list[float]:
        """What random masks carry into a fill, as `carried`; [] where that is unknown."""
        found = [self.share_of(score, fill) for score in self.facts.get(f"kept_in_{fill}", ())]
        return [share for share in found if share is not None]

    def share_of(self, score: float | None, fill: str) -> float | None:
        """Where a score stands between that of the fill alone, 0, and the utterance's, 1."""
        original, other = self.find("original"), self.facts.get(fill)
        whole = None if original is None else original.of_file
        if whole is None or other is None or score is None or abs(whole - other) < 1:
            return None
        return (score - other) / (whole - other)


def listen(run: Path, utterance: str, out: Path, *, wanted: Wanted | None = None) -> list[Section]:
    """Write the sounds of an utterance's maps to `out`, with `listen.csv`, `listen.json` and `index.html`.

    run: made with --keep-maps. utterance: `source` (each of its twins) or `source/vocoder`. Returns a section for each pair,
    countermeasure and route.

    Raises RunError for an utterance or method without maps, CheckpointError for a countermeasure that is not here or has
    other weights than the run's, AudioError for recordings that cannot be read or written.
    """
    from xaibench import manifest, registry

    run, out, wanted = Path(run), Path(out), wanted or Wanted()
    pairs = maps.kept_pairs(run, utterance)
    record = read_record(run)
    spec = spec_of(record, run, needs=("data", "truth", "grid"))
    corpus = registry.open_corpus(spec["data"], spec.get("root"))
    known = {pair.id: pair for pair in manifest.pairs(corpus, split=spec.get("split"))}
    sections, loaded = [], {}
    for name in pairs:
        if name not in known:
            raise RunError(f"{run}: maps of {name}, which {spec['data']} does not hold; another version of the data set?")
        halves = audio.read_halves(known[name], sample_rate=corpus.sample_rate)
        for (countermeasure, route), files in maps.kept_maps(run, name).items():
            chosen = _chosen(files, wanted.methods, f"{run}: {name}, {countermeasure}, {route} route")
            if wanted.score and countermeasure not in loaded:
                loaded[countermeasure] = _countermeasure(record, countermeasure, wanted.device)
            cm = loaded.get(countermeasure)
            truth = _truth(run, spec["truth"]["name"], name, chosen)
            section = Section(name, countermeasure, route, [])
            _Desk(section, out, wanted, cm, corpus.sample_rate).work(halves, chosen, truth, grid=Grid(**spec["grid"]))
            sections.append(section)
    _write(sections, out, wanted, record)
    return sections


class _Desk:
    """One section being made: what was written, and what waits for a score."""

    def __init__(self, section: Section, out: Path, wanted: Wanted, cm: Countermeasure | None, rate: int) -> None:
        self.section, self.out, self.wanted, self.cm, self.rate = section, out, wanted, cm, rate
        self.waiting: list[tuple[Callable[[float], None], np.ndarray]] = []

    def work(self, halves: Sequence[np.ndarray], files: Mapping[str, Path], truth: Path | None, *, grid: Grid) -> None:
        """Write every sound. halves: bona fide (where there is one) and vocoded, aligned, `(N,)`."""
        wanted, section = self.wanted, self.section
        stored = {name: maps.read_map(path).values for name, path in files.items()}
        shape = next(iter(stored.values())).shape
        length = self.cm.n_samples if self.cm else (shape[1] - 1) * grid.hop
        self.wave = audio.fit(halves[-1], length)
        self.twin = audio.fit(halves[0], length) if len(halves) == 2 else None
        self.grid, self.power = grid, power_of(self.wave, grid)
        if wanted.fill == "twin" and self.twin is None:
            raise RunError(f"{section.pair} has no bona fide twin to fill with; --fill silence needs none")
        valid = maps.read_truth(truth).valid if truth else np.ones(shape, bool)
        self.write("original", self.wave, like=None)
        if self.twin is not None:
            self.write("bonafide", self.twin)
            self.ask(self.twin, lambda s: section.facts.update(twin=s))
        if wanted.griffin_lim or wanted.triple:
            self.resynthesis = griffin_lim(np.sqrt(self.power), length, grid)
            self.write("resynthesis", self.resynthesis)
        self.ask(np.zeros(length), lambda s: section.facts.update(silence=s))
        count = round(wanted.share * int(valid.sum()))
        for draw in range(DRAWS if self.cm else 1):
            self.random(draw, count, valid)
        for name, values in stored.items():
            mask = top_mask(values, wanted.share, valid)
            if not mask.any():
                section.notes.append(f"{name}: every cell of its map is equal, so its mask is empty")
            self.pair(name, mask)
            if wanted.triple:
                self.triple(name, mask)
        self.score()

    def random(self, draw: int, count: int, valid: np.ndarray) -> None:
        """One mask of `count` valid cells drawn evenly, always the same ones for a pair."""
        from xaibench.view import derive_seed

        cells = np.random.default_rng([derive_seed("listen", self.section.pair), draw]).permutation(np.flatnonzero(valid))
        mask = np.zeros(valid.shape, bool)
        mask.flat[cells[:count]] = True
        if draw == 0:
            self.pair(RANDOM, mask)
            if self.wanted.triple:
                self.triple(RANDOM, mask)
        for what, make in (("kept", kept), ("removed", removed)):
            for fill, other in self.fills():
                self.ask(make(self.wave, mask, self.grid, fill=other), partial(self.section.add, f"{what}_in_{fill}"))

    def fills(self) -> Iterator[tuple[str, np.ndarray | None]]:
        """Name and waveform of each fill that this pair has."""
        yield "silence", None
        if self.twin is not None:
            yield "twin", self.twin

    def pair(self, method: str, mask: np.ndarray) -> None:
        """The files kept and removed of one mask."""
        for kind, make, cells in (("kept", kept, mask), ("removed", removed, ~mask)):
            fill = self.twin if self.wanted.fill == "twin" else None
            sound = make(self.wave, mask, self.grid, fill=fill)
            if self.wanted.griffin_lim:
                magnitude = np.sqrt(power_of(sound, self.grid) if fill is not None else self.power * cells)
                sound = griffin_lim(magnitude, len(self.wave), self.grid)
            made = self.write(kind, sound, method=method)
            made.share = self.wanted.share
            made.energy = float(self.power[cells].sum() / max(self.power.sum(), 1e-30))
            made.outside = leakage(sound, cells, self.grid) if fill is None else None
            for name, other in self.fills():
                self.ask(make(self.wave, mask, self.grid, fill=other), partial(setattr, made, f"in_{name}"))

    def triple(self, method: str, mask: np.ndarray) -> None:
        """Original, resynthesis and explained audio in one file, each as loud as the first."""
        explained = griffin_lim(np.sqrt(self.power * mask), len(self.wave), self.grid)
        pause = np.zeros(round(PAUSE * self.rate))
        parts = [self.wave.astype(np.float64), *(level_matched(w, self.wave).samples for w in (self.resynthesis, explained))]
        whole = np.concatenate([parts[0], pause, parts[1], pause, parts[2]])
        self.write("triple", whole, method=method, like=None).share = self.wanted.share

    def write(self, kind: str, samples: np.ndarray, *, method: str = "", like: str | None = "utterance") -> Sound:
        """One file, as loud as the utterance; with `like=None` as it is."""
        section = self.section
        made = level_matched(samples, self.wave) if like else None
        loud = made.samples if made else samples
        share = f"-{100 * self.wanted.share:g}pct" if method else ""
        phase = "-griffin-lim" if self.wanted.griffin_lim and method and kind != "triple" else ""
        fill = "-in-twin" if self.wanted.fill == "twin" and kind in ("kept", "removed") else ""
        source, vocoder = maps.split_pair(section.pair)
        parts = [file_part(source), file_part(vocoder), f"{file_part(section.countermeasure)}-{section.route}"]
        parts += ["random-mask" if method == RANDOM else file_part(method)] if method else []
        name = "__".join([*parts, f"{kind}{share}{fill}{phase}"]) + f".{self.wanted.ending}"
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.out}: cannot write here ({error.strerror}); choose another --out") from error
        audio.write(self.out / name, loud, sample_rate=self.rate)
        stored = audio.read(self.out / name, sample_rate=self.rate)  # what is reported is what is in the file
        sound = Sound(name, section.pair, section.countermeasure, section.route, method, kind)
        sound.seconds, sound.peak = len(stored) / self.rate, float(np.abs(stored).max())
        sound.level = level(stored) if stored.any() else None
        sound.silent = not stored.any()
        if made:
            sound.gain, sound.limited = made.gain, made.limited
        section.sounds.append(sound)
        if kind != "triple":
            self.ask(stored, lambda s: setattr(sound, "of_file", s))
        return sound

    def ask(self, wave: np.ndarray, tell: Callable[[float], None]) -> None:
        """Have a waveform scored with the others, and its score told."""
        if self.cm is not None:
            self.waiting.append((tell, np.asarray(wave, dtype=np.float32)))

    def score(self) -> None:
        """Tell everybody who waits."""
        from xaibench.scoring import score_recordings

        if self.cm is not None:
            waves = [wave for _, wave in self.waiting]
            for (tell, _), score in zip(
                self.waiting, score_recordings(self.cm, waves, device=self.wanted.device), strict=True
            ):
                tell(float(score))


def _chosen(files: Mapping[str, Path], methods: tuple[str, ...], where: str) -> dict[str, Path]:
    from xaibench import registry

    for name in methods:
        if name not in files:
            raise RunError(f"{where}: {registry.unknown('map of the method', name, list(files))}")
    return {name: files[name] for name in methods or files}


def _truth(run: Path, truth: str, pair: str, files: Mapping[str, Path]) -> Path | None:
    """The truth on the frames of these maps, for its valid cells; None where none was kept."""
    frames = maps.read_map(next(iter(files.values()))).values.shape[1]
    path = maps.truth_path(run, truth, frames, pair)
    return path if path.exists() else None


def _countermeasure(record: Mapping[str, Any], name: str, device: str) -> Countermeasure:
    """The countermeasure of the run, in eval mode. Raises CheckpointError where its weights are not the run's."""
    from xaibench.harness.known import load_countermeasure
    from xaibench.weights import weights_hash

    spec = record["spec"]
    options = (spec.get("cm_options") or {}).get(name, {})
    module, _, path = load_countermeasure(name, (spec.get("checkpoints") or {}).get(name), options)
    wanted = record.get("countermeasures", {}).get(name, {}).get("weights")
    if wanted and wanted != weights_hash(module):
        raise CheckpointError(
            f"{path}: other weights than those whose maps the run holds, so their scores say nothing of them; put the run's "
            f"checkpoint back, or listen without scores (--no-score)"
        )
    return module.to(device).eval()


def _write(sections: list[Section], out: Path, wanted: Wanted, record: Mapping[str, Any]) -> None:
    """The table, the facts and the page."""
    import pandas as pd

    from xaibench.leaderboard.writing import plain
    from xaibench.site import shell

    rows = [asdict(sound) for section in sections for sound in section.sounds]
    table = pd.DataFrame(rows, columns=[f.name for f in fields(Sound)])
    shell.write(out / "listen.csv", csv_text(table))
    facts = {
        "data": record["spec"]["data"],
        "grid": record["spec"]["grid"],
        "wanted": {k: v for k, v in asdict(wanted).items() if k != "device"},
        "scores": "log-odds, higher = more bona fide",
        "kinds": _KINDS,
        "sections": [asdict(section) for section in sections],
    }
    shell.write(out / "listen.json", json.dumps(plain(facts), indent=2, allow_nan=False) + "\n")
    shell.write(out / "index.html", page(sections, wanted))


def page(sections: list[Section], wanted: Wanted) -> str:
    """The page of players: one file, beside the sounds. A table a section, methods by what their kept cells carry."""
    from xaibench import __version__
    from xaibench.site import shell

    views = []
    for section in sections:
        fill = "twin" if section.find("bonafide") else "silence"
        lines: list[dict[str, Any]] = []
        for method in dict.fromkeys(s.method for s in section.sounds if s.method):
            files = {kind: section.find(kind, method) for kind in ("kept", "removed", "triple")}
            carried = {f: section.carried(files["kept"], f) for f in FILLS}
            lines.append({"method": method, **files, "carried": carried})
        first = [line for line in lines if line["method"] == RANDOM]
        rest = [line for line in lines if line["method"] != RANDOM]
        rest.sort(key=lambda line: -(line["carried"][fill] if line["carried"][fill] is not None else -np.inf))
        views.append({"it": section, "lines": [*first, *rest], "fill": fill, "random": section.random(fill)})
    return shell.render(
        "listen.html.j2", inline=True, title="Listen to an explanation", sections=views, wanted=wanted, random=RANDOM,
        kinds=_KINDS, footer=f"Made by xaibench {__version__} listen. Files and numbers: listen.csv, listen.json.",
    )  # fmt: skip
