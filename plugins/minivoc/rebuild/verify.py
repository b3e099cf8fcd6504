"""Check folders of the corpus against the manifests of xaibench, file by file.

    python -m rebuild.verify                                      the embedded minivoc
    python -m rebuild.verify minivoc=OUT/minivoc minivoc-train=OUT/minivoc-train ...
    python -m rebuild.verify minivoc=OUT/minivoc --signals        a rebuild: how far are its samples from the embedded ones?

Checks sha256, format, length, level, clipping, unlisted files; per folder set also that speakers keep to one split and
utterances to one folder. Exit status 1 if anything is wrong. A rebuild on another CPU may differ in last bits, and mlsa
always differs: then `--signals` tells how much (largest sample difference, and signal-to-difference ratio in dB).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
from xaibench_minivoc.datasets import AUDIO

from xaibench.manifest import bundled, read_manifest
from xaibench.protocols import Corpus


def file_problems(corpus: Corpus, root: Path) -> list[str]:
    """What is wrong with the files of one folder."""
    problems, lengths = [], defaultdict(set)
    for u in corpus.utterances:
        if not u.path.is_file():
            problems.append(f"{u.path}: missing")
            continue
        if hashlib.sha256(u.path.read_bytes()).hexdigest() != u.sha256:
            problems.append(f"{u.path}: sha256 differs ({u.vocoder})")
        info = soundfile.info(u.path)
        if (info.samplerate, info.channels, info.subtype, info.format) != (corpus.sample_rate, 1, "PCM_16", "FLAC"):
            problems.append(f"{u.path}: {info.samplerate} Hz, {info.channels} channels, {info.subtype} {info.format}")
        x = soundfile.read(u.path)[0]
        lengths[u.source].add(len(x))
        if len(x) != u.n_samples:
            problems.append(f"{u.path}: {len(x)} samples, the manifest says {u.n_samples}")
        if np.abs(x).max() > 0.999 or x.std() < 1e-3:
            problems.append(f"{u.path}: peak {np.abs(x).max():.3f}, RMS {x.std():.2g}")
    problems += [f"{source}: versions of different length" for source, found in lengths.items() if len(found) > 1]
    listed = {u.path for u in corpus.utterances}
    problems += [f"{p}: not in the manifest" for p in root.resolve().rglob("*.flac") if p not in listed]
    return problems


def split_problems(corpora: Iterable[Corpus]) -> list[str]:
    """Speakers in two splits, utterances in two folders."""
    splits: dict[str, set[str]] = defaultdict(set)
    folders: Counter[str] = Counter()
    for corpus in corpora:
        folders.update({u.source for u in corpus.utterances})
        for u in corpus.utterances:
            splits[u.speaker].add(u.split)
    problems = [f"speaker {s} is in {', '.join(sorted(found))}" for s, found in splits.items() if len(found) > 1]
    return problems + [f"utterance {u} is in {n} folders" for u, n in folders.items() if n > 1]


def signal_differences(corpus: Corpus, root: Path, reference: Path = AUDIO) -> dict[str, tuple[int, float, int]]:
    """`{vocoder: (files, lowest signal-to-difference ratio in dB, largest difference in 16-bit steps)}`, files of both."""
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for u in corpus.utterances:
        twin = reference / u.path.relative_to(root.resolve())
        if not (u.path.is_file() and twin.is_file()):
            continue
        x, y = (soundfile.read(p, dtype="int16")[0].astype(np.int64) for p in (twin, u.path))
        difference = x - y
        ratio = 10 * np.log10((x**2).sum() / (difference**2).sum()) if difference.any() else np.inf
        found[u.vocoder].append((float(ratio), int(np.abs(difference).max())))
    return {v: (len(rows), min(r for r, _ in rows), max(d for _, d in rows)) for v, rows in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", metavar="NAME=DIR", default=[f"minivoc={AUDIO}"])
    parser.add_argument("--signals", action="store_true")
    options = parser.parse_args()
    roots = {name: Path(folder) for name, _, folder in (text.partition("=") for text in options.folders)}
    corpora = {name: read_manifest(bundled(name), root) for name, root in roots.items()}
    problems = split_problems(corpora.values())
    for name, corpus in corpora.items():
        found = file_problems(corpus, roots[name])
        problems += found
        print(f"{name}: {len(corpus.utterances)} files, {len(found)} problems")
        if options.signals:
            for vocoder, (files, ratio, step) in signal_differences(corpus, roots[name]).items():
                print(f"  {vocoder}: {files} files, at least {ratio:.1f} dB above the difference, largest difference {step}")
    for problem in problems[:20]:
        print(problem)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
