"""From the folders of a data set to its manifest: read, hash, align and count every file, streaming and resumable.

`index` walks a layout's entries. Of each file it keeps the length, the sha256 and, in a paired set, how late it is against
its bona fide twin (`xaibench.datasets.align`). OUT gets NAME.csv and NAME.toml (read by `xaibench.manifest`), NAME.index
(what is known of every file: a later run reads only what changed), NAME.roots.json (where the files were) and, where
files or lines were left out, NAME.problems.txt (all of them, one a line). The table is
written to NAME.csv.part and renamed when all is well, so that an old manifest stays whole until the new one is.

Memory does not grow with the number of files. A run that was stopped, or killed, is continued by the same call, and gives
the same bytes as one that was not.

In the table, `n_samples` of a bona fide file is its length; of a vocoded file in a paired set, the length of what it has in
common with its twin once its lag is removed (`align.overlap`). `lag` is in samples, positive where the vocoded file is late.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from xaibench import audio, reading
from xaibench.datasets import align
from xaibench.datasets.layout import AUDIO_ENDINGS, MAIN, Entry, Layout, Problem
from xaibench.datasets.store import Facts, Store
from xaibench.errors import AudioError, ManifestError, RunError
from xaibench.files import write_text
from xaibench.manifest import COLUMNS, FURTHER_COLUMNS, LARGEST_MANIFEST, SPLITS, check_names, format_segments, sha256_of
from xaibench.reading import shown
from xaibench.tables import csv_writer

NAMED = 5  # problems and further files that a report names
LABEL_SLACK = 0.02  # s: a last label may end this much after its recording (annotation is rounded)


@dataclass(frozen=True)
class Report:
    """What an index run found.

    read and kept: files read in this run, and taken over from an earlier one. splits: files per split.
    problems: files and lines left out (`on_error="skip"`); extra: audio files beside the indexed ones that nothing names.
    late: vocoded files with a lag, the largest of which is `latest` samples; unlike: pairs whose spectra hardly correlate.
    attacks: files per vocoder or attack, "bonafide" among them. The `named` ones are the first few of each; all problems are
    in NAME.problems.txt beside the manifest.
    """

    name: str
    manifest: Path
    files: int
    read: int
    kept: int
    splits: Mapping[str, int]
    problems: int = 0
    named_problems: tuple[str, ...] = ()
    extra: int = 0
    named_extra: tuple[str, ...] = ()
    late: int = 0
    latest: int = 0
    unlike: int = 0
    named_unlike: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    attacks: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Tally:
    read: int = 0
    kept: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    bonafide: Counter[str] = field(default_factory=Counter)
    problems: int = 0
    named_problems: list[str] = field(default_factory=list)
    late: int = 0
    latest: int = 0
    unlike: int = 0
    named_unlike: list[str] = field(default_factory=list)


def index(
    layout: Layout,
    roots: Mapping[str, Path],
    out: Path,
    *,
    on_error: str = "stop",
    verify: bool = False,
    report: Callable[[int, str], None] | None = None,
    limit: int | None = None,
) -> Report:
    """Index a data set; write its manifest to `out`.

    roots:    `{"main": folder}`, with the layout's further roots; "main" may be a file (a CSV of pairs).
    on_error: "stop" raises at the first file or line that is wrong; "skip" leaves it out (with the twins of a bona fide
              file), counts it and goes on, and makes a count that differs from the published one a note.
    verify:   read every file again, also those whose size and time of change are as they were.
    report:   called with `(files so far, name of the file)`.
    limit:    take only the layout's first `limit` entries; published counts are then not compared, and a manifest of more
              files is not replaced.

    Raises ManifestError, naming file and line, for what is wrong and not to be skipped; AudioError and OSError never (they
    become one).
    """
    if on_error not in ("stop", "skip"):
        raise ManifestError(f"on_error is 'stop' or 'skip', got {on_error!r}")
    roots = _checked_roots(layout, roots)
    out = Path(out)
    if not _in_utf8(str(out.absolute())):
        raise ManifestError(f"{str(out)!a}: the folder's name is not UTF-8; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ManifestError(f"{out}: cannot be made ({error.strerror}); choose another --out") from error
    _check_limit(layout, out, limit)
    try:
        return _index(layout, roots, out, on_error=on_error, verify=verify, report=report, limit=limit)
    except OSError as error:
        raise ManifestError(f"{error.filename or out}: cannot be read or written ({error.strerror or error})") from error
    except sqlite3.DatabaseError as error:  # a page of it is damaged, or it is of another version
        store = out / f"{layout.name}.index"
        raise ManifestError(f"{store}: damaged ({error}); delete it: only the next run takes longer") from error


def _check_limit(layout: Layout, out: Path, limit: int | None) -> None:
    """Raise ManifestError where a trial would replace the manifest of more files."""
    if limit is None:
        return
    if limit < 1:
        raise ManifestError(f"a limit of {limit} files, expected at least 1")
    known = out / f"{layout.name}.toml"
    try:
        there = os.path.isfile(known)
        table = reading.toml_table(known, ManifestError, what="manifest", most=LARGEST_MANIFEST) if there else {}
        files = table.get("files", 0)
    except ManifestError:
        files = 0  # what is damaged is replaced
    if isinstance(files, int) and files > limit:
        raise ManifestError(
            f"{known}: holds {files} files, a trial of {limit} would replace it; choose another folder for the trial (--out)"
        )


def _index(
    layout: Layout,
    roots: dict[str, Path],
    out: Path,
    *,
    on_error: str,
    verify: bool,
    report: Callable[[int, str], None] | None,
    limit: int | None,
) -> Report:
    store = Store(out / f"{layout.name}.index")
    try:
        run = _Run(
            layout, roots, store, stop=on_error == "stop", verify=verify, problems=out / f"{layout.name}.problems.txt"
        )
        part = out / f"{layout.name}.csv.part"
        part.unlink(missing_ok=True)
        with part.open("x", encoding="utf-8", newline="") as file:  # a new file: a link that lies there is not followed
            write = csv_writer(file)
            write((*COLUMNS, *FURTHER_COLUMNS))
            for row in run.rows(limit):
                write(row)
                if report is not None:
                    report(run.tally.read + run.tally.kept, str(row[4]))
        notes = _count_notes(layout, run.tally, strict=on_error == "stop") if limit is None else _limit_notes(limit)
        extra = _extra(store, _base(roots[MAIN])) if limit is None else (0, ())
        manifest = _finish(layout, roots, out, part, run)
        store.drop_earlier() if limit is None else store.commit()
    finally:
        store.close()
    t = run.tally
    return Report(
        name=layout.name,
        manifest=manifest,
        files=t.read + t.kept,
        read=t.read,
        kept=t.kept,
        splits={split: t.splits[split] for split in SPLITS if t.splits[split]},
        problems=t.problems,
        named_problems=tuple(t.named_problems),
        extra=extra[0],
        named_extra=extra[1],
        late=t.late,
        latest=t.latest,
        unlike=t.unlike,
        named_unlike=tuple(t.named_unlike),
        notes=notes,
        attacks={name: t.attacks[name] for name in sorted(t.attacks, key=lambda name: (name != "bonafide", name))},
    )


def _limit_notes(limit: int) -> tuple[str, ...]:
    return (f"a trial of the first {limit} files (--limit); without it the whole set is indexed, and these are kept",)


def _base(root: Path) -> Path:
    return root if root.is_dir() else root.parent


def _checked_roots(layout: Layout, roots: Mapping[str, Path]) -> dict[str, Path]:
    known = (MAIN, *layout.further_roots, *layout.optional_roots)
    for name in roots:
        if name not in known:
            raise ManifestError(f"data set {layout.name!r} has no root {name!r}; it has {', '.join(known)}")
    for name in (MAIN, *layout.further_roots):
        if name not in roots:
            option = "--root DIR" if name == MAIN else f"--root {name}=DIR"
            raise ManifestError(f"data set {layout.name!r} needs its {name} root, a folder: {option}")
    for name, root in roots.items():
        if not os.path.exists(root):
            raise ManifestError(f"{root}: no such folder (the {name} root of {layout.name!r})")
        if not _in_utf8(str(Path(root).absolute())):
            raise ManifestError(f"{str(root)!a}: the folder's name is not UTF-8, which its manifest is; rename it")
    return {name: Path(root).absolute() for name, root in roots.items()}


class _Run:
    """One walk over the entries. `rows` gives the table's rows and counts into `tally`."""

    def __init__(
        self, layout: Layout, roots: Mapping[str, Path], store: Store, *, stop: bool, verify: bool, problems: Path
    ) -> None:
        self.problems = problems
        problems.unlink(missing_ok=True)
        self.layout, self.roots, self.store, self.stop, self.verify = layout, roots, store, stop, verify
        self.bases = {name: _base(root).resolve() for name, root in roots.items()}
        self.rate = layout.sample_rate  # 0 until the first file has told it
        self.rate_of = ""  # that file
        self.tally = _Tally()
        self.table_hash = hashlib.sha256()
        self.last: tuple[str, np.ndarray] | None = None  # sha256 and samples of the last bona fide file read

    def rows(self, limit: int | None) -> Iterator[tuple[object, ...]]:
        for entry in islice(self.layout.scan(self.roots), limit):
            if isinstance(entry, Problem):
                self._problem(f"{entry.where}: {entry.message}")
                continue
            if not _in_utf8(entry.path + entry.source):
                self._problem(f"{entry.path!a}: the name is not UTF-8; rename the file")
                continue
            try:
                facts, kept = self._facts(entry)
                self._check_labels(entry, facts)
            except (ManifestError, AudioError, OSError) as error:
                self.store.put(self._left_out(entry))
                text = f"{error.filename}: cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
                place = f"{entry.where}: " if entry.where and not text.startswith(entry.where) else ""
                self._problem(f"{place}{text}")
                continue
            self.store.put(facts)
            yield self._row(entry, facts, kept)

    def _problem(self, message: str) -> None:
        if self.stop:
            raise ManifestError(
                f"{message} ({self.tally.read + self.tally.kept} files are indexed and kept; --on-error skip leaves such "
                f"files out and counts them)"
            )
        self.tally.problems += 1
        with self.problems.open("a", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(" ".join(message.split()) + "\n")
        if len(self.tally.named_problems) < NAMED:
            self.tally.named_problems.append(message)

    def _check_labels(self, entry: Entry, facts: Facts) -> None:
        """Raise ManifestError where segments go beyond the recording, or labels that should cover it do not."""
        if not entry.segments:
            return
        duration = facts.frames / facts.rate
        length, slack = entry.labelled or (max(end for _, end, _ in entry.segments), LABEL_SLACK)
        if length > duration + slack or (entry.labelled and length < duration - slack):
            raise ManifestError(
                f"{entry.path}: labelled to {length:.2f} s, and the recording is {duration:.2f} s long; do labels and audio "
                f"belong to one version of the set?"
            )

    def _left_out(self, entry: Entry) -> Facts:
        """Kept so that the file is not called unnamed, and its twins learn why they have no half."""
        known = self.store.now(entry.root, entry.path)
        if known is not None:
            return known  # a duplicate: the first stays
        facts = Facts(entry.root, entry.path, 0, 0, place=entry.where, folder=entry.path.rpartition("/")[0])
        if self.store.named(entry.source, entry.attack) is not None:
            return facts  # another file under the same names: the first keeps them
        return replace(facts, source=entry.source, attack=entry.attack)

    def _facts(self, entry: Entry) -> tuple[Facts, bool]:
        """Of one file, and whether they are an earlier run's. Raises ManifestError or AudioError."""
        where = entry.where or entry.path
        check_names(where, {"utt_id": entry.source, "vocoder": entry.attack, "path": entry.path})
        if entry.split not in SPLITS:
            raise ManifestError(f"{where}: split {shown(entry.split)}, expected one of {', '.join(SPLITS)}")
        self._check_first(entry, where)
        path = self._place(entry, where)
        half = self._half(entry, where)
        stat = path.stat()
        known = self.store.earlier(entry.root, entry.path)
        if known and known.sha256 and not self.verify and (known.size, known.mtime) == (stat.st_size, stat.st_mtime_ns):
            if not self.rate:
                self.rate, self.rate_of = known.rate, entry.path
            if known.rate == self.rate and known.twin == (half.sha256 if half else ""):
                return _named(known, entry), True
        return self._read(entry, path, stat, half), False

    def _check_first(self, entry: Entry, where: str) -> None:
        """Raise ManifestError if this run has met the name or the file before."""
        same = self.store.named(entry.source, entry.attack)
        if same is not None:
            raise ManifestError(f"{where}: {entry.attack} of {entry.source!r} is already there: {same.place or same.path}")
        same = self.store.now(entry.root, entry.path)
        if same is not None:
            raise ManifestError(
                f"{where}: the file {shown(entry.path, 300)} is already there as {same.attack} of {same.source!r}: "
                f"{same.place or same.path}"
            )

    def _place(self, entry: Entry, where: str) -> Path:
        base, name = self.bases[entry.root], shown(entry.path, 300)
        path = base / entry.path
        if Path(entry.path).is_absolute():
            raise ManifestError(f"{where}: path {name} is not below the root {base}; move the table above the files")
        if os.path.isdir(path):
            raise ManifestError(f"{path}: a directory, expected an audio file")
        if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
            raise ManifestError(f"{path}: missing; is the {entry.root} root right, and the archive unpacked whole?")
        try:
            reading.Root(base)(entry.path)
        except ValueError as error:
            raise ManifestError(f"{where}: path {error}; is a folder above it the root?") from error
        return path

    def _half(self, entry: Entry, where: str) -> Facts | None:
        """The bona fide twin of a vocoded file in a paired set; None for any other file."""
        if not self.layout.paired or entry.attack == "bonafide":
            return None
        half = self.store.named(entry.source, "bonafide")
        if half is None:
            raise ManifestError(f"{where}: {entry.attack} of {entry.source!r} has no bona fide twin")
        if not half.sha256:
            raise ManifestError(f"{where}: the bona fide twin of {shown(entry.path, 300)}, {half.path}, was left out")
        if (half.split, half.speaker) != (entry.split, entry.speaker):
            raise ManifestError(
                f"{where}: {entry.attack} of {entry.source!r} is {entry.split} of speaker {shown(entry.speaker)}, its bona "
                f"fide twin {half.split} of {shown(half.speaker)}; twins share both"
            )
        return half

    def _read(self, entry: Entry, path: Path, stat: os.stat_result, half: Facts | None) -> Facts:
        if not self.rate:
            self.rate, self.rate_of = audio.rate_of(path), entry.path
        try:
            samples = audio.read(path, sample_rate=self.rate)
        except AudioError as error:
            if not self.rate_of or "sampled at" not in str(error):
                raise
            raise AudioError(f"{error}; {self.rate} Hz is the rate of the first file, {self.rate_of}") from error
        digest = sha256_of(path)
        facts = Facts(
            root=entry.root,
            path=entry.path,
            size=stat.st_size,
            mtime=stat.st_mtime_ns,
            sha256=digest,
            rate=self.rate,
            frames=len(samples),
            folder=entry.path.rpartition("/")[0],
        )
        if half is not None:
            real = self._samples(half)
            found = align.measure(real, samples, self.rate)
            likeness = None if np.isnan(found.likeness) else found.likeness
            # Of another utterance, or of silence, a lag means nothing.
            lag = found.samples if likeness is not None and likeness >= align.TWINS else 0
            facts = replace(facts, lag=lag, likeness=likeness, twin=half.sha256)
        elif self.layout.paired:
            self.last = (digest, samples)
        return _named(facts, entry)

    def _samples(self, half: Facts) -> np.ndarray:
        if self.last is None or self.last[0] != half.sha256:
            path = self.bases[half.root] / half.path
            self.last = (half.sha256, audio.read(path, sample_rate=self.rate))
        return self.last[1]

    def _row(self, entry: Entry, facts: Facts, kept: bool) -> tuple[object, ...]:
        t = self.tally
        t.read, t.kept = t.read + (not kept), t.kept + kept
        t.splits[entry.split] += 1
        t.attacks[entry.attack] += 1
        t.bonafide[entry.split] += entry.attack == "bonafide"
        n_samples = facts.frames
        if facts.twin:
            half = self.store.named(entry.source, "bonafide")
            n_samples = align.overlap_length(half.frames if half else 0, facts.frames, facts.lag)
            t.late += facts.lag != 0
            t.latest = max(t.latest, facts.lag, key=abs)
            if facts.likeness is None or facts.likeness < align.TWINS:
                t.unlike += 1
                if len(t.named_unlike) < NAMED:
                    t.named_unlike.append(
                        f"{entry.path}: silent, or shorter than 40 ms"
                        if facts.likeness is None
                        else f"{entry.path}: its log-mel spectrum correlates {facts.likeness:.2f} with its twin's; another "
                        "utterance, or more than 50 ms late or early?"
                    )
        return (
            entry.source,
            entry.speaker,
            entry.split,
            entry.attack,
            entry.path,
            n_samples,
            facts.sha256,
            "" if entry.root == MAIN else entry.root,
            facts.lag if facts.twin else "",
            format_segments(entry.segments),
        )


def _named(facts: Facts, entry: Entry) -> Facts:
    return replace(
        facts, source=entry.source, attack=entry.attack, split=entry.split, speaker=entry.speaker, place=entry.where
    )


def _in_utf8(name: str) -> bool:
    """Whether a file's name is UTF-8: Python holds other bytes as halves of surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _count_notes(layout: Layout, tally: _Tally, *, strict: bool) -> tuple[str, ...]:
    """Where the counts differ from the published ones. Raises ManifestError for the first if `strict`."""
    found = {**tally.splits, "all": sum(tally.splits.values())}
    notes: list[str] = []
    for split, number in layout.expected.items():
        if found.get(split, 0) != number:
            what = "the whole set" if split == "all" else f"the split {split}"
            notes.append(f"{what} has {found.get(split, 0):,} files, its authors publish {number:,}")
    if notes and strict:
        raise ManifestError(
            f"{layout.name}: {'; '.join(notes)}; is the archive unpacked whole? --on-error skip indexes what there is (the "
            f"{found['all']:,} files read now are kept and not read again)"
        )
    return tuple(notes)


def _extra(store: Store, base: Path) -> tuple[int, tuple[str, ...]]:
    """Audio files beside the indexed ones that no entry names: how many, and the first few in order."""
    count = 0
    named: list[str] = []
    for path in store.unnamed(MAIN, base, AUDIO_ENDINGS):
        count += 1
        named = sorted([*named, path])[:NAMED]
    return count, tuple(named)


def _finish(layout: Layout, roots: Mapping[str, Path], out: Path, part: Path, run: _Run) -> Path:
    """Put the table and its manifest in place. Each is renamed whole; the table's hash ties them together."""
    rate = run.rate
    if not run.tally.read + run.tally.kept:
        why = f"; {run.tally.problems} left out: {'; '.join(run.tally.named_problems)}" if run.tally.problems else ""
        raise ManifestError(f"{roots[MAIN]}: not one file of the data set {layout.name!r}; is --root right?{why}")
    bottom, top = layout.valid_band
    facts = {
        "name": layout.name,
        "title": layout.title,
        "table": f"{layout.name}.csv",
        "table_sha256": sha256_of(part),
        "files": run.tally.read + run.tally.kept,
        "utterances": sum(run.tally.bonafide.values()),
        "splits": {split: n for split, n in run.tally.bonafide.items() if n},
        "paired": layout.paired,
        "sample_rate": rate,
        "valid_band": [float(bottom), float(min(top, rate / 2))],
        "held_out": list(layout.held_out),
        "kinds": dict(layout.kinds),
        "roots": list(roots),
        "checked": layout.checked,
        "licence": layout.licence,
        "citation": layout.citation,
        "source": layout.source,
    }
    manifest = out / f"{layout.name}.toml"
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in facts.items())
    _write(out / f"{layout.name}.roots.json", json.dumps({name: str(root) for name, root in roots.items()}, indent=1) + "\n")
    os.replace(part, out / f"{layout.name}.csv")
    _write(
        manifest,
        "# Written by `xaibench data index`. The counts of `splits` and `utterances` are of bona fide files.\n" + text,
    )
    return manifest


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k, ensure_ascii=False)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, text: str) -> None:
    try:
        write_text(path, text)
    except RunError as error:
        raise ManifestError(str(error)) from error
