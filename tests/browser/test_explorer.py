"""The explorer in a real browser, from a folder: what is seen, heard and pressed; and its sums against numpy and torch."""

import shutil

import explorer_run
import numpy as np
import pytest
import soundfile
import torch
from explorer_run import EVIL, GRID, PAIRS, RATE

from xaibench import listen, maps, registry
from xaibench.grid import Grid
from xaibench.site import explorer, levels, shell
from xaibench.truth import top_share

SAMPLES = 4_000
NATIVE, GRID_ROUTE = "toy--eq2--lcnn--native", "toy--eq2--lcnn--grid"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explorer")
    run = explorer_run.make(folder, samples=SAMPLES, routes=("grid", "native"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda group, name: explorer_run.dataset(folder))
        explorer.write([run], folder / "site", footer="a test")
    return folder


@pytest.fixture
def visit(opened, site):
    """Open a view of the explorer; `opened` sees to it that there is no error and no request to elsewhere."""

    def open_(view="", *, folder=site / "site", **options):
        page = opened(folder / "explorer.html", fragment=view, **options)
        page.wait_for_selector(".xp-card")
        return page

    return open_


def at(page, **wanted):
    """Wait until the address says so."""
    for key, value in wanted.items():
        page.wait_for_function(
            "([k, v]) => new URLSearchParams(location.hash.slice(1)).get(k) === v", arg=[key, value]
        )  # fmt: skip


def where(page, key):
    return page.evaluate("(k) => new URLSearchParams(location.hash.slice(1)).get(k)", key)


PREPARE = """async ([id, name, stop, fill]) => {
  const X = xaibench, pair = await X.pairs.pair(id), map = await pair.map(name), top = pair.top(map, stop);
  const heard = (kind) => Array.from(X.sounds.make(kind, pair, top.mask, fill));
  return { mask: Array.from(top.mask), hits: top.hits, kept: heard("kept"), deleted: heard("deleted"),
    difference: heard("difference"), fake: Array.from(pair.fake.wave), real: Array.from(pair.real.wave),
    decibel: Array.from(pair.fake.decibel), loud: Array.from(X.sounds.matched(X.sounds.make("kept", pair, top.mask, fill),
    pair.fake.wave).samples) };
}"""


def test_what_is_heard_and_seen_is_what_numpy_and_torch_say(visit, site):
    page = visit()
    for fill in ("silence", "twin"):
        script = [f"{NATIVE}/{shell.slug(PAIRS[1])}", "saliency", levels.SHARES.index(0.2), fill]
        check_sums(page.evaluate(PREPARE, script), site, fill)


def check_sums(found, site, fill):
    """What a page computed of the second pair and saliency's top 20 %, against numpy and torch."""
    pair, name = PAIRS[1], "saliency"
    real, fake = explorer_run.speech(1, SAMPLES)
    assert np.array_equal(np.float32(found["fake"]), fake) and np.array_equal(np.float32(found["real"]), real)
    truth = maps.read_truth(maps.truth_paths(site / "run", "eq2", pair)[0])
    values = maps.read_map(maps.map_path(site / "run", "lcnn", "native", name, pair)).values
    mask = top_share(torch.from_numpy(values)[None], torch.from_numpy(truth.valid), 0.2)[0].numpy()
    assert np.array_equal(np.reshape(found["mask"], mask.shape), mask)
    assert found["hits"] == (mask & truth.region).sum()
    under = real if fill == "twin" else None
    kept, removed = (f(fake, mask, GRID, fill=under) for f in (listen.kept, listen.removed))
    assert np.abs(np.array(found["kept"]) - kept).max() < 1e-5
    assert np.abs(np.array(found["deleted"]) - removed).max() < 1e-5
    loud = listen.level_matched(kept.astype(np.float64), fake)
    assert np.abs(np.array(found["loud"]) - loud.samples).max() < 1e-5 and np.abs(found["loud"]).max() <= listen.PEAK + 1e-9
    spectra = [GRID.stft(torch.from_numpy(x.astype(np.float64))[None]) for x in (real, fake)]
    differs = (spectra[1].abs() - spectra[0].abs()) * torch.exp(1j * spectra[1].angle())
    assert np.abs(np.array(found["difference"]) - GRID.istft(differs, SAMPLES)[0].numpy()).max() < 1e-5
    size = spectra[1].abs()[0].numpy()
    decibel = 20 * np.log10(np.maximum(size, 1e-10) / size.max())
    heard = decibel > -80
    assert heard.any() and np.abs(np.reshape(found["decibel"], decibel.shape) - decibel)[heard].max() < 0.1


def test_the_spectrum_is_that_of_the_grid(visit):
    page, wave = visit(), np.random.default_rng(0).normal(size=2_345)
    script = """([wave, grid]) => { const s = xaibench.stft.stft(wave, grid);
      return [Array.from(s.re), Array.from(s.im), Array.from(xaibench.stft.istft(s, grid, wave.length))]; }"""
    for grid in (Grid(), Grid(8_000, 400, 100, "hamming"), Grid(16_000, 90, 31, "blackman")):
        facts = {"rate": grid.sample_rate, "n_fft": grid.n_fft, "hop": grid.hop, "window": grid.window}
        real, imaginary, back = map(np.array, page.evaluate(script, [wave.tolist(), facts]))
        wanted = grid.stft(torch.from_numpy(wave)[None])[0].numpy()
        assert np.abs((real + 1j * imaginary).reshape(wanted.shape[::-1]).T - wanted).max() < 1e-9
        inside = np.arange(len(wave)) < (wanted.shape[1] - 1) * grid.hop
        assert np.abs(back - wave)[inside].max() < 1e-8


def test_keys_step_through_methods_utterances_shares_and_zoom(visit):
    page = visit()
    first = page.text_content("#xp-method")
    page.keyboard.press("j")
    page.wait_for_function("(old) => document.getElementById('xp-method').textContent !== old", arg=first)
    page.keyboard.press("k")
    at(page, m=first)
    page.keyboard.press("n")
    at(page, u=PAIRS[1])
    page.keyboard.press(".")
    at(page, k="7.5")
    page.keyboard.press("[")
    at(page, o="70")
    page.keyboard.press("+")
    page.wait_for_function("() => location.hash.includes('v=')")
    page.keyboard.press("0")
    page.wait_for_function("() => !location.hash.includes('v=')")
    page.go_back()
    at(page, u=PAIRS[0])
    page.keyboard.press("?")
    assert page.locator("#xp-help").is_visible()
    page.uncheck("#xp-keys")
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.wait_for_timeout(300)
    assert where(page, "u") == PAIRS[0]


def test_an_address_restores_its_view(visit):
    part = "0.1000,0.3000,500.0,2500.0"
    page = visit(f"#s={GRID_ROUTE}&u={PAIRS[2]}&m=random&v={part}&k=10&o=30&fill=twin&level=false&sort=name")
    at(page, u=PAIRS[2], m="random", v=part, k="10", o="30", s=GRID_ROUTE, fill="twin")
    assert page.text_content("#xp-method") == "random"
    assert page.input_value("#xp-opacity") == "30" and "10 %" in page.text_content("#xp-share-words")
    assert page.input_value("#xp-fill") == "twin" and not page.is_checked("#xp-level")
    names = page.eval_on_selector_all(".xp-card", "(cards) => cards.map((c) => c.dataset.name)")
    assert names == sorted(names)
    page.wait_for_selector("#xp-stage .xp-x span")
    ticks = [float(t) for t in page.locator("#xp-stage .xp-x").first.locator("span").all_text_contents()]
    assert len(ticks) > 1 and min(ticks) >= 0.1 and max(ticks) <= 0.3


@pytest.mark.parametrize(
    "view", ["#u=<b>x</b>&m=__proto__&k=7&o=x&v=1,0,a", "#s=no&sort=constructor&kind=toString&by=valueOf"]
)
def test_an_address_of_nothing_shows_something_and_says_so(visit, view):
    page = visit(view)
    at(page, u=PAIRS[0])
    assert page.text_content("#xp-method") in explorer_run.METHODS
    assert "not found here" in page.text_content("#xp-problem")


def test_names_stay_text(visit):
    page = visit()
    page.click(f".xp-card[data-name='{EVIL}'] header button")
    page.wait_for_function("(n) => document.getElementById('xp-method').textContent === n", arg=EVIL)
    assert page.locator("main img, main b:has-text('memory')").count() == 0
    page.click(".xp-card[data-name='grad-cam'] header button")
    page.wait_for_function("() => document.getElementById('xp-method').textContent === 'grad-cam'")
    assert "out of <b>memory</b>" in page.text_content("#xp-scores")
    assert "CC0 <i>" in page.text_content("#xp-licence")


def test_sounds_play_follow_the_share_and_stop(visit):
    page = visit("#loop=true")
    page.keyboard.press("4")
    page.wait_for_selector("#xp-play-kept[aria-pressed=true]")
    moved = "() => parseFloat(document.getElementById('xp').style.getPropertyValue('--play')) > 0"
    page.wait_for_function(moved)
    before = page.text_content("#xp-play-kept")
    page.keyboard.press(",")
    page.keyboard.press(",")
    page.wait_for_function("(old) => document.getElementById('xp-play-kept').textContent !== old", arg=before)
    page.keyboard.press("1")
    page.wait_for_selector("#xp-play-real[aria-pressed=true]")
    assert page.get_attribute("#xp-play-kept", "aria-pressed") == "false"
    page.keyboard.press("Escape")
    page.wait_for_selector("#xp-play-real[aria-pressed=false]")
    with page.expect_download() as download:
        page.click("#xp-sounds li:nth-child(3) button:nth-child(2)")
    assert download.value.suggested_filename.endswith("_deleted.wav")
    samples, rate = soundfile.read(download.value.path())
    assert rate == RATE and len(samples) == SAMPLES and 0 < np.abs(samples).max() < 1


def test_the_pointer_reads_the_cell_and_drags_a_part(visit):
    page = visit()
    box = page.locator("#xp-stage .xp-plot").nth(1).bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    page.wait_for_function(
        "() => /Hz · .* s · real .* dB · fake .* dB/.test(document.getElementById('xp-reading').textContent)"
    )
    assert "truth" in page.text_content("#xp-reading")
    where_to = "(all) => all.map((c) => c.offsetLeft / c.parentNode.clientWidth)"
    crosses = page.eval_on_selector_all("#xp-stage .xp-cross-t", where_to)
    assert len(crosses) == 6 and crosses == pytest.approx([0.5] * 6, abs=0.02)  # linked
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=3)
    page.mouse.up()
    page.wait_for_function("() => location.hash.includes('v=')")
    t0, t1, f0, f1 = map(float, where(page, "v").split(","))
    whole = (GRID.shape(SAMPLES)[1] - 0.5) * GRID.hop / RATE
    assert (t0, t1) == pytest.approx((0.2 * whole, 0.6 * whole), abs=0.02 * whole)
    assert (f0, f1) == pytest.approx((0.3 * RATE / 2, 0.8 * RATE / 2), abs=0.02 * RATE)
    page.mouse.dblclick(box["x"] + 50, box["y"] + 50)
    page.wait_for_function("() => !location.hash.includes('v=')")
    page.mouse.wheel(0, -300)
    page.wait_for_function("() => location.hash.includes('v=')")


def test_methods_are_found_filtered_and_sorted(visit):
    page = visit()
    shown = "(cards) => cards.map((c) => c.dataset.name)"
    assert page.eval_on_selector_all(".xp-card", shown)[:1] == [EVIL]  # best of the methods; controls stand behind
    assert set(page.eval_on_selector_all(".xp-card", shown)[-2:]) == {"random", "oracle"}
    page.select_option("#xp-metric", "deletion-twin")
    page.select_option("#xp-kind", "method")
    assert page.eval_on_selector_all(".xp-card", shown) == [EVIL, "grad-cam", "saliency"]  # lower is better
    page.fill("#xp-find", "CAM")
    assert page.eval_on_selector_all(".xp-card", shown) == ["grad-cam"]
    at(page, find="CAM", kind="method", by="deletion-twin")


def test_curves_of_method_oracle_and_random(visit):
    page = visit("#m=saliency")
    chart = page.locator("#xp-curves svg").first
    assert "deletion-twin" in chart.get_attribute("aria-label") and "saliency from 5.00 to −8.00" in chart.get_attribute(
        "aria-label"
    )
    assert chart.locator("polyline").count() == 3


def test_a_phone_has_no_sideways_scroll(visit):
    page = visit(viewport={"width": 360, "height": 740}, scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#xp-method-on").is_visible()


def test_without_recordings_maps_are_still_shown(visit, site, tmp_path):
    explorer.write([site / "run"], tmp_path, sound=False)
    page = visit(folder=tmp_path)
    assert "without recordings" in page.text_content("#xp-stage") and page.is_disabled("#xp-play-fake")
    page.keyboard.press("2")
    assert page.get_attribute("#xp-play-fake", "aria-pressed") == "false"


def test_a_missing_script_is_named(visit, site, tmp_path):
    shutil.copytree(site / "site", tmp_path / "part")
    for path in (tmp_path / "part" / "explorer").glob("*/u1*.js"):
        path.write_text("nothing = 1;", encoding="utf-8")
    page = visit(folder=tmp_path / "part")
    page.keyboard.press("n")
    page.wait_for_function("() => document.getElementById('xp-problem').textContent.includes('missing or damaged')")


@pytest.fixture
def copied(site, tmp_path):
    """A copy of the site that may be damaged."""
    return shutil.copytree(site / "site", tmp_path / "copy")


def test_where_an_utterance_is_missing_no_other_is_shown_or_heard(visit, copied):
    (lost,) = (copied / "explorer" / GRID_ROUTE).glob("u1*.js")
    lost.write_text("nothing = 1;", encoding="utf-8")
    page = visit(folder=copied)
    page.keyboard.press("2")
    page.wait_for_selector("#xp-play-fake[aria-pressed=true]")
    page.keyboard.press("n")
    page.wait_for_selector("#xp-problem:not([hidden])")
    assert "damaged" in page.text_content("#xp-problem") and page.is_hidden("#xp-stage") and page.is_hidden("#xp-gallery")
    assert page.get_attribute("#xp-play-fake", "aria-pressed") == "false"
    for key in "1j.+]":
        page.keyboard.press(key)  # there is nothing that they could act on
    page.keyboard.press("n")
    page.wait_for_selector("#xp-stage", state="visible")
    at(page, u=PAIRS[2])
    assert page.is_hidden("#xp-problem")


@pytest.mark.parametrize("name", ["explorer/index.js", "assets/explorer-panel.js"])
def test_where_a_script_is_missing_the_page_says_so(chromium, copied, name):
    (copied / name).unlink()
    page = chromium.new_page()  # not `opened`: the browser has reason to complain
    page.goto((copied / "explorer.html").as_uri())
    page.wait_for_selector("#xp-loading", state="visible")
    assert "missing or damaged" in page.text_content("#xp-loading")
    page.close()


def test_names_of_javascripts_own_are_names(visit, site, tmp_path):
    """In a script, the key `__proto__` is no key; and every object has a `constructor`."""
    run = shutil.copytree(site / "run", tmp_path / "run")
    for name in ("__proto__", "constructor"):
        for folder in (run / "maps" / "lcnn").glob("*/saliency"):
            shutil.copytree(folder, folder.with_name(name))
    explorer.write([run], tmp_path / "site", sound=False)
    page = visit("#m=__proto__", folder=tmp_path / "site")
    assert page.text_content("#xp-method") == "__proto__" and page.is_hidden("#xp-problem")
    assert {"__proto__", "constructor"} <= set(
        page.eval_on_selector_all(".xp-card", "(all) => all.map((c) => c.dataset.name)")
    )
    assert "rank-accuracy –" in page.text_content("#xp-method-facts")  # it has maps, and no row


def test_a_map_that_is_the_same_everywhere_has_no_top(visit, site, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "load", lambda group, name: explorer_run.dataset(site))
    run = shutil.copytree(site / "run", tmp_path / "run")
    for path in (run / "maps" / "lcnn" / "native" / "saliency").iterdir():
        stored = maps.read_map(path)
        maps.write_map(path, np.full(stored.values.shape, 0.5), metadata=stored.metadata)
    explorer.write([run], tmp_path / "site")
    page = visit(f"#s={NATIVE}&m=saliency", folder=tmp_path / "site")
    assert "the same everywhere" in page.text_content("#xp-stage")
    found = page.evaluate(PREPARE, [f"{NATIVE}/{shell.slug(PAIRS[1])}", "saliency", levels.SHARES.index(0.2), "silence"])
    assert not any(found["mask"]) and not any(found["kept"]) and np.allclose(found["deleted"], found["fake"], atol=1e-12)


def test_an_address_that_cannot_be_written_stops_nothing(visit):
    """Browsers refuse to write addresses when a key repeats: Safari after a hundred in half a minute."""
    page = visit()
    page.evaluate("() => { history.pushState = history.replaceState = () => { throw new DOMException('x'); }; }")
    page.keyboard.press("n")
    page.wait_for_function("() => document.getElementById('xp-pair-place').textContent.startsWith('2 of')")
    page.wait_for_function("(id) => document.getElementById('xp-said').textContent.includes(id)", arg=PAIRS[1])


def test_it_is_accessible(accessible, site):
    accessible(site / "site" / "explorer.html", ready=lambda page: page.wait_for_selector(".xp-chosen"))


def test_its_help_is_accessible_on_a_phone(accessible, site):
    def ready(page):
        page.wait_for_selector(".xp-chosen")
        page.keyboard.press("?")

    accessible(site / "site" / "explorer.html", ready=ready, viewport={"width": 360, "height": 740})
