"""The three folders of the corpus as data sets. Only `minivoc` brings its audio; the others need a root.

The tables live with xaibench (`data_manifests/`), so that a hash in a result row can be checked without the audio.
"""

from __future__ import annotations

from pathlib import Path

from xaibench.errors import ManifestError
from xaibench.manifest import bundled, read_manifest
from xaibench.protocols import Corpus, Dataset

#: Root of the embedded audio: `SPLIT/VOCODER/UTTERANCE.flac`.
AUDIO = Path(__file__).parent / "audio"


def _open_embedded(root: Path | None) -> Corpus:
    return read_manifest(bundled("minivoc"), AUDIO if root is None else root)


def _not_embedded(name: str, summary: str) -> Dataset:
    def open_(root: Path | None) -> Corpus:
        if root is None:
            raise ManifestError(
                f"the audio of {name!r} is not embedded in xaibench-minivoc, expected the folder that holds it: "
                f"--root {name}=DIR"
            )
        return read_manifest(bundled(name), root)

    return Dataset(name=name, summary=summary, open=open_)


minivoc = Dataset(
    name="minivoc",
    summary="80 train, 24 dev, 48 eval utterances of 2 s, bona fide and five vocoders; embedded",
    open=_open_embedded,
)
minivoc_train = _not_embedded("minivoc-train", "522 further training utterances, four vocoders; needs --root")
minivoc_extra_eval = _not_embedded(
    "minivoc-extra-eval", "27 dev and 42 eval utterances at full length, five vocoders; needs --root"
)
