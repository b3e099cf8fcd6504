"""The site in a real browser, from file://: sorting, filtering, keyboard, a phone, both themes, and names that stay text.

`opened` fails a test for anything a page writes to the console as an error or warning, and for any request out of the site.
"""

import fake_run
import pytest

from xaibench.site import installed
from xaibench.site.build import build

HOSTILE = "<img src=x onerror=alert(1)>"
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A board of five methods, a sham, two floors and a ceiling; lime lacks a third of its cells in one metric."""
    folder = tmp_path_factory.mktemp("browser")
    scores = fake_run.SCORES | {
        HOSTILE: {"rank-accuracy": 0.3, "drop-twin": 0.5},
        "grad-cam++": {"rank-accuracy": 0.41, "drop-twin": 0.35},
        "moved-truth": {"rank-accuracy": 0.06, "drop-twin": 0.15},
    }
    more = {name: {**means, "iou@5": means["rank-accuracy"] / 2} for name, means in scores.items()}
    table = fake_run.rows(more)
    gone = table["attributor"].eq("lime") & table["utterance"].isin(["u0", "u1"]) & table["metric"].eq("drop-twin")
    table = fake_run.fail(table, gone, note=f"no {HOSTILE}")
    seconds = {name: 0.01 * (i + 1) for i, name in enumerate(more)}
    run = fake_run.write_run(folder / "run", table.assign(seconds=table["attributor"].map(seconds)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "_ask", lambda group, names, records=(): {})
        build([run], folder / "site", explorer=False)
    return folder / "site"


@pytest.fixture(scope="module")
def board(site):
    (path,) = (site / "boards").glob("*.html")
    return path


def names(page, kind="method"):
    """Names of the rows of a block that are shown, from the top."""
    rows = page.locator(f"tbody[data-kind={kind}] tr[data-name]:visible")
    return rows.evaluate_all("rows => rows.map(row => row.dataset.name)")


def heading(page, name):
    return page.locator("#table thead th").filter(has_text=name)


def test_sorting_by_a_metric_is_best_first_then_worst_then_as_it_was(opened, board):
    page = opened(board)
    first = names(page)
    head = heading(page, "drop-twin")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert names(page) == ["saliency", "lime", HOSTILE, "grad-cam++", "grad-cam"]
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("button").click()
    assert names(page) == ["grad-cam", "grad-cam++", HOSTILE, "lime", "saliency"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert names(page) == first and head.get_attribute("aria-sort") == "none"


def test_blocks_stay_apart_while_sorting(opened, board):
    page = opened(board)
    heading(page, "seconds").get_by_role("button").click()
    kinds = page.locator("#table tbody").evaluate_all("bodies => bodies.map(b => b.dataset.kind)")
    assert kinds == ["ceiling", "method", "sham", "floor"]
    assert names(page, "floor") == ["inverse-energy", "random"] and names(page, "ceiling") == ["oracle"]
    first = page.locator("#table tbody tr:first-child").evaluate_all("rows => rows.map(r => r.className)")
    assert set(first) == {"block"}


def test_one_column_at_a_time_says_that_it_is_sorted(opened, board):
    page = opened(board)
    heading(page, "drop-twin").get_by_role("button").click()
    heading(page, "attributor").get_by_role("button").click()
    assert names(page) == sorted(names(page)) and heading(page, "attributor").get_attribute("aria-sort") == "ascending"
    assert page.locator("th[aria-sort]:not([aria-sort=none])").count() == 1


def test_the_keyboard_alone_sorts_finds_and_chooses(opened, board):
    page = opened(board)
    page.get_by_label("Find").focus()
    page.keyboard.type("cam")
    assert names(page) == ["grad-cam++", "grad-cam"] and names(page, "floor") == []
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('sort')"):
            break
    page.keyboard.press("Enter")
    assert names(page) == ["grad-cam", "grad-cam++"]  # by name
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert heading(page, "rank-accuracy").get_attribute("aria-sort") == "descending"
    panel = page.locator("details.columns summary")
    panel.focus()
    page.keyboard.press("Enter")
    assert page.locator("details.columns").get_attribute("open") is not None
    page.keyboard.press("Escape")
    assert page.locator("details.columns").get_attribute("open") is None


def test_filters_by_kind_and_coverage_and_says_how_many_are_left(opened, board):
    page = opened(board)
    assert page.get_by_role("status").inner_text() == "9 of 9 rows"
    page.get_by_label("floors").uncheck()
    page.get_by_label("ceilings").uncheck()
    assert names(page, "floor") == [] and page.get_by_role("status").inner_text() == "6 of 9 rows"
    page.get_by_label("Coverage at least").select_option("1")
    assert "lime" not in names(page) and page.get_by_role("status").inner_text() == "5 of 9 rows"
    page.get_by_label("Coverage at least").select_option("0")
    assert "lime" in names(page)


def test_metrics_can_be_shown_and_hidden(opened, board):
    page = opened(board)
    head = heading(page, "iou@5")
    assert not head.is_visible()
    page.locator("details.columns summary").click()
    page.get_by_role("checkbox", name="iou@5").check()
    assert head.is_visible() and page.locator(".count").inner_text() == "3 of 3"
    page.get_by_role("button", name="The usual").click()
    assert not head.is_visible() and heading(page, "drop-twin").is_visible()
    page.get_by_role("checkbox", name="drop-twin").uncheck()
    assert not heading(page, "drop-twin").is_visible()


def test_a_hostile_name_stays_text_everywhere(opened, site, board):
    page = opened(board)
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    assert page.get_by_role("link", name=HOSTILE).count() == 1
    for plot in page.locator("[data-plot]").all():
        plot.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelectorAll('[data-plot]:not([data-drawn])').length === 0")
    assert page.locator("img, [onerror]").count() == 0
    assert page.locator(".plot text", has_text=HOSTILE).count() > 0
    page.get_by_role("link", name=HOSTILE).click()
    assert HOSTILE in page.locator("h1").inner_text() and page.locator("img").count() == 0
    index = opened(site / "index.html")
    assert index.locator("img").count() == 0


def test_charts_are_drawn_in_the_colours_of_the_theme(opened, board):
    page = opened(board, scheme="light")
    page.locator("[data-plot]").first.scroll_into_view_if_needed()
    page.wait_for_selector("[data-drawn] .xtick text")
    colour = "e => getComputedStyle(e).fill"
    light = page.locator("[data-drawn] .xtick text").first.evaluate(colour)
    for _ in range(2):  # as the system, light, dark
        page.locator("#theme").click()
    page.wait_for_function(f"({colour})(document.querySelector('[data-drawn] .xtick text')) !== {light!r}")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_phone_has_no_sideways_scroll(opened, site, board):
    for path in (site / "index.html", board):
        page = opened(path, viewport=PHONE)
        for plot in page.locator("[data-plot]").all():
            plot.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelectorAll('[data-plot]:not([data-drawn])').length === 0")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"], path.name
    table = page.locator(".scroll.tall").first
    table.evaluate("e => { e.scrollLeft = 400; e.scrollTop = 200; }")
    first, box = page.locator("tr[data-name=random] th").bounding_box(), table.bounding_box()
    assert first["x"] - box["x"] < 3  # the names stay
    assert heading(page, "attributor").bounding_box()["y"] - box["y"] < 3  # and so does the head


def test_without_scripts_the_board_is_whole(opened, board):
    page = opened(board, java_script_enabled=False)
    assert len(page.locator("tr[data-name]:visible").all()) == 9 and heading(page, "iou@5").is_visible()
    assert not page.locator("form.controls").is_visible() and page.locator("noscript p").is_visible()


def test_the_way_from_the_first_page_to_a_method_and_back(opened, site):
    page = opened(site / "index.html")
    page.get_by_role("link", name="Open the board").click()
    assert (
        page.locator("h1").inner_text().startswith("lcnn") and page.get_by_role("heading", name="What it says").is_visible()
    )
    page.get_by_role("link", name="grad-cam", exact=True).first.click()
    assert "grad-cam" in page.locator("h1").inner_text()
    page.get_by_role("link", name="Boards").first.click()
    assert page.url.endswith("index.html")


def test_axe_finds_no_serious_fault(accessible, site, board):
    def ready(page):
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        for plot in page.locator("[data-plot]").all():
            plot.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelectorAll('[data-plot]:not([data-drawn])').length === 0")

    accessible(site / "index.html")
    accessible(board, ready=ready)


def test_axe_finds_no_serious_fault_on_a_phone(accessible, site, board):
    accessible(site / "index.html", viewport=PHONE)
    accessible(board, viewport=PHONE)


@pytest.mark.parametrize("page", ["methods/index.html", "countermeasures/index.html", "downloads/index.html"])
def test_the_other_pages_open_without_a_fault(accessible, site, page):
    accessible(site / page)
