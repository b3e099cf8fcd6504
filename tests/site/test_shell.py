"""Pages are escaped, whole or not there, and ask nobody for anything."""

import base64
import hashlib
import json
import re

import pytest

from xaibench.errors import RunError, XaibenchError
from xaibench.site import shell

HOSTILE = "<img src=x onerror=alert(1)>"


def test_a_title_is_text():
    page = shell.render("base.html.j2", title=HOSTILE, footer=HOSTILE, nav=[(HOSTILE, "a.html")])
    assert HOSTILE not in page and page.count("&lt;img src=x onerror=alert(1)&gt;") == 4  # title, heading, nav, footer


def test_an_unknown_template_and_a_forgotten_value_are_errors():
    with pytest.raises(XaibenchError, match=r"nothing\.html\.j2: no such template"):
        shell.render("nothing.html.j2", title="x")
    with pytest.raises(XaibenchError, match="'title' is undefined"):
        shell.render("base.html.j2")


def addresses(page):
    return re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)["']""", page)


def test_a_page_names_only_what_lies_in_its_folder():
    page = shell.render("base.html.j2", title="x", root="../", nav=[("Boards", "boards.html")])
    assert "../assets/site.css" in addresses(page) and "../boards.html" in addresses(page)
    assert all(a.startswith(("../", "#", "data:")) for a in addresses(page))
    assert "default-src 'none'" in page and "connect-src" not in page  # nothing may be fetched, from anywhere


def test_a_page_of_one_file_names_no_other():
    page = shell.render("base.html.j2", title="x", inline=True)
    assert all(a.startswith(("#", "data:")) for a in addresses(page))
    assert "--paper" in page and "xaibench-theme" in page
    assert page.count("<script") == page.count("</script>") and page.count("<style") == page.count("</style>")


def scripts_allowed(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    return re.search(r"script-src ([^;]*);", policy)[1].split()


def test_a_policy_allows_the_page_its_own_scripts_and_no_other():
    page = shell.render("base.html.j2", title="x", inline=True, footer="the-scripts-of-this-page")
    hashes = [
        "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
        for text in re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    ]
    assert hashes and scripts_allowed(page) == hashes and page.count("the-scripts-of-this-page") == 1
    assert scripts_allowed(shell.render("base.html.j2", title="x")) == ["'self'", "file:"]


def test_every_asset_can_stand_within_a_page():
    for path in sorted(shell.ASSETS.iterdir()):
        element = str(shell._element(path.name, "", True)[0])
        kind = "style" if path.suffix == ".css" else "script"
        assert len(re.findall(f"</{kind}", element, flags=re.IGNORECASE)) == 1, path.name


@pytest.mark.parametrize("value", ["</script><script>alert(1)</script>", "<!--", "a\u2028b", "&amp;"])
def test_data_in_a_script_stays_data(value):
    text = shell.json_text({"name": value})
    assert json.loads(text) == {"name": value}
    assert not set(text) & set("<>&\u2028\u2029")
    assert shell.script("f", value) == f"f({shell.json_text(value)});\n"


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(XaibenchError, match="cannot hold this as JSON"):
        shell.json_text({"a": object()})


def test_names_become_distinct_safe_parts():
    names = [
        "grad-cam",
        "grad cam",
        "Grad-CAM",
        "..",
        "a/b",
        "a\\b",
        "ig:steps=5",
        "ig:steps=50",
        HOSTILE,
        "ü",
        "x" * 300,
        "",
    ]
    parts = [shell.slug(name) for name in names]
    assert len(set(parts)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9+_-]{1,80}", part) for part in parts)
    assert shell.slug("grad-cam") == "grad-cam"


def test_assets_are_copied_and_the_plotting_library_with_them(tmp_path):
    paths = shell.copy_assets(tmp_path, ["plotly.min.js"])
    assert {p.name for p in paths} == {"site.css", "site.js", "plotly.min.js"}
    assert (tmp_path / "assets" / "plotly.min.js").stat().st_size == shell.plotly_js().stat().st_size
    with pytest.raises(XaibenchError, match="no such file"):
        shell.copy_assets(tmp_path, ["gone.css"])


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = shell.write(tmp_path / "deep" / "page.html", "one")
    assert path.read_text() == "one"
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="choose another --out"):
        shell.write(tmp_path / "file" / "page.html", "two")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.04978, "0.050"), (1.0, "1.00"), (-52.51, "-52.5"), (12345.6, "12300"), (1e-5, "0.000"), (None, "–")],
)
def test_numbers_for_people(value, text):
    assert shell.number(value) == text


def test_a_name_of_an_objects_ancestor_is_a_key_like_any_other():
    text = shell.script("f", {"__proto__": {"a": 1}, 'a"__proto__': "b", "c": '"__proto__": 1'})
    assert text == r'f({["__proto__"]: {"a": 1}, "a\"__proto__": "b", "c": "\"__proto__\": 1"});' + "\n"


@pytest.mark.parametrize("name", ["index", "con", "nul", "com1", "_x", "__proto__"])
def test_a_name_that_a_folder_or_a_server_takes_is_no_file_name(name):
    assert re.fullmatch(r"[a-z0-9][a-z0-9_]*-[0-9a-f]{6}", shell.slug(name))
    assert shell.slug(f"a{name}") == f"a{name}"


def test_no_name_turns_round_what_follows_it():
    page = shell.render("base.html.j2", title="a\u202e12")
    assert "\u202e" not in page and "aU+202E12" in page and "שלום" in shell.render("base.html.j2", title="שלום")
