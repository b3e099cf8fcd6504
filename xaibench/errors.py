"""The errors xaibench raises on purpose.

Every message names the offending value, what was expected, and the likely mistake, so that a user can act on the last
line of the output alone. Anything else that escapes is a bug of ours.
"""


class XaibenchError(Exception):
    """Root of every error raised on purpose."""


class AudioError(XaibenchError):
    """A recording cannot be used: missing, truncated, empty, NaN, stereo or of the wrong rate."""


class ManifestError(XaibenchError):
    """A manifest, or a file it lists, is not what it claims to be."""


class CheckpointError(XaibenchError):
    """Weights cannot be loaded: unknown, unsafe (pickle) or of another architecture."""


class PluginError(XaibenchError):
    """A plugin is unknown, failed to import, or breaks its contract."""


class Unsupported(XaibenchError):
    """A countermeasure cannot offer what a method or metric needs. Becomes an `unsupported` row, never a crash."""


class Undefined(XaibenchError):
    """A score has no value for this input (an all-zero map, say). Becomes an `undefined` row, never a zero."""


class RunError(XaibenchError):
    """A run directory cannot be used or continued."""


class SubmissionError(XaibenchError):
    """A run cannot be submitted, or a submission pack is not what `xaibench submit` writes."""


class XaibenchWarning(UserWarning):
    """What a user should know of a result that stands all the same; the command line prints it as a note."""


#: Most characters of a sentence of others: torch lists every backend that it has, some print the tensor itself.
LONGEST = 500


def text_of(thing: object) -> str:
    """`str(thing)`, also of an error whose own text fails, or ends the process."""
    try:
        return str(thing)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - it is still an error, and somebody wants to tell it
        return "(what it says cannot be printed)"


def first_line(thing: object) -> str:
    r"""What an error, a warning or a text of others says, in one line that a table and a terminal can hold.

    It is cut to `LONGEST` characters; what would move a cursor, or is no character, becomes a space.

    >>> first_line(ValueError("\x1b[31mred\x1b[0m and\ntwo lines"))
    ' [31mred [0m and'
    """
    text = text_of(thing)[: 100 * LONGEST]  # cut before it is looked at: it may be a gigabyte
    line = "".join(c if c.isprintable() else " " for c in next(iter(text.splitlines()), ""))
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def told(error: BaseException) -> str:
    """An error of others as a sentence: its kind and its first line.

    >>> told(ZeroDivisionError("division by zero"))
    'ZeroDivisionError: division by zero'
    """
    line = first_line(error)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
