"""The rules of data sets: what a run takes for granted of the files, the pairs, the splits and the facts about them.

A data set that embeds its audio is opened as it is. One that reads files of the user's (`--root`, or indexed before) and has
none here says so with a ManifestError, and the rules that need files do not apply. Of the files a sample is read: `PAIRS`
pairs, spread over the data set.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import soundfile

from xaibench import audio
from xaibench.datasets import align
from xaibench.errors import ManifestError, XaibenchError
from xaibench.manifest import SPLITS, pairs, verify
from xaibench.protocols import Corpus, Dataset
from xaibench.testing.restoring import restored
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.snapshots import changed, of_shared
from xaibench.types import Pair, Utterance

#: Pairs whose audio is read.
PAIRS = 12
#: Seconds by which twins may be apart: a frame of the benchmark's grid hears nothing of a quarter of it.
APART = 0.0025


def opened(subject: Subject) -> Corpus:
    """The data set, opened once. Raises NotApplicable where its files are not here."""

    def open_() -> Corpus:
        dataset: Dataset = subject.thing
        try:
            return dataset.open(None)
        except ManifestError as error:
            raise NotApplicable(f"its files are not here: {error}") from error

    return subject.once("corpus", open_)


def sample(subject: Subject) -> list[Pair]:
    """Pairs spread over the data set. Raises NotApplicable without any."""
    found = pairs(opened(subject))
    if not found:
        raise NotApplicable("it has no pairs of bona fide and spoofed speech, and no segments")
    return found[:: -(-len(found) // PAIRS)]


def _some(utterances: tuple[Utterance, ...]) -> tuple[Utterance, ...]:
    return utterances[:: -(-len(utterances) // (2 * PAIRS))]


@rule("dataset", "summary", "It says what it is in a line, and what it needs.")
def summary(subject: Subject) -> Seen:
    """What `xaibench data info` shows of it, beside licence and citation."""
    dataset: Dataset = subject.thing
    lines = dataset.summary.strip().splitlines()
    if len(lines) != 1 or len(lines[0]) > 120:
        raise Broken(f"its summary has {len(lines)} lines, {len(dataset.summary)} characters; expected one line of 1 to 120")
    return Seen(len(lines[0]), lines[0])


@rule("dataset", "opens", "It opens without a folder, or says which folder or command it needs.")
def opens(subject: Subject) -> Seen:
    """Also that opening changes nothing of the process."""
    with restored():
        around = of_shared()
        try:
            corpus = subject.once("corpus", lambda: subject.thing.open(None))
        except ManifestError as error:
            if "--root" not in str(error) and "/" not in str(error):
                raise Broken(
                    f"without its files it says {str(error)!r}; expected the folder it looked in, or --root"
                ) from error
            return Seen(None, f"its files are not here, and it says so: {error}")
        except Exception as error:
            raise Broken(
                f"without a folder it raises {type(error).__name__} ({error}); expected a Corpus, or a ManifestError that "
                "names the folder it looked in"
            ) from error
        moved = changed(around, of_shared())
    if not isinstance(corpus, Corpus) or not corpus.utterances:
        raise Broken(
            f"it opens as {type(corpus).__name__} of {len(getattr(corpus, 'utterances', ()))} utterances; expected a Corpus"
        )
    if moved:
        raise Broken(f"opening it changed {', '.join(moved)}; expected the process as before")
    return Seen(len(corpus.utterances), f"{len(corpus.utterances)} files")


@rule("dataset", "no-folder", "Opened with a root that is no folder of its files, it raises a ManifestError that names it.")
def no_folder(subject: Subject) -> Seen:
    """The root given here is an ordinary file."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "no-such-folder.txt"
        root.write_text("no folder", encoding="utf-8")
        try:
            corpus = subject.thing.open(root)
        except ManifestError as error:
            if str(root) in str(error) or folder in str(error):
                return Seen(None, "a root that is an ordinary file is refused by name")
            raise Broken(
                f"the root {root.name} is refused with {str(error)!r}; expected its path in the sentence"
            ) from error
        except Exception as error:
            raise Broken(
                f"with a root that is no folder it raises {type(error).__name__} ({error}); expected a ManifestError that "
                "names it"
            ) from error
    raise Broken(
        f"with a root that is no folder it opens, with {len(corpus.utterances)} files; expected a ManifestError. Is "
        "`root` ignored? The user would score other files than those named"
    )


@rule("dataset", "stable", "Opened twice it is the same: every utterance, and the hash of the table, which is not empty.")
def stable(subject: Subject) -> Seen:
    """Field by field, utterance by utterance."""
    one, two = opened(subject), subject.thing.open(None)
    if not one.hash:
        raise Broken("its hash is empty; expected one over its table: a result must say on which files it was measured")
    differ = [name for name in Corpus.__dataclass_fields__ if getattr(one, name) != getattr(two, name)]
    if differ:
        raise Broken(
            f"opened twice it differs in {', '.join(differ)}; expected the same. Does it list a folder without sorting?"
        )
    return Seen(None, f"hash {one.hash[:12]}")


@rule("dataset", "facts", "Name, sample rate, valid band, held-out vocoders and kinds fit the files.")
def facts(subject: Subject) -> Seen:
    """The band in Hz within Nyquist; every vocoder that is named has a file."""
    corpus = opened(subject)
    low, high = corpus.valid_band
    if corpus.name != subject.thing.name:
        raise Broken(
            f"the data set {subject.thing.name!r} opens as {corpus.name!r}; expected one name in tables and commands"
        )
    if not isinstance(corpus.sample_rate, int) or corpus.sample_rate <= 0:
        raise Broken(f"its sample rate is {corpus.sample_rate!r}; expected a whole number of Hz")
    if not 0 <= low < high <= corpus.sample_rate / 2:
        raise Broken(
            f"its valid band is {low:g} to {high:g}; expected Hz between 0 and {corpus.sample_rate / 2:g}, half its rate"
        )
    vocoders = {u.vocoder for u in corpus.utterances}
    strangers = sorted({*corpus.held_out, *corpus.kinds} - vocoders)
    if strangers:
        raise Broken(
            f"held_out or kinds name {', '.join(strangers)}, of which there is no file; there are "
            f"{', '.join(sorted(vocoders))}"
        )
    return Seen(
        high, f"{corpus.sample_rate} Hz, valid {low:g} to {high:g} Hz, {len(vocoders - {'bonafide'})} vocoders or attacks"
    )


@rule("dataset", "licence", "It says under which licence the audio is, and whom to cite.")
def licence(subject: Subject) -> Seen:
    """Both sentences are shown beside every clip and board."""
    corpus = opened(subject)
    empty = [name for name in ("licence", "citation") if not getattr(corpus, name).strip()]
    if empty:
        raise Broken(
            f"{' and '.join(empty)} are empty; expected a sentence each: nobody may publish clips of unknown licence"
        )
    return Seen(None, corpus.licence)


@rule("dataset", "files", "Every path is absolute and there, and belongs to one utterance.")
def files(subject: Subject) -> Seen:
    """All of them, without reading any."""
    utterances = opened(subject).utterances
    loose = [u for u in utterances if not Path(u.path).is_absolute()]
    if loose:
        raise Broken(
            f"{len(loose)} paths are relative, the first is {loose[0].path}; expected absolute ones: runs change folders"
        )
    gone = [u for u in utterances if not Path(u.path).is_file()]
    if gone:
        raise Broken(
            f"{len(gone)} of {len(utterances)} files are not there, the first is {gone[0].path}; raise a ManifestError "
            "when opening instead"
        )
    twice = [path for path, count in Counter(u.path for u in utterances).items() if count > 1]
    if twice:
        raise Broken(f"{len(twice)} files stand for two utterances, the first is {twice[0]}; expected one each")
    return Seen(len(utterances), f"{len(utterances)} files are there")


@rule("dataset", "ids", "Source and vocoder name an utterance, once, in words that a file name can hold.")
def ids(subject: Subject) -> Seen:
    """`source/vocoder` is the name of a row in every table."""
    utterances = opened(subject).utterances
    twice = [key for key, count in Counter((u.source, u.vocoder) for u in utterances).items() if count > 1]
    if twice:
        raise Broken(
            f"{len(twice)} names occur twice, the first is {'/'.join(twice[0])}; expected unique ones: rows would be "
            "mixed up"
        )
    odd = [u for u in utterances if not u.source or not u.vocoder or set("/\\\0") & set(u.source + u.vocoder)]
    if odd:
        raise Broken(
            f"{len(odd)} names are empty or hold a slash, the first is {(odd[0].source, odd[0].vocoder)}; they name files"
        )
    return Seen(len(utterances), f"{len({u.source for u in utterances})} sources, {len(utterances)} names")


@rule("dataset", "splits", "Every split is train, dev or eval, and twins share split and speaker.")
def splits(subject: Subject) -> Seen:
    """A twin in another split than its original is a leak."""
    utterances = opened(subject).utterances
    unknown = sorted({u.split for u in utterances} - set(SPLITS))
    if unknown:
        raise Broken(f"there are splits called {', '.join(unknown)}; expected {', '.join(SPLITS)}")
    real = {u.source: u for u in utterances if u.bonafide}
    parted = [u for u in utterances if u.source in real
              and (u.split, u.speaker) != (real[u.source].split, real[u.source].speaker)]  # fmt: skip
    if parted:
        u, twin = parted[0], real[parted[0].source]
        raise Broken(
            f"{len(parted)} twins disagree: {u.source}/{u.vocoder} is {u.split} of {u.speaker}, its bona fide half "
            f"{twin.split} of {twin.speaker}; a leak between training and evaluation"
        )
    counts = Counter(u.split for u in utterances)
    return Seen(len(counts), ", ".join(f"{counts[s]} {s}" for s in SPLITS if counts[s]))


@rule("dataset", "speakers", "No speaker of the evaluation is heard in training.")
def speakers(subject: Subject) -> Seen:
    """For speech of several speakers and splits."""
    where: dict[str, set[str]] = defaultdict(set)
    for u in opened(subject).utterances:
        where[u.speaker].add(u.split)
    if len(where) == 1:
        raise NotApplicable(f"it has one speaker ({next(iter(where))!r}), or none is known")
    if len(set().union(*where.values())) == 1:
        raise NotApplicable("it has one split")
    both = sorted(speaker for speaker, found in where.items() if len(found) > 1)
    if both:
        raise Broken(
            f"{len(both)} of {len(where)} speakers are in two splits, the first is {both[0]!r}; expected each in one. If "
            "the authors meant it so, write that as the reason of an expected failure"
        )
    return Seen(len(where), f"{len(where)} speakers, each in one split")


@rule("dataset", "audio", "The files have the length, sample rate and sha256 that the table says, and are not silent.")
def readable(subject: Subject) -> Seen:
    """A sample of the files, spread over the data set."""
    corpus = opened(subject)
    some = _some(corpus.utterances)
    for u in some:
        try:
            samples = audio.read(u.path, sample_rate=corpus.sample_rate)
        except XaibenchError as error:
            raise Broken(str(error)) from error
        if u.n_samples and len(samples) < u.n_samples:
            raise Broken(f"{u.path}: {len(samples)} samples, the table says {u.n_samples}")
        if not np.ptp(samples) > 0:
            raise Broken(f"{u.path}: digital silence; expected speech")
    hashed = [u for u in some if u.sha256]
    try:
        verify(hashed)
    except ManifestError as error:
        raise Broken(str(error)) from error
    rates = {soundfile.info(u.path).subtype for u in some}
    return Seen(len(some), f"{len(some)} files read ({', '.join(sorted(rates))}), {len(hashed)} hashes compared")


@rule("dataset", "twins", "Twins have one length and no lag, and differ.")
def twins(subject: Subject) -> Seen:
    """A sample of the pairs, as a run hears them: `xaibench.datasets.align` measures lag and likeness."""
    corpus = opened(subject)
    worst, alike = 0, 1.0
    both = [p for p in sample(subject) if p.bonafide is not None]
    if not both:
        raise NotApplicable("its spoofed speech has no twins")
    for pair in both:
        try:
            real, fake = audio.read_halves(pair, sample_rate=corpus.sample_rate)
        except XaibenchError as error:
            raise Broken(str(error)) from error
        if np.array_equal(real, fake):
            raise Broken(f"{pair.id}: both halves are the same recording, sample for sample; the truth of it would be empty")
        found = align.measure(real, fake, corpus.sample_rate)
        if abs(found.samples) > APART * corpus.sample_rate:
            raise Broken(
                f"{pair.id}: the spoofed half is late by {found.samples} samples "
                f"({1e3 * found.samples / corpus.sample_rate:.1f} ms); expected none. The truth of twins that are apart "
                "is everywhere: set `lag`, or `xaibench data index`"
            )
        if found.likeness < align.TWINS:
            raise Broken(
                f"{pair.id}: the halves' log-mel spectra correlate by {found.likeness:.2f}; expected {align.TWINS} and "
                "more. Are they the same utterance?"
            )
        worst, alike = max(worst, abs(found.samples)), min(alike, found.likeness)
    return Seen(worst, f"{len(both)} pairs: {worst} samples apart at most, spectra correlate by {alike:.2f} at least")


@rule(
    "dataset", "segments", "Segments of partially spoofed speech lie within the recording, in order, and some are bona fide."
)
def segments(subject: Subject) -> Seen:
    """Starts and ends rise, and end with the recording."""
    corpus = opened(subject)
    marked = [u for u in corpus.utterances if u.segments]
    if not marked:
        raise NotApplicable("it marks no segments")
    for u in marked:
        seconds = u.n_samples / corpus.sample_rate if u.n_samples else np.inf
        ends = [t for start, end, _ in u.segments for t in (start, end)]
        if ends != sorted(ends) or ends[0] < 0 or ends[-1] > seconds + 0.01:
            raise Broken(
                f"{u.source}/{u.vocoder}: segments {u.segments} of {seconds:.2f} s; expected them in order and within it"
            )
        if any(label not in ("bonafide", "spoof") for *_, label in u.segments):
            raise Broken(f"{u.source}/{u.vocoder}: segments {u.segments}; expected the labels bonafide and spoof")
    return Seen(len(marked), f"{len(marked)} recordings with {sum(len(u.segments) for u in marked)} segments")
