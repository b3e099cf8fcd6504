"""The command `list`."""

from __future__ import annotations

from typing import Annotated

import typer

from xaibench.cli.app import app
from xaibench.cli.output import console
from xaibench.errors import XaibenchError, first_line


@app.command("list")
def list_(
    group: Annotated[str | None, typer.Argument(help="countermeasures, attributors, metrics, datasets or vocoders.")] = None,
) -> None:
    """Show every plugin, the package and version it comes from, and the error of one that fails to import."""
    from rich.markup import escape
    from rich.table import Table

    from xaibench import __version__, registry
    from xaibench.installed import swapped
    from xaibench.metrics.catalog import METRICS
    from xaibench.protocols import GROUPS

    if group is not None and group not in GROUPS:
        raise XaibenchError(registry.unknown("group", group, list(GROUPS)))
    problems = dict(registry.problems())
    screen = console(markup=True)
    for name in GROUPS if group is None else (group,):
        table = Table("name", "package", "version", "note", title=name, title_justify="left", box=None, pad_edge=False)
        if name == "metrics":
            for metric in METRICS.values():
                note = f"{metric.family}, {metric.direction} is better; {metric.paper}"
                table.add_row(metric.name, "xaibench", __version__, note)
        for plugin, claims in registry.plugins(name).items():
            note = problems.pop(f"{name}/{plugin}", "")
            for claim in claims:
                mine = "" if len(claims) > 1 and claim.distribution == registry.CORE else note
                text = f"[red]{escape(mine)}[/red]" if mine else escape(registry.ageing(claim))
                table.add_row(*map(escape, (first_line(plugin), claim.distribution, claim.version)), text)
        if table.row_count:
            screen.print(table)
            screen.print()
    for note in problems.values() if group is None else ():
        screen.print(f"[red]{escape(note)}[/red]")
    for note in swapped():
        screen.print(f"[yellow]{escape(note)}[/yellow]")
