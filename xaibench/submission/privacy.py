"""What of a person and a machine does not leave in a pack: folders, the user's name, the machine's name.

Sentences are scrubbed, with a note of how often: a failed cell's reason may quote a path. Names (of utterances, methods,
data sets) are never changed, because the pack is checked by them: a path among those is refused.
"""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from xaibench.submission.pack import fit

GONE = "…"
#: Accounts and machines that are nobody's in particular; some are words of a sentence.
_COMMON = {
    "root", "user", "admin", "ubuntu", "debian", "runner", "nobody", "docker", "jovyan", "test", "build", "main",
    "localhost",
}  # fmt: skip

_PART = r"[^\s/\\'\"`<>|:;,()\[\]{}]+"
_PATH = re.compile(
    rf"(?:\bfile:/{{2,3}}|(?<![\w./:<~\\-]))(?:~[\w.-]*)?/(?:{_PART}/)+(?:{_PART})?"  # /home/a/b.wav, ~/b/c, file:///a/b
    rf"|\b[A-Za-z]:[\\/](?:{_PART}[\\/])*(?:{_PART})?"  # C:\Users\a
    rf"|\\\\{_PART}\\(?:{_PART}\\?)+"  # \\server\share
)


def own_words() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Folders (longest first) and names that say whose machine this is."""
    folders, names = [], []
    with suppress(RuntimeError, OSError):  # no home, or a working directory that is gone
        folders += [str(Path.home()), str(Path.cwd())]
    with suppress(KeyError, OSError, ImportError):  # an account without a name, as in some containers
        names.append(getpass.getuser())
    host = socket.gethostname()
    names += [host, host.partition(".")[0]]
    kept = {n for n in names if len(n) > 2 and n.lower() not in _COMMON}
    return tuple(sorted({f for f in folders if len(f) > 1}, key=len, reverse=True)), tuple(sorted(kept))


class Scrubber:
    """Takes paths and names out of texts and counts the texts it changed.

    >>> scrub = Scrubber(folders=("/home/ada",), names=("ada",))
    >>> scrub("FileNotFoundError: /home/ada/data/a.flac (written by Ada); see https://arxiv.org/abs/1")
    'FileNotFoundError: …/a.flac (written by …); see https://arxiv.org/abs/1'
    >>> scrub.changed
    1
    """

    def __init__(self, *, folders: tuple[str, ...] | None = None, names: tuple[str, ...] | None = None) -> None:
        own = own_words()
        self.folders = own[0] if folders is None else folders
        names = own[1] if names is None else names
        self.names = re.compile(rf"(?<![\w])(?:{'|'.join(map(re.escape, names))})(?![\w])", re.IGNORECASE) if names else None
        self.changed = 0

    def __call__(self, text: str) -> str:
        clean = fit(text)
        for folder in self.folders:
            clean = re.sub(rf"{re.escape(folder)}(?=[/\\]|$|[^\w.-])", "/…", clean)
        clean = _PATH.sub(lambda found: _last(found.group()), clean)
        if self.names:
            clean = self.names.sub(GONE, clean)
        self.changed += clean != text
        return clean

    def everywhere(self, value: Any) -> Any:
        """A JSON value with every text scrubbed; keys stay."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {str(k): self.everywhere(v) for k, v in value.items()}
        return [self.everywhere(v) for v in value] if isinstance(value, list | tuple) else value

    def leak(self, text: str, *, names: bool = True) -> str:
        """The first piece of a text that should not leave, or "". names: whether user and machine count."""
        searches: list[Callable[[str], Any]] = [_PATH.search, *([self.names.search] if names and self.names else [])]
        found = next((hit.group() for hit in (search(text) for search in searches) if hit), "")
        return found or next((f for f in self.folders if re.search(rf"{re.escape(f)}(?=[/\\]|$|[^\w.-])", text)), "")


def _last(path: str) -> str:
    """A path's file name, without its folders; nothing of what has no ending, as it may be somebody's folder."""
    name = re.split(r"[/\\]", path)[-1]
    return f"{GONE}/{name}" if re.search(r"\.\w{1,12}$", name) else GONE
