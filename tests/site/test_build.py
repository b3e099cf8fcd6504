"""A site is whole: every page is there, every link leads somewhere within it, and the same runs make the same pages."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fake_run
import pytest

from xaibench.errors import RunError
from xaibench.site import installed
from xaibench.site.build import build

HOSTILE = "<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Ids, addresses, and elements of a page."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.addresses, self.tags, self.handlers = set(), [], [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                assert value not in self.ids, f"the id {value} is there twice"
                self.ids.add(value)
            if name in ("href", "src") and value:
                self.addresses.append((tag, value))
            if name.startswith("on"):
                self.handlers.append(name)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Two boards and a hostile name; plugins are not asked what they are, which takes the time of their import."""
    folder = tmp_path_factory.mktemp("site")
    scores = fake_run.SCORES | {HOSTILE: {"rank-accuracy": 0.3, "drop-twin": 0.5}}
    table = fake_run.rows(scores)
    runs = [fake_run.write_run(folder / "one", table)]
    record = fake_run.run_record(dirty=True)
    record["countermeasures"] = {"<b>cm</b>": record["countermeasures"]["lcnn"]}
    other = table.assign(countermeasure="<b>cm</b>")
    target = folder / "two"
    part = target / "rows" / "cm"
    part.mkdir(parents=True)
    other.to_parquet(part / "a.parquet", index=False)
    (target / "run.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "_ask", lambda group, names, records=(): {})
        build([*runs, target], folder / "site", explorer=False)
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_kind_of_page_is_there(site, pages):
    names = {p.relative_to(site).as_posix() for p in pages}
    assert {"index.html", "methods/index.html", "countermeasures/index.html", "downloads/index.html"} <= names
    assert sum(n.startswith("boards/") for n in names) == 2
    assert (site / "assets" / "plotly.min.js").stat().st_size > 1e6


def test_every_link_leads_to_a_file_of_the_site(site, pages):
    for path, page in pages.items():
        for tag, address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme:
                assert parts.scheme == "data" or (tag, parts.scheme) == ("a", "https"), f"{path}: {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file() and target.is_relative_to(site.resolve()), f"{path.name}: {address}"
            if parts.fragment and target in pages:
                assert parts.fragment in pages[target].ids, f"{path.name}: {address}"


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"<(?:script|link|img|audio|iframe)[^>]+(?:src|href)=\"?(?:https?:)?//", text), path.name
        assert not page.handlers, f"{path.name}: {page.handlers}"


def test_no_page_names_the_folder_it_was_made_in(site, pages):
    assert not [p.name for p in pages if str(site.parent) in p.read_text(encoding="utf-8")]


def test_names_of_others_stay_text(pages):
    boards = [p for p in pages if p.parent.name == "boards"]
    for path, page in pages.items():
        assert page.tags.count("img") == 0, path.name
    assert boards and all("&lt;img src=x onerror=alert(1)&gt;" in p.read_text(encoding="utf-8") for p in boards)
    assert all("<b>cm</b>" not in p.read_text(encoding="utf-8") for p in pages)


def test_a_board_says_what_it_is_and_what_it_lacks(pages):
    (marked,) = [t for p in pages if p.parent.name == "boards" and "&lt;b&gt;cm" in (t := p.read_text(encoding="utf-8"))]
    for text in ("EER 5.0%", "toy", "eq2", "6 utterances x 2 vocoders", "kept no maps", "code with uncommitted changes"):
        assert text in marked, text
    assert marked.count("<tbody") >= 3 and marked.index("What it says</h2>") < marked.index("The board</h2>")


def test_the_first_page_says_why_there_is_no_picture_and_shows_every_board(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert text.count('class="card"') == 2 and "Add your method" in text and "<img" not in text


def test_the_same_runs_make_the_same_pages(site, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "_ask", lambda group, names, records=(): {})
        build([site.parent / "one", site.parent / "two"], tmp_path / "again", explorer=False)
    first = {p.relative_to(site): p.read_bytes() for p in sorted(site.rglob("*.html"))}
    again = {p.relative_to(tmp_path / "again"): p.read_bytes() for p in sorted((tmp_path / "again").rglob("*.html"))}
    assert first == again


def test_no_folder_no_site(tmp_path):
    with pytest.raises(RunError, match="not a run folder"):
        build([tmp_path / "none"], tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_every_address_in_the_style_sheets_is_of_the_site(site):
    for path in sorted((site / "assets").glob("*.css")):
        assert "url(" not in path.read_text(encoding="utf-8") and "@import" not in path.read_text(encoding="utf-8")
    assert Path(site / "assets" / "board.css").is_file()
