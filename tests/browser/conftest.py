"""A real browser for the tests of pages: Chromium through Playwright, opened on files, watched for what a page must not do.

    def test_a_page(opened):
        page = opened(path)                  # file://, fails the test at its end for a console error or a foreign request
        page.get_by_role("button").click()

    def test_its_accessibility(path, accessible):
        accessible(path)                     # axe-core, in light and dark

The browser is that of XAIBENCH_CHROMIUM, or the first of chromium, chromium-browser and google-chrome on the PATH; without
one, or without Playwright, these tests are skipped. The browser's own traffic is switched off: pages need no network.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SERIOUS = ("serious", "critical")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


class Watch:
    """Opens pages, and notes what they complain about and ask for. folder: outside it nothing may be asked for."""

    def __init__(self, browser, folder: Path) -> None:
        self.browser, self.folder = browser, Path(folder).resolve()
        self.contexts: list = []
        self.errors: list[str] = []
        self.foreign: list[str] = []

    def __call__(self, path: Path, *, viewport: dict | None = None, scheme: str = "light", fragment: str = "", **options):
        """A page of `path`, loaded. options: of Playwright's `new_context` (`java_script_enabled=False`, say)."""
        usual = {"viewport": viewport or WIDE, "color_scheme": scheme, "reduced_motion": "reduce"}
        context = self.browser.new_context(**usual, **options)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: self.errors.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.errors.append(f"page: {e}"))
        page.on("requestfailed", self._failed)
        page.on("request", lambda r: self.foreign.append(r.url) if not self.mine(r.url) else None)
        page.goto(Path(path).resolve().as_uri() + fragment)
        return page

    def _failed(self, request) -> None:
        if "ERR_ABORTED" not in str(request.failure):  # a page left while it loads
            self.errors.append(f"failed: {request.url} ({request.failure})")

    def mine(self, address: str) -> bool:
        """Whether an address is of the folder, or holds its own content."""
        parts = urlsplit(address)
        if parts.scheme in ("data", "blob", "about"):
            return True
        return parts.scheme == "file" and Path(unquote(parts.path)).resolve().is_relative_to(self.folder)

    def check(self) -> None:
        """Fail for anything noted so far."""
        assert not self.errors, self.errors
        assert not self.foreign, f"asked for outside the folder: {self.foreign}"

    def close(self) -> None:
        for context in self.contexts:
            context.close()


@pytest.fixture
def watching(chromium):
    """`watching(folder)`: a `Watch`; what its pages did is checked when the test ends."""
    watches: list[Watch] = []

    def make(folder: Path) -> Watch:
        watches.append(Watch(chromium, folder))
        return watches[-1]

    yield make
    for watch in watches:
        watch.close()
    for watch in watches:
        watch.check()


@pytest.fixture
def opened(watching):
    """`opened(path, ...)`: a page. It may ask its site, the outermost of three folders with an index.html, else its own."""
    watches: dict[Path, Watch] = {}

    def make(path: Path, **options):
        sites = [p for p in list(Path(path).parents)[:3] if (p / "index.html").is_file()]
        folder = sites[-1] if sites else Path(path).parent
        if folder not in watches:
            watches[folder] = watching(folder)
        return watches[folder](path, **options)

    return make


@pytest.fixture
def accessible(opened):
    """`accessible(path, ready=None, viewport=None)`: no serious or critical fault by axe-core, in light and in dark
    (of which the latter is asked for its contrast).

    ready: called with the page before it is looked at, to open what is closed.
    """
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

    def check(path: Path, *, ready=None, viewport: dict | None = None) -> None:
        for scheme in ("light", "dark"):
            page = opened(path, scheme=scheme, viewport=viewport)
            if ready is not None:
                ready(page)
            options = {"preload": False}  # preloading breaks the policy
            if scheme == "dark":
                options["runOnly"] = ["color-contrast"]  # nothing else changes with the theme
            found = axe.Axe().run(page, options=options).response["violations"]
            faults = [v for v in found if v["impact"] in SERIOUS]
            told = [f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:200]} (of {len(v['nodes'])})" for v in faults]
            assert not told, f"{Path(path).name}, {scheme}: " + "; ".join(told)

    return check
