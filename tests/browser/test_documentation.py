"""The documentation site: it builds without a warning, loads nothing from elsewhere, and works from the disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHONE = {"width": 390, "height": 800}
PAGES = ("index.html", "get-started.html", "concepts.html", "tutorial.html", "commands.html", "reference/view.html")

#: What a browser fetches by itself. A link to follow (`<a href>`) may lead anywhere.
LOADED = re.compile(
    r"<(?:script|img|iframe|audio|video|source|embed|object|link(?=[^>]*rel=\"?(?:stylesheet|preload|prefetch|preconnect|icon)))"
    r"[^>]*?\s(?:src|href|data|srcset)=[\"']?((?:https?:)?//[^\"'\s>]+)"
)
STYLES = re.compile(r"(?:url\(|@import\s)[\"']?((?:https?:)?//[^\"')\s]+)")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The site, built strictly: any warning ends the build."""
    out = tmp_path_factory.mktemp("documentation") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return out


def test_nothing_is_loaded_from_elsewhere(built):
    foreign = {
        f"{path.relative_to(built)}: {address}"
        for path in built.rglob("*.html")
        for address in LOADED.findall(path.read_text(encoding="utf-8"))
    } | {
        f"{path.relative_to(built)}: {address}"
        for path in built.rglob("*.css")
        for address in STYLES.findall(path.read_text(encoding="utf-8"))
    }
    assert not foreign


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://x.org/a.js">',
        "<img alt=a src=//x.org/a.png>",
        '<link href="https://x.org/a.css" rel="stylesheet">',
    ],
)
def test_a_foreign_resource_is_found(html):
    assert LOADED.findall(html) and not LOADED.findall('<a href="https://x.org">x</a><link rel="next" href="https://x.org">')


def test_equations_and_the_notebook_are_in_the_pages(built):
    page = (built / "homework.html").read_text(encoding="utf-8")
    assert page.count("<math") >= 3 and "arithmatex" not in page
    notebook = (built / "tutorial.html").read_text(encoding="utf-8")
    assert "<audio" in notebook and "<math" in notebook and "notebook-output-" not in notebook
    assert sorted((built / "tutorial").glob("*.png"))


def test_the_reference_shows_code_and_tables_of_docstrings(built):
    page = (built / "reference" / "view.html").read_text(encoding="utf-8")
    assert "derive_seed" in page and "&gt;&gt;&gt;" in page and "<blockquote>" not in page and "<dl>" in page


def test_pictures_of_pages_are_small_and_there():
    for page in sorted((ROOT / "docs").glob("*.md")):
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
            picture = page.parent / target
            assert picture.is_file(), f"{page.name}: {target}"
            if picture.name.startswith(("homework-", "concepts-")):
                assert picture.stat().st_size < 300_000, f"{target}: python docs/figures.py draws it anew"


@pytest.mark.parametrize("viewport", [None, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_opens_and_is_no_wider_than_its_window(built, opened, page, viewport):
    shown = opened(built / page, viewport=viewport)
    assert shown.evaluate("document.documentElement.scrollWidth") <= shown.viewport_size["width"]


def test_the_search_works_from_the_disk(built, opened):
    page = opened(built / "index.html")
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially("completeness")
    page.wait_for_selector(".md-search-result__link", timeout=60_000)  # a busy machine is slow
    assert page.locator(".md-search-result__item").count() > 2


@pytest.mark.parametrize("page", ["index.html", "concepts.html"])
def test_pages_are_accessible(built, accessible, page):
    accessible(built / page)
