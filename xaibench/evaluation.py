"""Evaluate a countermeasure on a data set of any size, or a score file that is already there.

`evaluate_files` streams recordings and appends to `OUT/scores.txt.part`, the 2019 layout of `xaibench.scorefile`; the file
becomes `OUT/scores.txt` when every utterance is through. The same call in the same folder continues. `evaluate_scores`
turns a score file into `evaluation.json`, `evaluation.csv` and `det.png` (`xaibench.detection_table`, `xaibench.det`).

Recordings are scored as in `xaibench.scoring`: the mean log-odds of half-overlapping windows over the whole of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from xaibench import audio, reading
from xaibench.detection_table import Evaluation, collect, collect_asv, summary
from xaibench.errors import AudioError, RunError, XaibenchError
from xaibench.files import write_text
from xaibench.scorefile import Trial, format_trial, read_asv, read_asv_2021, read_keys, read_trials
from xaibench.tables import csv_text
from xaibench.types import Utterance

if TYPE_CHECKING:
    import torch

    from xaibench.protocols import Countermeasure

SCORES, FAILURES, ABOUT = "scores.txt", "failures.txt", "scores.json"


@dataclass(frozen=True)
class Progress:
    """How far `evaluate_files` is: utterances seen, of these scored now, scored in an earlier call, and failed."""

    seen: int
    scored: int
    kept: int
    failed: int
    message: str = ""  # of a recording that failed, else ""


def needs_vocoder(utterances: Iterable[Utterance]) -> bool:
    """Whether two utterances share a source, so that a name needs the vocoder to tell twins apart."""
    seen: set[str] = set()
    for u in utterances:
        if u.source in seen:
            return True
        seen.add(u.source)
    return False


def survey(utterances: Iterable[Utterance], *, split: str, limit: int | None = None) -> int:
    """How many utterances of a split there are to score, of the first `limit`. Reads them all, keeps none.

    Raises RunError naming the splits there are, if it has none.
    """
    count, others = 0, set()
    for u in utterances:
        if u.split == split:
            count += 1
        else:
            others.add(u.split)
    if not count:
        raise RunError(f"no files in the split {split!r}; the data set has {', '.join(sorted(others)) or 'no files at all'}")
    return count if limit is None else min(count, limit)


def utterance_name(utterance: Utterance, *, with_vocoder: bool) -> str:
    """The name in a score file: `source` where it is one file's own (LA_E_1234567), else `source/vocoder`, as `Pair.id`.

    The stem of the path will not do: twins often lie under one name in a folder a vocoder. White space, which divides the
    columns of a score file, is written as in an address: "two words" is two%20words.
    """
    return _word(f"{utterance.source}/{utterance.vocoder}" if with_vocoder else utterance.source)


def _word(text: str) -> str:
    return "".join(quote(letter) if letter.isspace() else letter for letter in text)


def evaluate_files(
    cm: Countermeasure,
    utterances: Iterable[Utterance],
    out: Path,
    *,
    sample_rate: int,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
    on_error: str = "stop",
    with_vocoder: bool = True,
    about: Mapping[str, Any] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Score every utterance; returns `OUT/scores.txt`.

    utterances: any iterable; it is read once, and only names are remembered (about 0.1 kB each), never audio beyond
    `batch_size` recordings, or fewer when they are long. sample_rate: of the data set, in Hz. batch_size: windows a forward
    pass. on_error: "stop" at a recording that cannot be read or gets no finite score, or "skip" it; those skipped are in
    `OUT/failures.txt`, are tried again by the next call, and `evaluate_scores` counts them. with_vocoder: see
    `utterance_name`; False where every source is one file. about: what is being scored (countermeasure, data set, split),
    kept beside the scores with the hash of the weights. report: called a batch at a time and for each failure.

    A continued evaluation forms other batches, which may move a score in its last digits (1e-6).

    Raises AudioError for a recording that fails under "stop"; RunError when the folder cannot be written, holds scores of
    something else or of utterances that are not in this set, when a name comes twice, when there is nothing to score, or
    when everything failed; XaibenchError for a damaged score file there and for a name that is empty.
    """
    from xaibench.scoring import asking, score_recordings
    from xaibench.weights import weights_hash

    if on_error not in ("stop", "skip"):
        raise RunError(f"on_error {on_error!r}, expected 'stop' or 'skip'")
    if batch_size < 1:
        raise RunError(f"batch_size {batch_size}, expected at least 1")
    if cm.sample_rate != sample_rate:
        raise RunError(
            f"the countermeasure works at {cm.sample_rate} Hz, the data set is sampled at {sample_rate} Hz; resample its "
            f"files (soxr, sox -r) into another folder and index that, or take a countermeasure of its rate"
        )
    cm.eval()
    facts = {
        "weights": weights_hash(cm),
        "sample_rate": cm.sample_rate,
        "n_samples": cm.n_samples,
        "with_vocoder": with_vocoder,
    }
    batch: list[tuple[Trial, np.ndarray]] = []
    seen: set[str] = set()
    kept = 0
    log = _ScoreLog(Path(out), {**(about or {}), **facts})

    def tell(message: str = "") -> None:
        report(Progress(len(seen), log.added, kept, log.failed, message))

    def fail(name: str, error: AudioError) -> None:
        if on_error == "stop":
            raise error
        log.fail(name, str(error))
        tell(str(error))

    def flush() -> None:
        if not batch:
            return
        more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
        with asking("the countermeasure", batch[0][0].utterance + more):
            scores = score_recordings(cm, [samples for _, samples in batch], device=device, batch_size=batch_size)
        trials = [Trial(t.utterance, t.attack, float(s)) for (t, _), s in zip(batch, scores, strict=True)]
        batch.clear()
        log.add(t for t in trials if math.isfinite(t.score))
        for trial in trials:
            if not math.isfinite(trial.score):
                why = "is its audio silent, or are the weights damaged?"
                fail(trial.utterance, AudioError(f"{trial.utterance}: score {trial.score}; {why}"))
        tell()

    for utterance in utterances:
        name = utterance_name(utterance, with_vocoder=with_vocoder)
        if name in seen:
            raise RunError(f"{utterance.path}: a second utterance {name!r}; {_hint(with_vocoder)}")
        seen.add(name)
        if name in log.before:
            kept += 1
            continue
        trial = Trial(name, _word(utterance.vocoder), 0.0)  # its score comes with the batch
        format_trial(trial)  # a name that no score file can hold is found out before the work is done
        try:
            samples = audio.read(utterance.path, sample_rate=sample_rate)
        except AudioError as error:
            flush()  # what was read before it is not lost
            fail(name, error)
            continue
        batch.append((trial, samples))
        if len(batch) >= batch_size or sum(len(s) for _, s in batch) >= batch_size * cm.n_samples:
            flush()
    flush()
    _check_done(Path(out), seen, log)
    tell()
    return log.finish()


def _hint(with_vocoder: bool) -> str:
    return "is it listed twice?" if with_vocoder else "sources are shared by twins here, names need the vocoder"


def _check_done(out: Path, seen: set[str], log: _ScoreLog) -> None:
    if not seen:
        raise RunError("no utterances to score; does the data set have this split?")
    if log.failed == len(seen):
        raise RunError(f"none of {len(seen)} recordings could be scored; the reasons are in {out / FAILURES}")
    stray = log.before - seen
    if stray:
        raise RunError(
            f"{out}: holds scores of {len(stray)} utterances that are not in this set ({min(stray)!r}); choose another --out"
        )


class _ScoreLog:
    """`scores.txt.part` while it grows: what an earlier call wrote, new lines, failures, and the rename at the end."""

    def __init__(self, out: Path, about: Mapping[str, Any]) -> None:
        self.path, self.part, self.failures = out / SCORES, out / f"{SCORES}.part", out / FAILURES
        self.added = self.failed = 0
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._check_about(out / ABOUT, json.loads(json.dumps(about, default=str)))
            _drop_torn_line(self.part)
            # A finished file is opened again only if an utterance is missing from it, see `add`.
            source = self.part if self.part.exists() else self.path
            filled = source.exists() and source.stat().st_size > 0
            self.before = frozenset(t.utterance for t in read_trials(source)) if filled else frozenset()
            self.failures.unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{out}: cannot write here ({error.strerror}); choose another --out") from error

    def _check_about(self, path: Path, about: dict[str, Any]) -> None:
        if not path.exists():
            if self.part.exists() or self.path.exists():
                raise RunError(f"{path.parent}: holds scores, but no {ABOUT} that says of what; choose another --out")
            write_text(path, json.dumps(about, indent=2) + "\n")
            return
        known = _about(path)
        for key in sorted({*about, *known}):
            if known.get(key) != about.get(key):
                raise RunError(
                    f"{path.parent}: holds scores of another evaluation ({key} was {known.get(key)!r}, is "
                    f"{about.get(key)!r}); choose another --out"
                )

    def add(self, trials: Iterable[Trial]) -> None:
        """Append, and hand it to the system, so that a killed process loses nothing."""
        try:
            if self.path.exists() and not self.part.exists():
                os.replace(self.path, self.part)
            with self.part.open("a", encoding="utf-8", newline="\n") as file:
                for trial in trials:
                    file.write(format_trial(trial))
                    self.added += 1
        except OSError as error:
            raise RunError(
                f"{self.part}: could not be written ({error.strerror}); scores before are safe, run again to continue"
            ) from error

    def fail(self, name: str, message: str) -> None:
        with self.failures.open("a", encoding="utf-8", newline="\n") as file:
            file.write(f"{name}\t{' '.join(message.split())}\n")
        self.failed += 1

    def finish(self) -> Path:
        if self.part.exists():
            with self.part.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.path)
        return self.path


def _about(path: Path) -> dict[str, Any]:
    return reading.json_object(path, RunError, hint="choose another --out")


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a killed process left without its end."""
    if not path.exists():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def evaluate_scores(
    scores: Path,
    out: Path,
    *,
    keys: Path | None = None,
    subset: str | None = None,
    by: str = "attack",
    asv_scores: Path | None = None,
    asv_keys: Path | None = None,
    title: str = "",
) -> Evaluation:
    """Evaluate a score file: writes `evaluation.json`, `evaluation.csv` and `det.png` to the folder `out`.

    scores: 2019 or 2021 layout. keys, subset, by: see `xaibench.scorefile`; a 2021 file needs keys. asv_scores: the
    organisers' file; asv_keys: the ASV folder's `trial_metadata.txt`, for those of 2021. What `evaluate_files` skipped
    (`failures.txt` beside the scores) is counted in `skipped`, and what it scored is in `scored`.

    Raises XaibenchError, naming file and line, for what is wrong in a file; RunError when `out` cannot be written.
    """
    from xaibench.det import draw

    scores, out = Path(scores), Path(out)
    known = read_keys(Path(keys), by=by) if keys else None
    gathered = collect(read_trials(scores, keys=known, subset=subset))
    asv = None
    if asv_scores:
        stream = read_asv_2021(Path(asv_scores), Path(asv_keys), subset=subset) if asv_keys else read_asv(Path(asv_scores))
        asv = collect_asv(stream)
        have = {"target": asv.target.size, "nontarget": asv.nontarget.size, "spoof": len(asv.attacks)}
        missing = [key for key, count in have.items() if not count]
        if missing:
            raise XaibenchError(
                f"{asv_scores}: no {' and no '.join(missing)} scores; a t-DCF needs target, nontarget and spoof trials of "
                f"one ASV system. Is it the whole file, and of this split?"
            )
    try:
        found = summary(gathered, asv=asv)
    except XaibenchError as error:
        raise XaibenchError(f"{scores}: {error}") from error
    ours = scores.name == SCORES and (scores.parent / ABOUT).is_file()
    failures = scores.parent / FAILURES
    skipped = [line for _, line in reading.lines(failures, RunError)] if ours and failures.is_file() else []
    facts = {
        "scores": scores.name,
        "scored": _about(scores.parent / ABOUT) if ours else None,
        "skipped": len(skipped),
        "skipped_first": [line.split("\t")[0] for line in skipped[:10]],
        **found.facts,
    }
    write_text(out / "evaluation.json", json.dumps(facts, indent=2, allow_nan=False) + "\n")
    write_text(out / "evaluation.csv", csv_text(found.table))
    draw(gathered.bonafide, gathered.attacks, out / "det.png", title=title)
    return Evaluation(facts, found.table)
