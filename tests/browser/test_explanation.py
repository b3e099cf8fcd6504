"""The page of `xaibench explain` in a browser: one file, sounds that play, a narrow screen, no fault that axe-core finds."""

import numpy as np
import pytest
import soundfile
import toybench
from toys import GRID, N_SAMPLES

from xaibench.analysis.explanation import explain
from xaibench.analysis.page import write_folder
from xaibench.analysis.recording import Settings

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def page_file(tmp_path, monkeypatch):
    """A page alone in a folder: what it needs, it has within it."""
    toybench.install(monkeypatch, "toy-gradient", "toy-unsupported")
    checkpoint = toybench.write_checkpoint(tmp_path / "weights")
    path = tmp_path / f"{EVIL}.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(4 * N_SAMPLES), GRID.sample_rate)
    settings = Settings(checkpoint=str(checkpoint))
    found = explain(path, cm="toy", xai="toy-gradient,toy-unsupported", device="cpu", settings=settings)
    alone = tmp_path / "alone" / "page.html"
    alone.parent.mkdir()
    write_folder(found, tmp_path / "out").rename(alone)
    return alone


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_alone_shows_and_plays_everything(page_file, opened, viewport):
    page = opened(page_file, viewport=viewport)
    assert page.get_by_role("heading", level=1).inner_text() == f"{EVIL}.wav" and page.locator("img[src=x]").count() == 0
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 900 && i.alt.length > 10)")
    assert page.locator("audio").count() == 3
    for index in range(3):
        sound = page.locator("audio").nth(index)
        sound.evaluate("a => a.play()")
        page.wait_for_function("i => document.querySelectorAll('audio')[i].currentTime > 0", arg=index)
        assert abs(sound.evaluate("a => a.duration") - 1.0) < 0.01
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"], "the page scrolls sideways"
    page.get_by_text("The numbers").click()
    assert page.locator("#windows ~ details tbody tr").count() == 7
    assert page.get_by_text("needs an LSTM").is_visible()


def test_it_has_no_serious_fault(page_file, accessible):
    def open_all(page):
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")

    accessible(page_file, ready=open_all, viewport=PHONE)
