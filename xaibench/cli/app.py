"""The application, its groups of commands, and the way out: every error of ours becomes one readable line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from xaibench.cli.stopping import STATUS, STOPPED, heeding_interrupts, told
from xaibench.errors import XaibenchError
from xaibench.reading import printable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Score explanations of speech anti-spoofing countermeasures against vocoder-difference truth.\n\n"
    "Start with `xaibench run --cm lcnn --xai all`: it trains nothing and downloads nothing, and prints the board.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: what they hold, and whether their files are intact.")
app.add_typer(data_app, name="data")

Names = Annotated[str, typer.Option(metavar="NAME[,NAME...]")]


def main() -> None:
    """Entry point: our own errors become one readable line, and so does Ctrl-C."""
    try:
        with heeding_interrupts():
            code = app(standalone_mode=False)  # typer turns Ctrl-C into an exit code
        if code == STATUS:
            raise KeyboardInterrupt
        if code:
            fail("", code)
    except XaibenchError as error:
        fail(f"error: {error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        told.set()
        fail(STOPPED, STATUS)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except Exception as error:
        if hasattr(error, "show"):  # a usage error of click: bad option, missing argument
            error.show()
            sys.exit(2)
        raise


def fail(message: str, code: int) -> None:
    """Print one line to the standard error and leave."""
    print(printable(message), file=sys.stderr)
    sys.exit(code)
