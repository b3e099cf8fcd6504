"""The application, its groups of commands, and the way out: every error of ours becomes one readable line."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from xaibench.cli.stopping import STATUS, STOPPED, heard, heeding_interrupts, leave, told
from xaibench.errors import XaibenchError, first_line
from xaibench.errors import told as told_of
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
    except XaibenchError as error:
        fail(f"error: {error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _stop()
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except SystemExit as left:  # no code of ours calls it in here: a plugin would end the command without a word
        fail(f"error: a plugin or a library called sys.exit({first_line(left.code)}) before the command was done", 1)
    except Exception as error:
        if hasattr(error, "show"):  # a usage error of click: bad option, missing argument
            error.show()
            sys.exit(2)
        if heard.wait(0.1):  # of Ctrl-C within a call into C, some libraries make an error of their own
            _stop()
        if said := _of_the_device(error):
            fail(f"error: {said}", 2)
        raise
    if code:
        fail("", code)


def _of_the_device(error: Exception) -> str:
    """What an error says of memory or of a card, where nothing else of us could; empty of any other."""
    sizes = sys.modules.get("xaibench.harness.sizes")  # torch is not imported to say that something else went wrong
    if sizes is None:
        return ""
    if sizes.is_out_of_memory(error):
        return f"memory ran out ({told_of(error)}); take fewer inputs at a time where there is an option, or another device"
    return f"the device was lost ({told_of(error)}); run the command again" if sizes.is_poisoned(error) else ""


def _stop() -> NoReturn:
    """Say that Ctrl-C ended the command, and leave."""
    told.set()
    print(STOPPED, file=sys.stderr)
    leave()
    sys.exit(STATUS)


def fail(message: str, code: int) -> None:
    """Print one line to the standard error and leave."""
    print(printable(message), file=sys.stderr)
    sys.exit(code)
