"""An explanation as a folder: one page that is one file, the numbers as JSON and CSV, pictures, sounds and maps.

    OUT/explanation.html   the page; pictures and, up to a minute, sounds within it
    OUT/explanation.json   `Explanation.facts`
    OUT/regions.csv        every listed place of every method
    OUT/recording.png, OUT/<attributor>.png
    OUT/recording.wav      what the countermeasure heard; <attributor>_kept.wav, <attributor>_removed.wav as loud as it
    OUT/maps.safetensors   the maps `(F, T)`, and the edges of their axes

Names of methods come from plugins: files get the slug of them, and the page escapes them. `explanation.json` lists what was
written: an explanation in the same folder takes that away first, and nothing else, so that no sound or picture of another
recording lies beside the page.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xaibench import __version__, audio, reading
from xaibench.analysis.pictures import method_picture, recording_picture
from xaibench.analysis.places import covered
from xaibench.errors import RunError
from xaibench.files import in_order, write_bytes, write_text
from xaibench.listen import PEAK, level_matched
from xaibench.site.shell import data_uri, render, slug
from xaibench.tables import csv_writer

if TYPE_CHECKING:
    from xaibench.analysis.explanation import Explanation, MethodMap

PAGE, FACTS = "explanation.html", "explanation.json"
WITHIN = 60.0  # s; longer recordings have their sounds beside the page, not within it
LISTED = 5  # segments that the page names


@dataclass(frozen=True, eq=False)
class Sound:
    """A waveform `(N,)` within full scale, how much louder it was made (dB), and whether the peak allowed no more."""

    file: str
    samples: np.ndarray
    gain: float
    limited: bool = False
    silent: bool = False


def write_folder(found: Explanation, out: Path, *, listen: bool = True) -> Path:
    """Write everything; returns the page. Raises RunError where the folder cannot be written."""
    out = make_folder(out)
    sounds = {s.file: s for s in _sounds(found)} if listen else {}
    pictures = {"recording.png": recording_picture(found)}
    pictures |= {f"{slug(name)}.png": method_picture(found, name) for name in found.maps}
    names = [PAGE, FACTS, "regions.csv", "maps.safetensors", *pictures, *sounds]
    _clear(out)
    write_text(out / FACTS, json.dumps({**found.facts(), "files": sorted(names)}, indent=1, ensure_ascii=False) + "\n")
    for name, content in pictures.items():
        write_bytes(out / name, content)
    for sound in sounds.values():
        audio.write(out / sound.file, sound.samples, sample_rate=found.grid.sample_rate)
    write_text(out / "regions.csv", regions_csv(found))
    _write_maps(found, out / "maps.safetensors")
    return write_text(out / PAGE, page(found, pictures, sounds))


def make_folder(out: Path) -> Path:
    """The folder, made if need be: to be asked before hours of work. Raises RunError where nothing can be written to it."""
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "there is a file of that name" if out.is_file() else error.strerror
        raise RunError(f"{out}: this folder cannot be made ({why}); choose another --out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise RunError(f"{out}: nothing can be written to this folder (no permission); choose another --out")
    return out


def _clear(out: Path) -> None:
    """Take away the files of the explanation that is there; whatever else lies in the folder stays."""
    try:
        listed = reading.json_object(out / FACTS, RunError, hint="choose another --out")["files"]
        old = [out / name for name in listed if Path(name).name == name]  # nothing outside this folder
        for path in old:
            path.unlink(missing_ok=True)
    except (RunError, OSError, ValueError, KeyError, TypeError):
        return  # no explanation, or none that lists its files


def page(found: Explanation, pictures: dict[str, bytes], sounds: dict[str, Sound]) -> str:
    """The page: one file, but for the sounds of recordings of more than a minute, which it looks for beside it."""
    address = {name: name for name in sounds}
    if found.recording.seconds <= WITHIN:
        files = {n: audio.encoded(s.samples, sample_rate=found.grid.sample_rate) for n, s in sounds.items()}
        address = {name: data_uri(content, "audio/flac") for name, content in files.items()}
    return render(
        "explanation.html.j2",
        inline=True,
        title=f"{found.recording.name}: {found.decision.word}, says {found.countermeasure}",
        footer=f"Made by xaibench {__version__}. Scores: log-odds, higher is more bona fide. Maps: positive is for spoof.",
        found=found,
        images={name: data_uri(content, "image/png") for name, content in pictures.items()},
        sounds=sounds,
        address=address,
        chart=window_chart(found) if len(found.windows) > 1 else None,
        caveats=list(caveats(found)),
        listed=LISTED,
        shown={name: _shown(one, found.most) for name, one in found.maps.items()},
    )


def brief(found: Explanation) -> str:
    """The decision, every method's picture and first places, for a notebook."""
    images = {name: data_uri(method_picture(found, name, dpi=90), "image/png") for name in found.maps}
    return render("explanation_brief.html.j2", found=found, images=images, title="")


def caveats(found: Explanation) -> Iterator[str]:
    """What a reader must know before believing any of it."""
    yield found.training()
    yield from found.recording.notes
    if found.repeats > 1:
        yield (
            f"The recording lasts {found.recording.seconds:.2f} s, {found.countermeasure} looks at {found.window_seconds:g} "
            f"s: it was repeated, and the maps of the copies were averaged."
        )
    if found.recording.start:
        yield f"Only a part was read: every time on this page counts from {found.recording.start:g} s of the file."
    yield (
        "There is no truth here: the maps say what moved this score, not where a vocoder was. How far a method can be "
        "trusted is what the benchmark's board measures."
    )
    spoofed = sum(w.score <= found.decision.threshold for w in found.windows)
    if spoofed and not found.decision.spoof:
        yield (
            f"{spoofed} of {len(found.windows)} windows are on the side of spoof although the mean is not: a part of the "
            f"recording may be spoofed, or these windows are wrong."
        )
    if not found.decision.spoof:
        yield "The countermeasure says bona fide. The regions are what speaks for spoof all the same, and was outweighed."


def regions_csv(found: Explanation) -> str:
    """One row a place, most evidence first: s from the start of what was read, Hz, share of the evidence, cells, dB."""
    text = io.StringIO()
    write = csv_writer(text)
    fields = ("start", "end", "low", "high", "share", "cells", "filled", "level")
    write(("recording", "countermeasure", "attributor", "rank", *fields))
    for name, one in found.maps.items():
        for rank, place in enumerate(one.places.found[: found.most], start=1):
            facts = place.facts()
            numbers = [facts[f] if f == "cells" else f"{facts[f]:.6g}" for f in fields]
            write((found.recording.name, found.countermeasure, name, rank, *numbers))
    return text.getvalue()


def window_chart(found: Explanation, *, width: int = 720, height: int = 200) -> dict[str, Any]:
    """Where the lines of the chart of window scores lie, in units of its view box; the template draws it."""
    left, right, top, bottom = 52, width - 8, 12, height - 34
    scores = [w.score for w in found.windows] + [found.decision.threshold]
    low, high = min(scores), max(scores)
    room = 0.1 * (high - low) or 1.0
    low, high = low - room, high + room
    start, end = found.windows[0].start, max(w.end for w in found.windows)

    def x(seconds: float) -> float:
        return round(left + (right - left) * (seconds - start) / (end - start), 2)

    def y(score: float) -> float:
        return round(bottom - (bottom - top) * (score - low) / (high - low), 2)

    return {
        "width": width,
        "height": height,
        "left": left,
        "right": right,
        "bottom": bottom,
        "threshold": y(found.decision.threshold),
        "lines": [(x(w.start), x(w.end), y(w.score), w.score <= found.decision.threshold) for w in found.windows],
        "rows": [(y(s), f"{s:+.1f}") for s in (low + room, high - room)],
        "columns": [(x(s), f"{s:.1f}") for s in np.linspace(start, end, 5)],
        "spoofed": sum(w.score <= found.decision.threshold for w in found.windows),
    }


def _shown(one: MethodMap, most: int) -> dict[str, Any]:
    places = one.places.found
    return {
        "places": places[:most],
        "covered": covered(places, most),
        "segments": {t: s for t, s in one.over_time.segments.items()},
        "blind": sorted({"frequency", "time"} - one.resolves),
    }


def _sounds(found: Explanation) -> Iterator[Sound]:
    """The recording, and of each map with places what is kept and what is removed, as loud as the recording."""
    samples = found.recording.samples.astype(np.float64)
    peak = float(np.abs(samples).max())
    gain = 1.0 if peak <= 1 else PEAK / peak
    original = samples * gain
    yield Sound("recording.wav", original, 20 * np.log10(gain))
    for name, one in found.maps.items():
        if one.empty:
            continue
        for what, wave in (("kept", found.kept(name)), ("removed", found.removed(name))):
            made = level_matched(wave, original)
            yield Sound(f"{slug(name)}_{what}.wav", made.samples, made.gain, made.limited, made.silent)


def _write_maps(found: Explanation, path: Path) -> None:
    from safetensors.numpy import save

    time = found.grid.time(len(found.recording.samples))
    tensors = {f"maps/{name}": np.ascontiguousarray(one.values) for name, one in found.maps.items()}
    tensors |= {"axes/frequency": found.grid.frequency.edges.copy(), "axes/time": time.edges.copy()}
    facts = {"recording": found.recording.name, "countermeasure": found.countermeasure, "xaibench": __version__}
    write_bytes(path, in_order(save(tensors, metadata=facts)))
