"""What the documentation site needs beyond mkdocs itself: it is built without a network and opens from the disk.

- the executed notebook docs/tutorial.ipynb becomes the page `tutorial.md`, outputs and pictures included
- pages that live elsewhere in the repository (benchmarks, changelog, how to contribute) become pages of the site
- a link that leaves docs/ leads to such a page where there is one; to other files of the repository it becomes their path
- LaTeX between dollars becomes MathML, which browsers draw by themselves

mkdocs calls the functions named `on_...` (mkdocs.yml, `hooks`).
"""

from __future__ import annotations

import base64
import html
import json
import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]

#: Files of the repository outside docs/ -> the page that shows them.
PAGES = {"benchmarks/README.md": "benchmarks.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

#: Links that have a better place on the site than the file they name.
BETTER = {
    "README.md": "index.md",
    "README.md#your-own-method": "own-method.md",
    "docs/tutorial.ipynb": "tutorial.md",
    **PAGES,
}

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", flags=re.S | re.M)
MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', flags=re.S)
PLACE = re.compile(r"<p>notebook-output-(\d+)</p>")

#: Cells' HTML, put in after Markdown has been converted, so that Markdown does not read it.
_outputs: list[str] = []


def on_files(files: Any, *, config: Any) -> Any:
    """Add the pages that have no file in docs/."""
    for source, page in PAGES.items():
        if (ROOT / source).is_file():
            text = rebased((ROOT / source).read_text(encoding="utf-8"), source)
            files.append(File.generated(config, page, content=text))
    text, pictures = notebook_page(json.loads((ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8")))
    files.append(File.generated(config, "tutorial.md", content=text))
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(text: str, *, page: Any, **_: Any) -> str:
    """Links that leave docs/."""
    source = "docs/" + page.file.src_uri
    if page.file.src_uri in PAGES.values():  # already rebased
        return text
    return _outside_code(text, lambda part: LINK.sub(lambda m: _link(m, source), part))


def on_page_content(page_html: str, **_: Any) -> str:
    """Equations, and the outputs of the notebook."""
    page_html = MATH.sub(lambda m: _equation(m[3], "inline" if m[2] == "(" else "block"), page_html)
    return PLACE.sub(lambda m: _outputs[int(m[1])], page_html)


def notebook_page(book: Mapping[str, Any]) -> tuple[str, dict[str, bytes]]:
    """An executed notebook as Markdown, and the pictures it shows, by their path on the site."""
    _outputs.clear()
    parts, pictures = [], {}
    for number, cell in enumerate(book["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for place, output in enumerate(cell["outputs"]):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"tutorial/{number:02d}-{place}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![what the cell above draws]({name})")
            elif "text/html" in data:
                parts.append(f"notebook-output-{len(_outputs)}")
                _outputs.append(f'<div class="notebook-output">{"".join(data["text/html"])}</div>')
            else:
                words = "".join(data.get("text/plain", output.get("text", "")))
                parts.append(f"notebook-output-{len(_outputs)}")
                _outputs.append(f'<pre class="notebook-output">{html.escape(words)}</pre>')
    head, _, rest = parts[0].partition("\n")
    download = "This page is an executed notebook: [tutorial.ipynb](tutorial.ipynb), to run yourself."
    return "\n\n".join([head, download, rest.strip(), *parts[1:]]) + "\n", pictures


def rebased(text: str, source: str) -> str:
    """The Markdown of a file outside docs/ as a page of docs/: its links as seen from there."""
    return _outside_code(text, lambda part: LINK.sub(lambda m: _link(m, source), part))


def _link(match: re.Match[str], source: str) -> str:
    """A link of the file `source`, a path in the repository, as the site needs it."""
    picture, label, target = match.groups()
    if re.match(r"[a-z]+:|#|/", target) or (target == "tutorial.ipynb" and source == "docs/tutorial.md"):
        return match[0]
    path, mark, anchor = target.partition("#")
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    here = posixpath.dirname(source) if source.startswith("docs/") else "docs"
    if whole + mark + anchor in BETTER or whole in BETTER:
        found = BETTER.get(whole + mark + anchor) or BETTER[whole] + mark + anchor
        return f"{picture}[{label}]({posixpath.relpath('docs/' + found, here)})"
    if whole.startswith("docs/"):
        return f"{picture}[{label}]({posixpath.relpath(whole, here)}{mark}{anchor})"
    return label if label.strip("`") == whole else f"{label} (`{whole}` in the repository)"


def _outside_code(text: str, change: Any) -> str:
    return "".join(part if number % 2 else change(part) for number, part in enumerate(CODE.split(text)))


def _equation(latex: str, display: str) -> str:
    return convert(html.unescape(latex.strip()), display=display)
