"""How a plugin package offers a countermeasure: a builder with options, and where its checkpoint lies.

    recipe = Recipe(name="lcnn", paper="...", build=LCNN, folder=Path(__file__).parent / "checkpoints")

The keyword arguments of `build` are the countermeasure's options. The card of a checkpoint records those it was trained
with, so that a checkpoint of another size, front end or set of classes is rebuilt as it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaibench.errors import PluginError

if TYPE_CHECKING:
    from xaibench.protocols import Countermeasure


@dataclass(frozen=True)
class Recipe:
    """The object behind an entry point of `xaibench.countermeasures`.

    build:    `build(*, option=default, ...)` -> an untrained countermeasure.
    folder:   where `NAME.safetensors` and its card `NAME.json` lie, if they ship with the package.
    training: settings of `xaibench train` that suit this countermeasure; the command line overrides them.
    initial:  options that say where training starts (pretrained weights); a checkpoint is rebuilt without them.
    convert:  `convert(file, out)` reads a checkpoint as its authors publish it and writes ours (`weights.save_imported`).
    obtain:   how to get weights where none ship: one sentence that names the command.
    optional: True for one made to test methods and metrics, no detector of spoofed speech: `--cm all` leaves it out.
    fit:      `fit(cm, recordings, *, seed)` for one that gradients do not train (a mixture by EM, a library's classifier):
              `xaibench train` calls it in the place of its epochs, with the training recordings `(N,)` by vocoder,
              "bonafide" among them, held-out vocoders not. It sets the weights in place; same seed, same weights.
    """

    name: str
    paper: str
    build: Callable[..., Countermeasure]
    folder: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    initial: tuple[str, ...] = ()
    convert: Callable[[Path, Path], Path] | None = None
    obtain: str = ""
    optional: bool = False
    fit: Callable[..., None] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of `build`, with their defaults."""
        return {p.name: p.default for p in inspect.signature(self.build).parameters.values()}

    def untrained(self, *, seed: int, **options: Any) -> Countermeasure:
        """A fresh one; same seed and options, same weights. Raises PluginError for an unknown option."""
        import torch

        unknown = sorted(set(options) - set(self.options))
        if unknown:
            known = ", ".join(self.options) or "none"
            raise PluginError(f"countermeasure {self.name!r} has no option {', '.join(unknown)}; its options: {known}")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reach the GPUs, not restored here
            return self.build(**options)

    def shipped(self) -> Path | None:
        """The checkpoint that comes with the package, if any."""
        path = self.folder / f"{self.name}.safetensors" if self.folder else None
        return path if path is not None and path.is_file() else None
