"""A few facts with a title, and sounds: how data sets, pairs and countermeasures look in a notebook and in a terminal."""

from __future__ import annotations

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
        from xaibench import audio
        from xaibench.site.shell import data_uri, render

        files = {n: audio.encoded(wave, sample_rate=self.sample_rate, ending="wav") for n, wave in self.sounds.items()}
        sounds = {name: data_uri(content, "audio/wav") for name, content in files.items()}
        return render("notebook_facts.html.j2", title=self.title, lines=self._said(), sounds=sounds)
