"""Pages of methods and countermeasures in a browser: copied from a folder, readable on a phone, no fault of access."""

import fake_run
import pytest

from xaibench.site import downloads, installed, profiles
from xaibench.site.installed import Facts
from xaibench.site.source import read

PHONE = {"width": 360, "height": 740}
HOSTILE = "<img src=x onerror=alert(1)>"
PAPER = "Selvaraju et al., ICCV 2017, arXiv 1610.02391"
PAGES = ("methods/index.html", "methods/grad-cam.html", "countermeasures/index.html", "countermeasures/lcnn.html",
         "downloads/index.html")  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    record = fake_run.run_record()
    record["countermeasures"]["lcnn"]["card"] = {
        "paper": HOSTILE, "trained_on": {"vocoders": [HOSTILE]}, "eer": {"eval": {HOSTILE: {"pooled": 0.1}}},
    }  # fmt: skip
    rows = fake_run.rows(fake_run.SCORES, utterances=8).replace({"vocoder": {"world": HOSTILE}})
    rows = fake_run.fail(rows, rows["attributor"].eq("grad-cam") & rows["utterance"].eq("u1"), note=HOSTILE)
    source = read([fake_run.write_run(folder / "run", rows, record)])
    with pytest.MonkeyPatch.context() as patch:
        told = {"origin": "pack 1.0", "paper": PAPER, "summary": f"{HOSTILE} `x`", "options": {"layer": HOSTILE}}
        patch.setattr(installed, "facts", lambda group, names, records=(): {n: Facts(n, **told) for n in names})
        profiles.write(source, folder / "site")
        downloads.write(source, folder / "site")
    return folder / "site"


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "none"])
def test_the_bibtex_is_copied(site, watching, clipboard):
    page = watching(site)(site / "methods/grad-cam.html", permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:  # as in a browser that gives pages from a folder none: the text is selected, and copied by command
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy").press("Enter")
    page.get_by_text("Copied.").or_(page.get_by_text("Selected:")).wait_for()
    copied = page.evaluate("navigator.clipboard.readText()" if clipboard else "getSelection().toString()")
    assert copied.strip().startswith("@inproceedings{selvaraju2017gradcam,") and copied.strip().endswith("}")


def test_pages_fit_a_phone_and_hold_no_foreign_markup(site, watching):
    watch = watching(site)
    for name in PAGES:
        page = watch(site / name, viewport=PHONE)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert page.locator("img").count() == 0, name
        assert page.get_by_role("heading", level=1).count() == 1, name


def test_pages_are_readable_without_scripts(site, watching):
    page = watching(site)(site / "methods/grad-cam.html", java_script_enabled=False)
    assert page.get_by_text("@inproceedings{selvaraju2017gradcam").is_visible()
    assert page.get_by_role("button", name="Copy").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_nothing_keeps_anyone_out(site, watching, name):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    watch = watching(site)
    for viewport, scheme in ((None, "light"), (PHONE, "dark")):
        page = watch(site / name, viewport=viewport, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]
        assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")], (scheme, found[0]["nodes"][0]["html"])
