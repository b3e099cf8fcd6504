"""Training audio in memory, and batches of pairs cut from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from xaibench import audio
from xaibench.errors import RunError
from xaibench.protocols import Corpus


def held_out(corpora: Sequence[Corpus]) -> list[str]:
    """What one data set holds out is held out of all."""
    return sorted({v for c in corpora for v in c.held_out})


@dataclass(frozen=True, eq=False)
class Batch:
    """Waveforms `(2 n, N)`, all bona fide halves before all vocoded ones, and the vocoder of each of the n twins."""

    waveforms: np.ndarray
    vocoders: tuple[str, ...]


class Excerpts:
    """All training audio (16 bit), at every speed, as `{source: [{vocoder: (N,)} per speed]}`."""

    def __init__(self, corpora: Sequence[Corpus], speeds: Sequence[float], weights: Mapping[str, float]) -> None:
        self.weights = weights
        self.audio: dict[str, list[dict[str, np.ndarray]]] = {}
        hidden = held_out(corpora)
        leads: dict[str, int] = {}
        for u in (u for c in corpora for u in c.utterances):
            leads[u.source] = max(leads.get(u.source, 0), audio.lead(u))
        for corpus in corpora:
            for u in corpus.utterances:
                if u.split != "train" or u.vocoder in hidden:
                    continue
                samples = audio.read_aligned(u, sample_rate=corpus.sample_rate)[leads[u.source] :]
                variants = self.audio.setdefault(u.source, [{} for _ in speeds])
                if u.vocoder in variants[0]:
                    raise RunError(f"{corpus.name}: a data set before it has {u.vocoder} of {u.source!r}, too; rename one")
                for variant, speed in zip(variants, speeds, strict=True):
                    changed = audio.resample(samples, round(corpus.sample_rate * speed), corpus.sample_rate)
                    variant[u.vocoder] = np.round(np.clip(changed, -1, 1) * 32767).astype(np.int16)
        self.sources = sorted(s for s, (first, *_) in self.audio.items() if "bonafide" in first and len(first) > 1)
        if not self.sources:
            raise RunError(
                f"no training pairs in {', '.join(c.name for c in corpora)}; expected a split named train with vocoded "
                f"twins that are not held out"
            )
        self.vocoders = sorted({v for variants in self.audio.values() for v in variants[0]} - {"bonafide"})
        stray = sorted(set(weights) - set(self.vocoders))
        if stray:
            raise RunError(
                f"weights are set for {', '.join(stray)}; the vocoders to train on are {', '.join(self.vocoders)}"
            )

    def batch(self, sources: Iterable[str], n_samples: int, draw: np.random.Generator) -> Batch:
        """One pair a source: the same excerpt of `n_samples` of both halves, at one of the speeds."""
        real: list[np.ndarray] = []
        fake: list[np.ndarray] = []
        drawn = []
        for source in sources:
            variant = self.audio[source][draw.integers(len(self.audio[source]))]
            vocoders = sorted(v for v in variant if v != "bonafide")
            weights = np.array([self.weights.get(v, 1.0) for v in vocoders])
            vocoder = str(draw.choice(vocoders, p=weights / weights.sum()))
            length = min(len(variant["bonafide"]), len(variant[vocoder]))
            start = int(draw.integers(max(length - n_samples, 0) + 1))
            for half, name in ((real, "bonafide"), (fake, vocoder)):
                half.append(audio.fit(variant[name][start:length], n_samples))
            drawn.append(vocoder)
        return Batch(np.stack(real + fake).astype(np.float32) / 32767, tuple(drawn))
