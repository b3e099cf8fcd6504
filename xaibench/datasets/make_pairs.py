"""Pairs from one's own recordings: each through registered vocoders and the chain that made minivoc.

OUT/bonafide/NAME.flac, OUT/VOCODER/NAME.flac (16 kHz, mono, 16 bit) and the manifest OUT/folder.toml, so that OUT can be
opened as the data set `folder`. All versions of a recording go through `xaibench.datasets.chain`: high-pass, low-pass,
fades, level, common noise. OUT/bonafide is written last of a recording's versions, so a recording with all files there is
done, and a stopped run continues where it was.

A recording at another rate is resampled to 16 kHz before all else (soxr, very high quality); of several channels the first
is taken. What a vocoder cannot do (too short, silent, another error) is named, and that recording is left out whole: pairs
with a version missing would make vocoders incomparable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from xaibench import audio, registry
from xaibench.datasets import chain, folder
from xaibench.datasets.index import Report, index
from xaibench.datasets.layout import MAIN
from xaibench.errors import AudioError, ManifestError, PluginError
from xaibench.files import whole
from xaibench.protocols import Vocoder
from xaibench.reading import Root

ENDINGS = (".wav", ".flac", ".mp3", ".ogg")
NAMED = 5  # recordings left out that the answer names


@dataclass(frozen=True)
class Made:
    """made, kept: recordings synthesised now, and found done. left_out: those that could not be, the first few `named`."""

    made: int
    kept: int
    left_out: int
    named: tuple[str, ...]
    index: Report


def make_pairs(
    vocoders: Sequence[str],
    recordings: Path,
    out: Path,
    *,
    report: Callable[[int, str], None] | None = None,
    limit: int | None = None,
) -> Made:
    """Vocode every recording below the folder `recordings` into `out`, and index it.

    vocoders: names of registered vocoders (`xaibench list`). report: called with `(recordings so far, name)`. limit: the
    first so many recordings, sorted by path.

    A recording is named by its path below the folder without the ending, "/" written as "-". Raises PluginError for an
    unknown vocoder, ManifestError for no recordings, two of one name, or an `out` inside `recordings`; never for one bad
    recording.
    """
    loaded = {name: registry.load("vocoders", name) for name in dict.fromkeys(vocoders)}
    recordings, out = Path(recordings), Path(out)
    if not loaded:
        raise ManifestError("no vocoder given; xaibench list shows those there are")
    for name in loaded:
        if name == folder.REAL or "__" in name:
            raise PluginError(f"vocoder {name!r}: a folder of pairs cannot have that name")
    if not recordings.is_dir():
        raise ManifestError(f"{recordings}: no such folder of recordings")
    if out.resolve().is_relative_to(recordings.resolve()):
        raise ManifestError(f"{out}: lies inside {recordings}, and would be vocoded itself; choose another place")
    root = Root(out)
    made = kept = left_out = 0
    named: list[str] = []
    for path in _recordings(recordings, limit):
        name = "-".join(path.relative_to(recordings).with_suffix("").parts)
        targets = {version: _place(root, version, name) for version in (*loaded, folder.REAL)}
        if all(target.exists() for target in targets.values()):
            kept += 1
        else:
            try:
                versions = synthesise(path, name, loaded)
            except (ValueError, AudioError) as error:
                left_out += 1
                if len(named) < NAMED:
                    named.append(f"{path}: {error}" if str(path) not in str(error) else str(error))
                continue
            for version, target in targets.items():
                _write(target, versions[version])
            made += 1
        if report is not None:
            report(made + kept, name)
    if made + kept == 0:
        raise ManifestError(f"{recordings}: not one recording could be vocoded: {'; '.join(named) or 'there is none'}")
    layout = replace(folder.layout, valid_band=chain.PASS_BAND, title=f"Pairs made by {', '.join(loaded)}")
    return Made(made, kept, left_out, tuple(named), index(layout, {MAIN: out}, out))


def synthesise(path: Path, name: str, vocoders: Mapping[str, Vocoder]) -> dict[str, np.ndarray]:
    """All versions of one recording, `{version: (N,) int16}`, "bonafide" among them; `name` seeds noise and polarity.

    Raises AudioError for a recording that cannot be read or vocoded, ValueError for one that is too short or silent.
    """
    real = chain.prepare(_read(path))
    versions = {folder.REAL: real}
    for vocoder, plugin in vocoders.items():
        try:
            versions[vocoder] = np.asarray(plugin.function(real.copy(), chain.SAMPLE_RATE))
        except (PluginError, AudioError):
            raise
        except Exception as error:  # a vocoder is a plugin: whatever it does concerns one recording, not the run
            raise AudioError(f"{path}: vocoder {vocoder!r} failed: {type(error).__name__}: {error}") from error
        if versions[vocoder].shape != real.shape:
            raise AudioError(f"{path}: vocoder {vocoder!r} gave shape {versions[vocoder].shape}, expected {real.shape}")
    return chain.finish(versions, name)


def _read(path: Path) -> np.ndarray:
    samples, rate = audio.read_channels(path)
    return audio.resample(samples[:, 0], rate, chain.SAMPLE_RATE)


def _recordings(top: Path, limit: int | None) -> Iterator[Path]:
    found: dict[str, Path] = {}
    every = sorted(p for p in top.rglob("*") if p.suffix.lower() in ENDINGS and p.is_file())
    for path in every[:limit]:
        name = "-".join(path.relative_to(top).with_suffix("").parts)
        if name in found:
            raise ManifestError(f"{path} and {found[name]} would both be named {name!r}; rename one")
        found[name] = path
        yield path


def _place(root: Root, version: str, name: str) -> Path:
    """Where a version is written. Raises ManifestError where a link leads it out of the folder."""
    try:
        return root(f"{version}/{name}.flac")
    except ValueError as error:
        raise ManifestError(f"{error}; is there a link in it? Choose another --out") from error


def _write(target: Path, samples: np.ndarray) -> None:
    """Whole or not at all: a file cut short by a stop would count as done."""
    with whole(target) as scratch:
        soundfile.write(scratch, samples, chain.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
