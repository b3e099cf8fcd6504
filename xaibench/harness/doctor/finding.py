"""One thing that is wrong with a run folder, and what every examination of it needs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from xaibench import maps
from xaibench.errors import XaibenchError
from xaibench.files import is_scratch

#: The folders of a run that are read as results, and how their files end.
SUFFIXES = {"rows": ".parquet", "maps": maps.SUFFIX, "preflight": ".json", "warnings": ".json", "errors": ".txt"}
#: Those whose files have a line in SHA256SUMS.
LISTED = tuple(top for top in SUFFIXES if top != "maps")
CURES = {
    "repair": "`xaibench doctor --repair` does",
    "run": "the same `xaibench run` does",
    "hand": "only you can",
    "nothing": "nothing needs to be done",
}
AGAIN = "its cells are computed again by the same `xaibench run`"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as a run leaves it. file: from the top of the run; cure: one of `CURES`."""

    file: str
    what: str
    consequence: str
    cure: str = "repair"
    action: str = "move"  # of a repair: "move" to damaged/, "sweep" scratch, "settle" checksums
    repaired: bool = False

    @property
    def ill(self) -> bool:
        """Whether the folder is not healthy for it."""
        return self.cure in ("repair", "hand") and not self.repaired

    def __str__(self) -> str:
        end = "repaired" if self.repaired else CURES[self.cure]
        file = self.file.replace("\n", "\\n")  # a line a finding, whatever a file is called
        return f"{file}: {self.what}; {self.consequence} ({end})"


def files_of(top: Path, suffix: str = "") -> list[Path]:
    """What is in a folder of `SUFFIXES`, with that ending: files, and folders that are called as its files are; sorted."""
    found: list[Path] = []
    if Path(top).is_symlink():  # what it leads to is not of the run; `folder.of_links` names it
        return found
    for place, folders, names in os.walk(top):
        folders[:] = [name for name in folders if not is_scratch(name)]
        misplaced = [name for name in folders if Path(name).suffix == SUFFIXES[top.name]]  # a folder in place of a file
        found += [Path(place, name) for name in [*names, *misplaced] if not suffix or name.endswith(suffix)]
        folders[:] = [name for name in folders if name not in misplaced]
    return sorted(found)


def name_of(run: Path, path: Path) -> str:
    """A file from the top of its run, as checksums and findings name it."""
    return path.relative_to(run).as_posix()


def reason(error: BaseException, path: Path) -> str:
    """What an error says behind the name of the file, without what to do about it."""
    text = str(error).removeprefix(f"{path}: ")
    return text.split("; ")[0] if isinstance(error, XaibenchError) else f"damaged ({text})"
