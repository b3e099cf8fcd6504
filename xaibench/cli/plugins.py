"""The command `plugin new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import say

plugin_app = typer.Typer(no_args_is_help=True, help="Plugins of your own: a package to start from.")
app.add_typer(plugin_app, name="plugin")


@plugin_app.command("new")
def plugin_new(
    kind: Annotated[str, typer.Argument(help="countermeasure, attributor, metric, dataset or vocoder.")],
    name: Annotated[str, typer.Argument(help="What it is called on the command line, as in my-method.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the package; default: xaibench-NAME, here.")] = None,
    author: Annotated[str | None, typer.Option(help="For its licence; default: git's user.name.")] = None,
) -> None:
    """Write a package that works before a line is changed: example, tests, README, licence, CI.

    `xaibench plugin new attributor my-method`
    """
    import shlex

    from xaibench.scaffold.names import names_of, refuse_taken
    from xaibench.scaffold.package import NOBODY, git_author, render, write

    names = names_of(kind, name)
    refuse_taken(names)
    folder = out or Path(names.distribution)
    who = author or git_author() or NOBODY
    files = render(names, author=who)
    write(files, folder)
    say(f"{folder}: the {kind} {name!r}, {len(files)} files by {who}. It works as it is:\n")
    for line in (f"cd {shlex.quote(str(folder))}", "pip install -e '.[test]'", "pytest", f"xaibench check {name}"):
        say(f"  {line}")
    say(f"\nThen open {names.module}/{kind}.py and put yours in the place of the example; README.md has the rest.")
