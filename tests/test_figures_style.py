"""Colours that the colour-blind tell apart, type that is embedded, and files without a date."""

import os
import re
import subprocess
import sys
import zlib
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from xaibench.errors import RunError, XaibenchError
from xaibench.figures import style
from xaibench.figures.style import Look

#: Machado, Oliveira and Fernandes 2009, severity 1.0: linear RGB as seen by protan-, deuteran- and tritanopes.
SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
APART = 15.0  # CIELAB; 2.3 is a just noticeable difference


def linear(colour):
    c = np.asarray(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB (D65) of linear RGB."""
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.asarray(matrix) @ rgb / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colours, sight):
    seen = {c: lab(np.clip(np.asarray(SIGHTS[sight]) @ linear(c), 0, 1)) for c in colours}
    return min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(colours, 2))


def test_the_simulation_knows_what_is_confused():
    assert closest(["#FF0000", "#00FF00"], "normal")[0] > 100
    assert closest(["#B07000", "#6F9300"], "deuteranopia")[0] < APART < closest(["#B07000", "#6F9300"], "normal")[0]
    np.testing.assert_allclose(lab(linear("#FFFFFF")), [100, 0, 0], atol=0.02)


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize("colours", [style.LINES, tuple(style.KINDS.values()), (style.BLUE, style.VERMILLION, style.GREY)])
def test_colours_are_told_apart(colours, sight):
    assert closest(colours, sight)[0] >= APART


def test_lines_and_words_stand_out_from_the_paper():
    contrast = {c: 1.05 / (np.array([0.2126, 0.7152, 0.0722]) @ linear(c) + 0.05) for c in (*style.LINES, style.GREY)}
    assert min(contrast.values()) > 2 and contrast[style.GREY] >= 4.5
    assert len(style.MARKERS) == len(style.LINES) == len(set(style.MARKERS))  # colour is never alone


def picture(text="grad-cam"):
    figure = style.new_figure(2.0, 1.5)
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
    axes.plot([0, 1], [0, 1], label=text)
    axes.imshow(np.eye(3), extent=(0, 1, 0, 1), rasterized=True)
    axes.set_xlabel(text)
    return figure


def saved(folder, **look):
    with style.style():
        return {p.suffix[1:]: p for p in style.save(picture(), folder / "a.b", Look(formats=style.FORMATS, **look))}


def streams(pdf):
    """The content of every stream of a PDF, unpacked where it is packed."""
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(found[1])
        except zlib.error:
            yield found[1]


def test_pdf_holds_the_font_and_no_type_3(tmp_path):
    pdf = saved(tmp_path)["pdf"].read_bytes()
    assert pdf.startswith(b"%PDF-") and b"/FontFile2" in pdf and b"DejaVuSans" in pdf
    assert b"/Subtype /Type42" in pdf or b"/Subtype /TrueType" in pdf or b"/CIDFontType2" in pdf
    assert b"Type3" not in pdf
    fonts = [content for content in streams(pdf) if content[:4] == b"\0\1\0\0"]  # the mark of a TrueType file
    assert fonts and all(len(font) > 1_000 for font in fonts)


def test_names_are_not_mathematics(tmp_path):
    with style.style():
        (path,) = style.save(picture("a$b$ \\frac{"), tmp_path / "x", Look(formats=("svg",), svg_text=True))
    assert "a$b$ \\frac{" in path.read_text(encoding="utf-8")


def test_svg_has_paths_or_text(tmp_path):
    paths, text = saved(tmp_path / "p")["svg"].read_text(), saved(tmp_path / "t", svg_text=True)["svg"].read_text()
    assert "grad-cam</text>" in text and "DejaVu Sans" in text
    assert "</text>" not in paths and "<path" in paths


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_figures_style import saved
saved(Path({out!r}))
"""


def test_the_same_numbers_are_the_same_bytes_in_another_process(tmp_path):
    here = saved(tmp_path / "here")
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path / "there"))
    environment = {**os.environ, "PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "86400", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    for path in here.values():
        content = path.read_bytes()
        assert content == (tmp_path / "there" / path.name).read_bytes()
        assert not re.search(rb"CreationDate|ModDate|dc:date|[Mm]atplotlib v|matplotlib\.org", content)


def test_a_users_settings_do_not_change_a_picture(tmp_path):
    import matplotlib

    before = saved(tmp_path / "a")["png"].read_bytes()
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "axes.grid": True, "figure.facecolor": "red"}):
        assert saved(tmp_path / "b")["png"].read_bytes() == before


def test_a_stem_may_hold_dots_and_an_ending_says_the_format(tmp_path):
    assert {p.name for p in saved(tmp_path).values()} == {"a.b.pdf", "a.b.svg", "a.b.png"}
    with style.style():
        assert style.save_as(picture(), tmp_path / "x.svg").read_text().startswith("<?xml")
        with pytest.raises(XaibenchError, match=r"'.jpg', expected one of .pdf"):
            style.save_as(picture(), tmp_path / "x.jpg")
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match="choose another --out"):
            style.save(picture(), tmp_path / "file" / "x", Look())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"width": 85.0}, "millimetres"), ({"formats": ("jpg",)}, "got 'jpg'"), ({"formats": ()}, "got none"),
     ({"dpi": 0}, "dots an inch"), ({"font_size": 80.0}, "points"), ({"width": float("nan")}, "inches")],
)  # fmt: skip
def test_what_no_page_can_hold(options, message):
    with pytest.raises(XaibenchError, match=message):
        Look(**options)


def test_long_names_get_smaller_and_then_shorter():
    assert style.fitted("grad-cam", 8.0, 2.0) == ("grad-cam", 8.0)
    name, size = style.fitted("integrated-gradients", 8.0, 1.0)
    assert name == "integrated-gradients" and 5 <= size < 8 and style.text_width(name, size) <= 1.0
    name, size = style.fitted("x" * 200, 8.0, 1.0)
    assert name.endswith("…") and style.text_width(name, size) <= 1.0
