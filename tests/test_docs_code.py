"""What the pages tell a reader to type works: Python blocks run, command lines parse, cheap ones run.

Python blocks of a page run one after another in one namespace and one empty folder (with a finished run in results/demo), as
a reader would type them. A block that cannot run here says why, in a comment before it:

    <!-- not run: needs a Slurm cluster -->

Command lines of blocks marked `bash` are parsed by the application itself, values and all; a block after `<!-- run -->` is
also executed, in its place between the Python blocks.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from xaibench.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.is_file()] + sorted((ROOT / "docs").rglob("*.md"))
SHORT = sorted((ROOT / "plugins").glob("*/README.md"))
FENCE = re.compile(r"(?:^<!--\s*(?P<note>.*?)\s*-->\n)?^```(?P<language>\w*)[^\n]*\n(?P<source>.*?)^```", flags=re.S | re.M)

#: Programs that are not ours; whether they do what the page says cannot be tested here.
OTHERS = {"source", "cd", "git", "dask", "jupyter", "conda", "twine", "ls", "open", "export", "python3", "sbatch", "pytest"}


@dataclass(frozen=True)
class Block:
    """A block of code of a page. line: of its first line."""

    page: Path
    line: int
    note: str
    language: str
    source: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, m.start("source")) + 1, m["note"] or "", m["language"], m["source"])
        for m in FENCE.finditer(text)
    ]


def commands(source: str) -> list[list[str]]:
    """The commands of a shell block, as words: comments gone, continued lines joined, pipes and `&&` taken apart."""
    lines = source.replace("\\\n", " ").splitlines()
    found: list[list[str]] = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in lexer:
            if set(word) <= set("|&;"):
                found.append(words)
                words = []
            else:
                words.append(word)
        found.append(words)
    return [words for words in found if words]


@cache
def application() -> Any:
    return get_command(app)


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command of the application that `words` (without `xaibench`) name, and the rest of them."""
    command, rest = application(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"there is no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


def parsed(words: list[str]) -> None:
    """Parse a command line as the application does: names, types, what is required. Raises AssertionError."""
    command, rest = command_of(words)
    if hasattr(command, "commands") or "--help" in rest:
        return
    try:
        command.make_context(command.name, rest)
    except Exception as error:
        if not hasattr(error, "show"):  # of the parser
            raise
        pytest.fail(f"{error}")


def test_reading_of_shell_blocks():
    source = "xaibench run --cm lcnn \\\n  --limit 2  # a comment\n\ncd x && pip install 'a[b]' | tail\n"
    expected = [["xaibench", "run", "--cm", "lcnn", "--limit", "2"], ["cd", "x"], ["pip", "install", "a[b]"], ["tail"]]
    assert commands(source) == expected


@pytest.mark.parametrize(
    "wrong", ["rnu --cm lcnn", "run", "run --cm lcnn --limmit 2", "run --cm lcnn --limit two", "data inndex x"]
)
def test_a_wrong_command_line_is_found(wrong):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        parsed(wrong.split())


@pytest.mark.parametrize("page", PAGES + SHORT, ids=lambda p: str(p.relative_to(ROOT)))
def test_command_lines_of_a_page_are_understood(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    for block in blocks(page):
        if block.language not in ("bash", "sh", "console", "shell"):
            continue
        for words in commands(block.source):
            program, *words = dropwhile(re.compile(r"[A-Z_]+=").match, words)  # a variable before a command
            where = f"{block}: {program} {' '.join(words)}"
            try:
                if program == "xaibench":
                    parsed(words)
                elif program == "make":
                    assert words[0] in targets
                elif program == "python" and words[0] != "-m":
                    assert (ROOT / words[0]).is_file() or page in SHORT
                elif program in ("pip", "python"):
                    for extra in re.findall(r"^xaibench\[(.*)\]$", "\n".join(words), flags=re.M):
                        assert set(extra.split(",")) <= set(extras)
                else:
                    assert program in OTHERS, "a program that this test does not know: see OTHERS"
            except (AssertionError, pytest.fail.Exception) as error:
                pytest.fail(f"{where}\n{error}")


@pytest.mark.parametrize("page", PAGES + SHORT, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_named_in_the_text_exist(page):
    """In running text a command may be named without what it requires; its name and its options must be there."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for line in re.findall(r"`xaibench ([a-z][^`]*)`", text):
        command, rest = command_of(line.split())
        options = {o for p in getattr(command, "params", []) for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        assert {w.partition("=")[0] for w in rest if w.startswith("--")} <= options, f"{page.name}: xaibench {line}"


def runnable(page: Path) -> bool:
    return any(b.language == "python" or b.note == "run" for b in blocks(page))


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, record_property):
    from fake_run import SCORES, rows, write_run

    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "results" / "demo", rows(SCORES))
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.note.startswith("not run"):
            reason = block.note.removeprefix("not run").removeprefix(":").strip()
            assert len(reason.split()) > 2, f"{block}: a block that does not run says why"
            record_property("not run", f"{block}: {reason}")
        elif block.language == "python":
            exec(compile(block.source, str(block), "exec"), namespace)
        elif block.note == "run":
            for words in commands(block.source):
                assert words[0] == "xaibench", f"{block}: only xaibench is run, got {words[0]}"
                assert not app(words[1:], standalone_mode=False), f"{block}: {' '.join(words)}"


def test_what_does_not_run_is_counted(capsys):
    """Printed, so that the list is read; few, so that the pages stay true."""
    skipped = [b for page in PAGES for b in blocks(page) if b.note.startswith("not run")]
    ran = [b for page in PAGES for b in blocks(page) if b.language == "python" and b not in skipped]
    with capsys.disabled():
        print(f"\n{len(ran)} Python blocks of {len(PAGES)} pages run; not run: {len(skipped)}")  # noqa: T201
        for block in skipped:
            print(f"  {block}: {block.note}")  # noqa: T201
    assert len(skipped) <= len(ran) / 4
