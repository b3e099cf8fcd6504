"""A few facts with a title, and sounds: how data sets, pairs and countermeasures look in a notebook and in a terminal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Facts:
    """title, lines: anybody's words, escaped where it matters; an empty line is left out. sounds: waveforms `(N,)` by name.

    >>> print(Facts("minivoc", {"pairs": "240", "licence": "", "split": "eval"}))
    minivoc
      pairs  240
      split  eval
    """

    title: str
    lines: Mapping[str, str]
    sounds: Mapping[str, np.ndarray] = field(default_factory=dict)
    sample_rate: int = 16_000

    def __str__(self) -> str:
        lines = self._said()
        width = max(map(len, lines), default=0)
        return "\n".join([self.title, *(f"  {name:<{width}}  {text}" for name, text in lines.items())])

    def _said(self) -> dict[str, str]:
        return {name: text for name, text in self.lines.items() if text}

    def html(self) -> str:
        """A small table, with a player for every sound."""
        from xaibench.site.shell import data_uri, render

        sounds = {name: data_uri(_wav(wave, self.sample_rate), "audio/wav") for name, wave in self.sounds.items()}
        return render("notebook_facts.html.j2", title=self.title, lines=self._said(), sounds=sounds)


def _wav(wave: np.ndarray, sample_rate: int) -> bytes:
    """A recording as a 16-bit WAV file; its level is left as it is."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave, -1, 1), sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
