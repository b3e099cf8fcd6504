"""The rules of data sets: a small one keeps them all, and each breaks on a data set made to break it, with the reason."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xaibench import audio
from xaibench.errors import ManifestError
from xaibench.protocols import Corpus, Dataset
from xaibench.testing import Broken, NotApplicable, checks
from xaibench.testing.signals import voice
from xaibench.types import Utterance

RATE = 16_000
SPEAKERS = {"a": "train", "b": "dev", "c": "eval", "d": "eval"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Four speakers, one voice each, and a twin through a weak filter."""
    root, found = tmp_path_factory.mktemp("corpus"), []
    for seed, (speaker, split) in enumerate(SPEAKERS.items()):
        real = voice(RATE, RATE, seed=seed)
        for vocoder, samples in (("bonafide", real), ("smooth", np.convolve(real, [0.2, 0.6, 0.2], "same"))):
            path = root / f"{speaker}-{vocoder}.wav"
            audio.write(path, samples, sample_rate=RATE)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.append(Utterance(f"{speaker}-1", speaker, split, vocoder, path, digest, RATE))
    return Corpus(
        "toy", tuple(found), RATE, (90.0, 7_000.0), licence="CC0", citation="nobody", hash="0" * 64,
        kinds={"smooth": "signal-processing"},
    )  # fmt: skip


def dataset(corpus: Corpus | None, *, opened=None, summary="a toy of four voices") -> Dataset:
    def open_(root):
        if root is not None and not Path(root).is_dir():
            raise ManifestError(f"{root}: no such folder")
        return corpus

    return Dataset("toy", summary, opened or open_)


def asked(thing: Dataset, rule: str):
    (check,) = [c for c in checks("dataset", thing) if c.rule == rule]
    return check.run()


def outcomes(thing) -> dict[str, str]:
    found = {}
    for check in checks("dataset", thing):
        try:
            found[check.rule] = f"ok {check.run().text}"
        except NotApplicable as reason:
            found[check.rule] = f"n/a {reason}"
        except Broken as broken:
            found[check.rule] = f"broken {broken}"
    return found


OURS = (
    "summary",
    "opens",
    "no-folder",
    "stable",
    "facts",
    "licence",
    "files",
    "ids",
    "splits",
    "speakers",
    "audio",
    "twins",
)


def test_a_good_one_keeps_every_rule(corpus):
    found = outcomes(dataset(corpus))
    assert all(found[rule].startswith("ok") for rule in OURS), found
    assert found["segments"] == "n/a it marks no segments"


def test_one_without_its_files_says_so_and_is_asked_no_more(tmp_path):
    def open_(root):
        raise ManifestError(f"{root or tmp_path}: not indexed; give --root")

    found = outcomes(dataset(None, opened=open_))
    assert all(found[rule].startswith("ok") for rule in ("summary", "opens", "no-folder"))
    assert all(found[rule].startswith("n/a its files are not here") for rule in OURS[3:])


# ---- broken ones -----------------------------------------------------------------------------------------------------


def with_first(corpus: Corpus, **facts) -> Corpus:
    """The corpus with another first spoofed file."""
    one, spoof, *rest = corpus.utterances
    return replace(corpus, utterances=(one, replace(spoof, **facts), *rest))


def rewritten(corpus: Corpus, change, folder: Path, **facts) -> Corpus:
    """The corpus with its first spoofed file's samples changed."""
    spoof = corpus.utterances[1]
    path = folder / "changed.wav"
    audio.write(path, change(audio.read(spoof.path, sample_rate=RATE)), sample_rate=RATE)
    return with_first(corpus, path=path, **facts)


BROKEN = {
    "facts-name": ("facts", lambda c, _: replace(c, name="other"), "the data set 'toy' opens as 'other'"),
    "facts-band": ("facts", lambda c, _: replace(c, valid_band=(90, 9_000)), "band is 90 to 9000; expected Hz between"),
    "facts-kinds": ("facts", lambda c, _: replace(c, held_out=("lyra",)), "held_out or kinds name lyra, of which"),
    "licence": ("licence", lambda c, _: replace(c, licence=""), "licence are empty"),
    "stable": ("stable", lambda c, _: replace(c, hash=""), "its hash is empty"),
    "files-relative": ("files", lambda c, _: with_first(c, path=Path("a.wav")), "1 paths are relative, the first is a.wav"),
    "files-gone": ("files", lambda c, d: with_first(c, path=d / "gone.wav"), "1 of 8 files are not there, .*gone.wav"),
    "files-twice": ("files", lambda c, _: with_first(c, path=c.utterances[0].path), "1 files stand for two utterances"),
    "ids-twice": ("ids", lambda c, _: with_first(c, source="b-1"), "1 names occur twice, the first is b-1/smooth"),
    "ids-slash": ("ids", lambda c, _: with_first(c, source="a/1"), "1 names are empty or hold a slash"),
    "splits": ("splits", lambda c, _: with_first(c, split="test"), "there are splits called test; expected"),
    "splits-twins": ("splits", lambda c, _: with_first(c, split="eval"), "is eval of a, its bona fide half train of a"),
    "speakers": (
        "speakers",
        lambda c, _: replace(c, utterances=tuple(replace(u, speaker=u.speaker.replace("b", "a")) for u in c.utterances)),
        "1 of 3 speakers are in two splits, the first is 'a'",
    ),
    "audio-length": ("audio", lambda c, _: with_first(c, n_samples=RATE + 1), "16000 samples, the table says 16001"),
    "audio-hash": ("audio", lambda c, d: rewritten(c, lambda x: x / 2, d), "the manifest says"),
    "audio-silent": ("audio", lambda c, d: rewritten(c, np.zeros_like, d), "digital silence; expected speech"),
    "twins-same": ("twins", lambda c, _: with_first(c, path=c.utterances[0].path), "both halves are the same recording"),
    "twins-late": (
        "twins", lambda c, d: rewritten(c, lambda x: np.roll(x, 160), d), r"the spoofed half is late by 1\d\d samples"
    ),
    "twins-other": (
        "twins",
        lambda c, d: rewritten(c, lambda x: voice(RATE, RATE, seed=9)[::-1] * 0.9, d),
        "a-1/smooth: (the spoofed half is late|the halves' log-mel spectra correlate by)",
    ),
    "twins-short": (
        "twins", lambda c, d: rewritten(c, lambda x: x[:-10], d, n_samples=0), "15990 samples, its bona fide .* has 16000"
    ),
    "segments": ("segments", lambda c, _: with_first(c, segments=((0.5, 2.0, "spoof"),)), "expected them in order"),
    "segments-order": (
        "segments", lambda c, _: with_first(c, segments=((0.5, 0.9, "spoof"), (0.0, 0.5, "bonafide"))), "them in order"
    ),
    "segments-label": ("segments", lambda c, _: with_first(c, segments=((0.1, 0.2, "fake"),)), "expected the labels"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "make", "message"), BROKEN.values(), ids=BROKEN)
def test_one_that_breaks_a_rule(corpus, tmp_path, rule, make, message):
    with pytest.raises(Broken, match=message):
        asked(dataset(make(corpus, tmp_path)), rule)


def test_opening_that_breaks_a_rule(corpus):
    def crashes(root):
        return {}[root]

    def mute(root):
        raise ManifestError("not found")

    def ignores(root):
        return corpus

    count = iter(range(9))

    def changes(root):
        return replace(corpus, hash=str(next(count)))

    for opened, rule, message in (
        (crashes, "opens", "without a folder it raises KeyError .*expected a Corpus, or a ManifestError"),
        (mute, "opens", "it says 'not found'; expected the folder it looked in, or --root"),
        (lambda root: replace(corpus, utterances=()), "opens", "opens as Corpus of 0 utterances"),
        (crashes, "no-folder", "raises KeyError .*expected a ManifestError that names it"),
        (mute, "no-folder", "the root no-such-folder.txt is refused with 'not found'"),
        (ignores, "no-folder", "it opens, with 8 files; expected a ManifestError. Is `root` ignored"),
        (changes, "stable", "opened twice it differs in hash"),
    ):
        with pytest.raises(Broken, match=message):
            asked(dataset(None, opened=opened), rule)
    with pytest.raises(Broken, match="its summary has 2 lines"):
        asked(dataset(corpus, summary="one\ntwo"), "summary")
