"""The rules of vocoders: aligned re-synthesis of equal length, so that a pair differs by the vocoder and by nothing else.

Asked is a voice made from a seed (`signals.voice`), at 16 kHz or the first other rate that the vocoder takes. A library that
is not installed (PluginError) is no broken rule; nothing can be asked then.
"""

from __future__ import annotations

import numpy as np
import scipy.signal

from xaibench.datasets import align
from xaibench.errors import AudioError, PluginError, XaibenchError
from xaibench.testing.restoring import restored
from xaibench.testing.rules import Broken, NotApplicable, Seen, Subject, rule
from xaibench.testing.signals import voice
from xaibench.testing.snapshots import changed, of_shared

#: Sample rates in Hz in the order in which they are tried.
RATES = (16_000, 24_000, 22_050, 44_100, 48_000, 8_000)
SECONDS = 1.5
#: Log-spectral distance in dB (Rabiner, Juang 1993, section 4.5) of what is changed speech. On minivoc its five vocoders
#: measure 2.1 to 7.5, other recordings 9.7 to 13.9, white noise of the same level 21 to 30; on the kit's voice WORLD
#: measures 4.6, MLSA 3.9, Griffin-Lim 5.1 and the notch of `planted` 0.8.
LEAST, MOST = 0.05, 9.0
#: How much louder or softer speech may become, in dB; and how loud silence may be, in dB below full scale.
LEVEL, SILENCE = 10.0, -50.0


def rate(subject: Subject) -> int:
    """The sample rate it is asked at, in Hz. Raises NotApplicable where a library is missing."""

    def find() -> int:
        refused = ""
        for hertz in RATES:
            try:
                subject.thing.function(voice(int(SECONDS * hertz), hertz), hertz)
            except AudioError as error:
                refused = str(error)
                continue
            except PluginError as error:
                raise NotApplicable(str(error)) from error
            return hertz
        raise Broken(f"it refuses {SECONDS} s of speech at every rate of {', '.join(map(str, RATES))} Hz: {refused}")

    return subject.once("rate", find)


def recording(subject: Subject) -> np.ndarray:
    """The voice it is given. Shape: `(N,)` float32; not to be written into."""
    hertz = rate(subject)
    return subject.once("voice", lambda: voice(int(SECONDS * hertz), hertz))


def resynthesis(subject: Subject) -> np.ndarray:
    """What it makes of the voice, once. Raises NotApplicable where that is no waveform: the rule `waveform` says so."""
    made = subject.once("made", lambda: subject.thing.function(recording(subject).copy(), rate(subject)))
    if not isinstance(made, np.ndarray) or made.shape != recording(subject).shape or not np.isfinite(made).all():
        raise NotApplicable("what it makes is no waveform of equal length: see the rule `waveform`")
    return np.asarray(made, dtype=np.float64)


@rule("vocoder", "waveform", "It gives finite floats (N,), as many as it was given, whatever the number.")
def waveform(subject: Subject) -> Seen:
    """Also for an odd number, and for one that fills no whole frame."""
    hertz = rate(subject)
    lengths = [int(SECONDS * hertz), int(SECONDS * hertz) - 1, hertz + 77]
    for n in lengths:
        made = subject.thing.function(voice(n, hertz), hertz)
        if not isinstance(made, np.ndarray) or made.dtype not in (np.float32, np.float64):
            raise Broken(
                f"it gives {getattr(made, 'dtype', type(made).__name__)}; expected a numpy array of float32, in [-1, 1]"
            )
        if made.shape != (n,):
            raise Broken(
                f"of {n} samples it makes {made.shape}; expected ({n},). Vocoders pad to whole frames: cut or pad the end"
            )
        if not np.isfinite(made).all():
            raise Broken(f"{np.count_nonzero(~np.isfinite(made))} of {n} samples are NaN or infinite; expected none")
    return Seen(lengths[-1], f"{', '.join(map(str, lengths))} samples in and out, {made.dtype}")


@rule("vocoder", "aligned", "Its output is on the clock of its input.")
def aligned(subject: Subject) -> Seen:
    """Measured on log-mel spectra and then on the waveforms (`xaibench.datasets.align`)."""
    hertz, x, y = rate(subject), recording(subject), resynthesis(subject)
    found = align.measure(x, y, hertz)
    if found.samples:
        raise Broken(
            f"its output is late by {found.samples} samples ({1e3 * found.samples / hertz:+.1f} ms); expected none: the "
            "truth is a difference of aligned halves. Measure the lag once (xaibench.datasets.align.lag) and drop as "
            "many samples"
        )
    return Seen(0, f"no lag; log-mel spectra correlate by {found.likeness:.2f}")


@rule("vocoder", "level", "Speech stays about as loud, and does not clip.")
def level(subject: Subject) -> Seen:
    """In dB of the standard deviation; the peak of the voice is 0.5."""
    x, y = recording(subject), resynthesis(subject)
    peak, change = float(np.abs(y).max()), float(20 * np.log10(max(y.std(), 1e-10) / x.std()))
    if peak > 1:
        raise Broken(
            f"a voice of peak {np.abs(x).max():.2f} comes out with {peak:.2f}; expected at most 1: it would clip in a file"
        )
    if abs(change) > LEVEL:
        raise Broken(
            f"a voice comes out {change:+.1f} dB louder; expected within {LEVEL:g} dB. Is it in 16-bit units, or normalised?"
        )
    return Seen(change, f"{change:+.1f} dB, peak {peak:.2f}")


@rule("vocoder", "changes", "Speech is changed, and is still that speech.")
def changes(subject: Subject) -> Seen:
    """Log-spectral distance in dB, between `LEAST` and `MOST`."""
    hertz, x, y = rate(subject), recording(subject), resynthesis(subject)
    if np.array_equal(x, y):
        raise Broken(
            "it gives back what it was given, sample for sample; expected a re-synthesis: the truth of such pairs is empty"
        )
    found = log_spectral_distance(x, y, hertz)
    if not LEAST <= found <= MOST:
        why = (
            "nothing to find"
            if found < LEAST
            else "another recording; is the time axis stretched, or the level of the noise wrong?"
        )
        raise Broken(
            f"the log-spectral distance of output and input is {found:.2f} dB; expected {LEAST:g} to {MOST:g}: {why}"
        )
    return Seen(found, f"log-spectral distance {found:.1f} dB")


def log_spectral_distance(x: np.ndarray, y: np.ndarray, sample_rate: int) -> float:
    """Root mean square over frequency of the difference of log power spectra, mean over the louder frames, in dB.

    Cells more than 60 dB below the loudest of x count as that low.

    >>> x = np.random.default_rng(0).standard_normal(8_000)
    >>> round(log_spectral_distance(x, x / 2, 8_000), 2)
    6.02
    """
    size = int(0.032 * sample_rate)
    spectra = [np.abs(scipy.signal.stft(w, sample_rate, nperseg=size)[2]) for w in (x, y)]
    floor = 1e-3 * spectra[0].max()
    loud = spectra[0].max(0) > 10 * floor
    one, other = (20 * np.log10(np.maximum(s[:, loud], floor)) for s in spectra)
    return float(np.sqrt(np.mean((one - other) ** 2, axis=0)).mean())


@rule("vocoder", "deterministic", "The same recording comes out the same, whatever was made before.")
def deterministic(subject: Subject) -> Seen:
    """Another recording is made in between."""
    first, hertz = resynthesis(subject), rate(subject)
    subject.thing.function(voice(hertz, hertz, seed=1), hertz)
    again = np.asarray(subject.thing.function(recording(subject).copy(), hertz), dtype=np.float64)
    found = float(np.abs(first - again).max())
    if found > 0:
        raise Broken(
            f"made twice it differs by up to {found:.2g}; expected no difference: a corpus could not be made again. Seed "
            "its noise by the samples"
        )
    return Seen(found, "made twice, no sample differs")


@rule("vocoder", "process-unchanged", "It writes into nothing that it is given, and leaves the process as it was.")
def process_unchanged(subject: Subject) -> Seen:
    """Also generators of random numbers and settings."""
    given, hertz = recording(subject).copy(), rate(subject)
    with restored():
        around = of_shared()
        subject.thing.function(given, hertz)
        moved = changed(around, of_shared())
    if not np.array_equal(given, recording(subject)):
        moved = ["the waveform it was given", *moved]
    if moved:
        raise Broken(f"it changed {', '.join(moved)}; expected all as before. Take a copy, and a generator of its own")
    return Seen(len(around), "the waveform and the settings of the process are as before")


@rule("vocoder", "silence", "Silence stays silence.")
def silence(subject: Subject) -> Seen:
    """In dB of full scale; to refuse it in words is allowed."""
    hertz = rate(subject)
    try:
        made = np.asarray(subject.thing.function(np.zeros(hertz, np.float32), hertz), dtype=np.float64)
    except XaibenchError as error:
        return Seen(None, f"it refuses silence: {error}")
    if not np.isfinite(made).all():
        raise Broken(
            f"silence comes out with {np.count_nonzero(~np.isfinite(made))} NaN or infinite samples; a logarithm of zero?"
        )
    loud = float(20 * np.log10(max(np.sqrt(np.mean(made**2)), 1e-10)))
    if loud > SILENCE:
        raise Broken(
            f"silence comes out at {loud:.0f} dB of full scale; expected below {SILENCE:g}. Is noise added at a fixed level?"
        )
    return Seen(loud, f"silence comes out at {loud:.0f} dB of full scale")


@rule("vocoder", "odd-input", "What it cannot take it refuses in words: short, stereo, NaN.")
def odd_input(subject: Subject) -> Seen:
    """An XaibenchError, or a finite waveform of equal length."""
    hertz = rate(subject)
    odd = {
        "no sample": np.zeros(0, np.float32), "one sample": np.full(1, 0.1, np.float32),
        "a hundredth of a second": voice(hertz // 100, hertz), "two channels": np.zeros((2, hertz), np.float32),
        "NaN": np.full(hertz, np.nan, np.float32),
    }  # fmt: skip
    refused = [name for name, given in odd.items() if _refused(subject, given, hertz, name)]
    return Seen(len(refused), f"refused in words: {', '.join(refused) or 'nothing'}; the rest comes out finite and as long")


@rule("vocoder", "sample-rate", "Another sample rate works, or is refused in words that name it.")
def sample_rate(subject: Subject) -> Seen:
    """8, 22.05 and 44.1 kHz."""
    own = rate(subject)
    refused = [h for h in (8_000, 22_050, 44_100) if h != own and _refused(subject, voice(h, h), h, f"{h} Hz", str(h))]
    return Seen(own, f"asked at {own} Hz; refused in words: {', '.join(map(str, refused)) or 'none of the others'}")


def _refused(subject: Subject, given: np.ndarray, hertz: int, what: str, word: str = "") -> bool:
    """Whether it refuses an input in words. Raises Broken for another error, or for an output that cannot be used."""
    try:
        made = subject.thing.function(given, hertz)
    except XaibenchError as error:
        if word not in str(error).replace(",", ""):
            raise Broken(f"{what} is refused with {str(error)!r}; expected {word} in the sentence") from error
        return True
    except Exception as error:
        raise Broken(
            f"for {what} it raises {type(error).__name__} ({error}); expected a waveform, or an AudioError that says what "
            "it takes"
        ) from error
    if np.shape(made) != given.shape or not np.isfinite(made).all():
        raise Broken(
            f"for {what} it gives {np.shape(made)} with {np.count_nonzero(~np.isfinite(made))} samples not finite; "
            f"expected {given.shape}, finite, or an AudioError"
        )
    return False
