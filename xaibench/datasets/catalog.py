"""Every data set of the field by name. Nothing is imported before it is asked for.

`checked` in a layout says what it was held against. At present all but `folder`, our own, say "documentation": they follow
what the authors publish about their archives, and none has met the archives themselves.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from xaibench.datasets.layout import MAIN, Layout
from xaibench.errors import ManifestError
from xaibench.manifest import Roots, read_facts, read_manifest, remembered_roots, stream
from xaibench.protocols import Corpus, Dataset
from xaibench.registry import find, open_corpus, unknown
from xaibench.types import Utterance

PLACES = {
    "asvspoof2019": "xaibench.datasets.asvspoof2019:layout",
    "asvspoof2021-df": "xaibench.datasets.asvspoof2021:df",
    "asvspoof2021-la": "xaibench.datasets.asvspoof2021:la",
    "common-voice": "xaibench.datasets.common_voice:layout",
    "folder": "xaibench.datasets.folder:layout",
    "in-the-wild": "xaibench.datasets.in_the_wild:layout",
    "librisevoc": "xaibench.datasets.librisevoc:layout",
    "partialspoof": "xaibench.datasets.partialspoof:layout",
    "vocv4": "xaibench.datasets.vocv4:layout",
    "wavefake": "xaibench.datasets.wavefake:layout",
}


class _Layouts(Mapping[str, Layout]):
    """Name -> Layout, imported when looked up. Raises ManifestError with "did you mean" for an unknown name."""

    def __getitem__(self, name: str) -> Layout:
        if name not in PLACES:
            raise ManifestError(unknown("data set", name, PLACES))
        module, _, thing = PLACES[name].partition(":")
        return getattr(importlib.import_module(module), thing)

    def __contains__(self, name: object) -> bool:
        return name in PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


LAYOUTS: Mapping[str, Layout] = _Layouts()


def manifests_folder() -> Path:
    """Where indexed manifests live unless told otherwise: XAIBENCH_MANIFESTS, or the user's data folder."""
    own = os.environ.get("XAIBENCH_MANIFESTS")
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return Path(own) if own else data / "xaibench" / "manifests"


def locate_manifest(name: str, root: Roots | None = None) -> tuple[Path, dict[str, Path]]:
    """The manifest that `index` wrote, and its roots: those given, and for the others where the files were then.

    Looked for in the main root given, then in `manifests_folder()`. Raises ManifestError, naming the command to run, if
    there is none.
    """
    given = {n: Path(r) for n, r in root.items()} if isinstance(root, Mapping) else {MAIN: Path(root)} if root else {}
    folders = [manifests_folder()]
    if MAIN in given:
        folders.insert(0, given[MAIN] if given[MAIN].is_dir() else given[MAIN].parent)
    for folder in folders:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml", remembered_roots(folder / f"{name}.toml", given)
    looked = " and ".join(str(folder) for folder in folders)
    further = "".join(f" --root {n}=DIR" for n in (LAYOUTS[name].further_roots if name in LAYOUTS else ()))
    raise ManifestError(
        f"the data set {name!r} is not indexed (no {name}.toml in {looked}); index it first: xaibench data index {name} "
        f"--root DIR{further}"
    )


@dataclass(frozen=True)
class Source:
    """A data set to go through: its facts, and its utterances as often as they are asked for.

    `facts.utterances` is empty; `utterances()` streams an indexed data set, so that memory does not grow with it.
    """

    facts: Corpus
    utterances: Callable[[], Iterable[Utterance]]


def source(name: str, root: Roots | None = None) -> Source:
    """A data set by name or by the path of its manifest (NAME.toml), streamed where it was indexed.

    The data sets of other packages are opened whole. Raises what opening it raises (ManifestError, PluginError).
    """
    if str(name).endswith(".toml"):
        manifest, roots = Path(name), remembered_roots(Path(name), root)
    elif name in PLACES and find("datasets", name).entry.value.startswith(f"{__name__}:"):
        manifest, roots = locate_manifest(name, root)
    else:
        corpus = open_corpus(name, root)
        return Source(replace(corpus, utterances=()), lambda: corpus.utterances)
    return Source(read_facts(manifest, roots), partial(stream, manifest, roots))


def open_indexed(name: str, root: Roots | None = None) -> Corpus:
    """A data set that was indexed, opened; `root` only where its files have moved since. Raises ManifestError."""
    manifest, roots = locate_manifest(name, root)
    return read_manifest(manifest, roots)


def _dataset(name: str, summary: str) -> Dataset:
    return Dataset(name=name, summary=summary, open=lambda root: open_indexed(name, root))


# Entry points of `xaibench.datasets`. The sentences are written out so that listing them imports no layout.
asvspoof2019 = _dataset("asvspoof2019", "ASVspoof 2019 LA; index it first")
asvspoof2021_df = _dataset("asvspoof2021-df", "ASVspoof 2021 DF, subset eval; index it first")
asvspoof2021_la = _dataset("asvspoof2021-la", "ASVspoof 2021 LA, subset eval; index it first")
common_voice = _dataset("common-voice", "Common Voice, one language, bona fide only; index it first")
folder = _dataset("folder", "pairs of your own in a folder; index it first")
in_the_wild = _dataset("in-the-wild", "In-the-Wild; index it first")
librisevoc = _dataset("librisevoc", "LibriSeVoc, pairs of six neural vocoders; index it first")
partialspoof = _dataset("partialspoof", "PartialSpoof; index it first")
vocv4 = _dataset("vocv4", "voc.v4, pairs of four neural vocoders; index it first")
wavefake = _dataset("wavefake", "WaveFake, English pairs; index it first")
