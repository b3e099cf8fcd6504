"""One page: a Jinja template, the files it needs, and where it stands in the site.

Every page opens from a folder (file://) and asks nobody for anything: styles and scripts lie beside it or, for a page that
is one file (`inline=True`), within it. A content security policy in every page's head forbids requests to other places, and
scripts that are not files beside the page or, within a page of one file, those that its policy names by their hashes.
Every value is escaped unless a template says otherwise, and a template that asks for a value nobody gave is an error.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from xaibench.errors import XaibenchError
from xaibench.files import write_text as write

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

HERE = Path(__file__).parent
ASSETS, TEMPLATES = HERE / "assets", HERE / "templates"
COMMON = ("site.css", "site.js")  # what every page links to
_SCRIPTS = "the-scripts-of-this-page"  # stands in a policy until the scripts are known
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAKEN = re.compile(r"index|con|prn|aux|nul|com\d|lpt\d|_.*")


def render(template: str, *, root: str = "", inline: bool = False, **content: object) -> str:
    """A page as text.

    template: a file of `templates/`. root: the way to the site's top, "" there and "../" one folder down. inline: styles and
    scripts stand within the page, which is then one file. content: what the template shows; `title` always, and for the
    frame `nav`, pairs of label and address from the top of the site, and `footer`, a sentence.

    Raises XaibenchError for a template that is not there, or that shows what was not given.

    >>> "&lt;b&gt;" in render("base.html.j2", title="<b>")
    True
    """
    from jinja2 import TemplateNotFound, UndefinedError
    from markupsafe import Markup

    own: list[str] = []  # hashes of the scripts that stand within the page: a policy that names them allows no other
    frame: dict[str, object] = {"root": root, "inline": inline, "nav": (), "footer": "", "own": own}
    frame["scripts"] = _SCRIPTS if inline else Markup("'self' file:")
    try:
        page = _environment().get_template(template).render({**frame, **content})
        return page.replace(_SCRIPTS, " ".join(own) or "'none'", 1) if inline else page  # the first: before all content
    except TemplateNotFound as error:
        raise XaibenchError(f"{error.name}: no such template in {TEMPLATES.name}/") from error
    except UndefinedError as error:
        raise XaibenchError(f"{template}: {error.message}; the page was not given all it shows") from error


def copy_assets(site: Path, names: Sequence[str] = ()) -> list[Path]:
    """Copy the common files, and these, to `site/assets`. `plotly.min.js` comes from the package plotly."""
    return [write(Path(site) / "assets" / name, _asset_text(name)) for name in dict.fromkeys((*COMMON, *names))]


def plotly_js() -> Path:
    """The plotting library's script, as its Python package carries it."""
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"


def slug(name: str) -> str:
    """Any name as a part of a file name and an address: distinct names stay distinct, plain ones stay as they are.

    What names a folder's own page, a device of Windows, or begins as files that servers hide do is not plain.

    >>> slug("grad-cam++"), slug("lcnn"), slug("a b") == slug("a-b"), slug("index")
    ('grad-cam++', 'lcnn', False, 'index-1bc04b')
    """
    plain = re.sub(r"[^a-z0-9+_-]+", "-", name.lower()).strip("-")[:60]
    if plain and plain == name and not _TAKEN.fullmatch(plain):
        return plain
    return f"{plain.lstrip('_') or 'x'}-{hashlib.sha256(name.encode('utf-8', 'replace')).hexdigest()[:6]}"


def section_slug(facts: Mapping[str, str]) -> str:
    """The slug of a section of the board: its page's name, and how the explorer's addresses call it.

    >>> section_slug({"dataset": "minivoc", "truth": "eq2", "countermeasure": "lcnn", "route": "native"}) == slug(
    ...     "minivoc--eq2--lcnn--native")
    True
    """
    return slug("--".join(facts[name] for name in ("dataset", "truth", "countermeasure", "route")))


def data_uri(content: bytes, mime: str) -> str:
    """Bytes as an address that holds them.

    >>> data_uri(b"ab", "audio/flac")
    'data:audio/flac;base64,YWI='
    """
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def script(function: str, *arguments: object) -> str:
    """A script that hands data to a function: how a page from a folder loads what it shows, as it may not fetch.

    Unknown and infinite numbers become null, and the key `__proto__` one like any other, which a script would take for the
    ancestor of the object. Raises XaibenchError for what JSON cannot hold.

    >>> script("xaibench.deliver", "a", {"b": float("nan")})
    'xaibench.deliver("a", {"b": null});\\n'
    """
    texts = (re.sub(r'(?<!\\)"__proto__":', '["__proto__"]:', json_text(a)) for a in arguments)
    return f"{function}({', '.join(texts)});\n"


def json_text(value: object) -> str:
    """JSON that may stand in a script: `<`, `>` and `&` and the two separators that end lines are written as escapes.

    >>> json_text({"a": "</script>", "b": float("inf")})
    '{"a": "\\\\u003c/script\\\\u003e", "b": null}'
    """
    from xaibench.leaderboard.writing import plain

    try:
        text = json.dumps(plain(value), allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise XaibenchError(f"a page cannot hold this as JSON: {error}") from error
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def number(value: float | None, digits: int = 3) -> str:
    """A number for people; a dash for the unknown.

    >>> number(0.2134), number(float("nan")), number(None), number(1234.5), number(-0.0003, 2)
    ('0.213', '–', '–', '1230', '0.00')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    kept = digits - 1 - math.floor(math.log10(abs(value)))  # decimal places of so many digits; negative: tens, hundreds
    text = f"{round(value, kept):.{min(max(kept, 0), digits)}f}"
    return text if float(text) else text.lstrip("-")  # what rounds to nothing has no sign


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, finalize=_in_order,
    )  # fmt: skip
    environment.filters["number"] = number
    environment.filters["json"] = lambda value: Markup(json_text(value))
    environment.globals["slug"] = slug

    @pass_context
    def asset(context, name: str) -> Markup:
        element, text = _element(name, context["root"], context["inline"])
        if text:
            context["own"].append(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'")
        return element

    environment.globals["asset"] = asset
    return environment


def _in_order(value: object) -> object:
    """Text with signs for the direction of writing written out: one that is not closed turns round the numbers after it.

    >>> _in_order("a\u202e12"), _in_order(12)
    ('aU+202E12', 12)
    """
    return _TURNS.sub(lambda sign: f"U+{ord(sign[0]):04X}", value) if type(value) is str else value


def _element(name: str, root: str, inline: bool) -> tuple[Markup, str]:
    """The element that brings a style or a script into a page, and the script's text where it stands in there."""
    from markupsafe import Markup, escape

    style = name.endswith(".css")
    if inline:
        # An end tag within a script or a style would end it.
        text = re.sub(r"</(?=script|style)", r"<\\/", _asset_text(name), flags=re.IGNORECASE)
        return (Markup(f"<style>{text}</style>"), "") if style else (Markup(f"<script>{text}</script>"), text)
    address = escape(f"{root}assets/{name}")
    link = f'<link rel="stylesheet" href="{address}">' if style else f'<script src="{address}" defer></script>'
    return Markup(link), ""


@cache
def _asset_text(name: str) -> str:
    path = plotly_js() if name == "plotly.min.js" else ASSETS / name
    if not path.is_file():
        raise XaibenchError(f"{name}: no such file in {ASSETS.name}/")
    return path.read_text(encoding="utf-8")
