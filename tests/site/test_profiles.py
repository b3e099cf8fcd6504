"""Pages of methods and countermeasures: what they say is what rows, run and plugins say, and nothing they hold is markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs

import fake_run
import numpy as np
import pytest

from xaibench.site import installed, profiles, shell
from xaibench.site.installed import Facts
from xaibench.site.source import read
from xaibench.site.strata import places

HOSTILE = "<img src=x onerror=alert(1)>"
EVIL = "\"'><script>alert(1)</script>"
CARD = {
    "name": "lcnn", "paper": "Lavrentyeva et al., Interspeech 2019, arXiv 1904.05576", "classes": ["spoof", "bonafide"],
    "sample_rate": 16000, "n_samples": 32000, "parameters": 1141538, "licence": "MIT",
    "trained_on": {"data": {"minivoc": "d552fbca8953297d"}, "utterances": 602, "held_out": ["lyra"]},
    "eer": {"eval": {"minivoc": {"pooled": 0.01875, "lyra": 0.0417}}}, "spec": {"epochs": 28},
}  # fmt: skip
PLUGINS = {
    "grad-cam": Facts(
        "grad-cam", "xaibench-gradcam 0.2.0", "Selvaraju et al., ICCV 2017, arXiv 1610.02391", "`relu(x)` of a layer.",
        ("gradients", "layers"), {"layer": "last"}, ("class_specific",),
    ),
    "random": Facts("random", "xaibench 0.1.0", "control: uniform noise", "Noise.", flags=("signed", "random")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """No plugin is imported: what each says of itself is told here."""
    monkeypatch.setattr(installed, "facts", lambda group, names, records=(): {n: known(n) for n in names})


def known(name):
    return PLUGINS.get(name, Facts(name, problem="it is not installed where this page was made"))


class Text(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.hidden, self.links = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden += tag in ("script", "style")
        if tag == "a":
            self.links.append(dict(attrs).get("href", ""))

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.hidden:
            self.texts.append(data)


def parsed(path):
    page = Text()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def text(path):
    return " ".join(" ".join(parsed(path).texts).split())


def table():
    rows = fake_run.rows(fake_run.SCORES)
    rows = fake_run.fail(rows, rows["attributor"].eq("lime") & rows["utterance"].isin(["u1", "u2"]), note="out of memory")
    lacking = rows["attributor"].eq("saliency") & rows["metric"].eq("drop-twin")
    return fake_run.fail(rows, lacking, status="unsupported", note="it needs a twin")


def write(folder, rows, record=None, verdicts=None):
    run = fake_run.write_run(folder / "run", rows, record)
    for name, content in (verdicts or {}).items():
        (run / "preflight").mkdir(exist_ok=True)
        (run / "preflight" / name).write_text(content)
    source = read([run])
    paths = profiles.write(source, folder / "site")
    return source, folder / "site", paths


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    record = fake_run.run_record(options={"grad-cam": {"layer": "block4"}})
    record["countermeasures"]["lcnn"]["card"] = CARD
    record["origins"] = {"attributors/grad-cam": "xaibench-gradcam 0.1.0"}
    verdicts = {
        "lcnn-native-grad-cam.json": json.dumps({"void": "", "measured": {"batch_gap": 0.25}, "unchecked": ""}),
        "lcnn-native-lime.json": json.dumps({"void": "it changed the weights", "measured": None, "warnings": ["old"]}),
        "lcnn-native-saliency.json": "{",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(installed, "facts", lambda group, names, records=(): {n: known(n) for n in names})
        return write(tmp_path_factory.mktemp("profiles"), table(), record, verdicts)


def method(site, name):
    return site[1] / "methods" / f"{shell.slug(name)}.html"


# --- methods -----------------------------------------------------------------------------------------------------------


def test_every_row_of_the_boards_has_a_page_and_every_link_of_a_page_leads_somewhere(site):
    source, folder, paths = site
    assert all(path.is_file() for path in paths) and len(paths) == 2 + len(fake_run.SCORES) + 1
    elsewhere = {board.page for board in source.boards} | {"index.html", "downloads/index.html"}
    for path in paths:
        for link in parsed(path).links:
            if link.startswith(("#", "https://")):
                continue
            target = (path.parent / link.partition("#")[0]).resolve()
            name = str(target.relative_to(folder.resolve()))
            assert target.is_file() or name in elsewhere, (path.name, link)


def test_a_method_says_what_it_is_and_what_the_run_used(site):
    said = text(method(site, "grad-cam"))
    assert "relu(x) of a layer." in said and "needs gradients : the score is differentiable" in said
    assert "Package xaibench-gradcam 0.1.0" in said and "xaibench-gradcam 0.2.0, which is installed here" in said
    assert "layer last block4" in said
    assert "magnitudes only" in said
    assert "@inproceedings{selvaraju2017gradcam" in said
    assert "https://arxiv.org/abs/1610.02391" in parsed(method(site, "grad-cam")).links


def test_a_method_has_its_score_rank_and_control(site):
    source, *_ = site
    said = text(method(site, "grad-cam"))
    row = source.usual.set_index("attributor").loc["grad-cam"]
    assert f"{row['rank-accuracy']:.3f}".replace("0.", ".") in said
    assert "In rank-accuracy it is 1 of 3, and exceeds inverse-energy, the best control" in said
    assert "in drop-twin it is 2 of 2, and exceeds inverse-energy" in said  # saliency has no value there
    assert "falls short of inverse-energy" in text(method(site, "saliency"))


def test_ranks_are_shared_and_count_methods_only(tmp_path):
    scores = {n: {"rank-accuracy": v} for n, v in (("a", 0.5), ("b", 0.5), ("c", 0.2), ("random", 0.9), ("oracle", 1.0))}
    source, *_ = write(tmp_path, fake_run.rows(scores, spread=0))
    found = {name: r[0].usual[0] for name, r in profiles._results(source).items()}
    assert {name: (s.rank, s.of) for name, s in found.items()} == {
        "a": (1, 3), "b": (1, 3), "c": (3, 3), "random": (None, 3), "oracle": (None, 3),
    }  # fmt: skip


def test_where_less_is_better_the_smallest_is_first(tmp_path):
    scores = {n: {"deletion-twin": v} for n, v in (("a", 0.5), ("b", -0.5), ("random", 0.9), ("oracle", -1.0))}
    source, *_ = write(tmp_path, fake_run.rows(scores))
    found = {name: r[0].usual[0] for name, r in profiles._results(source).items()}
    assert found["b"].rank == 1 and found["a"].rank == 2 and found["a"].against == "exceeds random"


def test_cells_without_a_value_are_counted_by_reason(site):
    said = text(method(site, "lime"))
    assert "failed 8 every metric out of memory" in said
    assert "unsupported 12 drop-twin it needs a twin" in text(method(site, "saliency"))
    assert "Cells without a value" not in text(method(site, "grad-cam"))


def test_preflight_is_told(site):
    assert "It failed preflight , so none of its cells counts: it changed the weights." in text(method(site, "lime"))
    assert "Preflight passed: batch gap .250." in text(method(site, "grad-cam"))
    assert "its preflight file is damaged" in text(method(site, "saliency"))
    assert "reflight" not in text(method(site, "oracle"))


def test_what_is_not_installed_still_has_its_scores(site):
    said = text(method(site, "lime"))
    assert "are not known here: it is not installed where this page was made" in said
    assert "rank-accuracy" in said and "It has no options" not in said
    assert "Which publication it comes from is not known here." in said


def test_a_row_that_is_no_method_says_so(site):
    assert "A floor, not a method" in text(method(site, "random"))
    assert "A ceiling, not a method" in text(method(site, "oracle"))
    assert "No publication stands behind it." in text(method(site, "random"))
    heads = re.findall(r"<h2[^>]*>.*?</i>(\w+)", (site[1] / "methods/index.html").read_text())
    assert heads == ["Methods", "Ceilings", "Floors"]


def test_utterances_lead_to_the_explorer_where_there_is_one(tmp_path, site):
    assert not any("explorer" in link for link in parsed(method(site, "grad-cam")).links)
    rows = fake_run.rows(fake_run.SCORES)
    run = fake_run.write_run(tmp_path / "run", rows)
    (run / "maps").mkdir()
    source = read([run])
    profiles.write(source, tmp_path / "site")
    links = [x for x in parsed(tmp_path / "site/methods/grad-cam.html").links if "explorer.html#" in x]
    board = source.boards[0].page.removeprefix("boards/").removesuffix(".html")
    assert f"../explorer.html#s={board}&m=grad-cam" in links
    asked = [parse_qs(x.partition("#")[2]) for x in links if "&u=" in x]
    pairs = {f"{u}/{v}" for u, v in rows[["utterance", "vocoder"]].itertuples(index=False)}
    assert len(asked) == 12 and {x["u"][0] for x in asked} <= pairs  # three best and three worst in two metrics
    assert {(*x["m"], *x["by"]) for x in asked} == {("grad-cam", "rank-accuracy"), ("grad-cam", "drop-twin")}


# --- places ------------------------------------------------------------------------------------------------------------


def test_a_stratum_holds_its_own_cells_only():
    rows = fake_run.rows(fake_run.SCORES, utterances=7)
    rows.loc[rows["vocoder"].eq("world") & rows["attributor"].eq("grad-cam"), "value"] -= 0.2
    found = places(rows.astype({c: "category" for c in ("attributor", "metric", "status")}), "rank-accuracy")["grad-cam"]
    part = rows[rows["attributor"].eq("grad-cam") & rows["metric"].eq("rank-accuracy")]
    first, last = found.strata["vocoder"]
    assert (first.name, last.name) == ("griffinlim", "world")
    assert last.mean == pytest.approx(part.loc[part["vocoder"].eq("world"), "value"].mean())
    assert last.low < last.mean < last.high and last.pairs == 7
    means = rows[rows["metric"].eq("rank-accuracy") & rows["vocoder"].eq("world")].groupby("attributor")["value"].mean()
    assert last.others == pytest.approx(means[["grad-cam", "saliency", "lime"]].mean())
    assert (last.rank, last.of) == (1, 3)
    assert found.best[0].value == part["value"].max() and found.worst[0].value == part["value"].min()
    assert len(found.best) == len(found.worst) == 3


def test_two_clusters_have_no_interval_and_one_method_no_rival():
    rows = fake_run.rows({"lime": {"deletion-twin": 0.2}}, utterances=2)
    found = places(rows, "deletion-twin")["lime"]
    assert all(np.isnan(s.low) and (s.rank, s.of) == (1, 1) for s in found.strata["vocoder"])
    assert found.best[0].value < found.worst[0].value  # less is better
    assert not {(c.utterance, c.vocoder) for c in found.best} & {(c.utterance, c.vocoder) for c in found.worst}


def test_of_many_speakers_both_ends_are_shown():
    rows = fake_run.rows({"lime": {"rank-accuracy": 0.2}}, utterances=40)
    rows["speaker"] = rows["utterance"]
    found = places(rows, "rank-accuracy")["lime"]
    shown = [s.mean for s in found.strata["speaker"]]
    every = rows.groupby("speaker")["value"].mean()
    assert len(shown) == 12 and found.left_out == {"vocoder": 0, "speaker": 28}
    assert shown[0] == pytest.approx(every.max()) and shown[-1] == pytest.approx(every.min())


# --- countermeasures ---------------------------------------------------------------------------------------------------


def test_a_countermeasure_shows_its_card_and_who_explains_it(site):
    said = text(site[1] / "countermeasures/lcnn.html")
    assert "EER 5.0% on toy" in said and "2.00 s (32,000 samples)" in said and "1,141,538" in said
    assert "minivoc (d552fbca8953)" in said and "Licence MIT" in said and "Held out of training lyra" in said
    assert "Data pooled lyra minivoc 1.9 4.2" in said and "abc" in said
    assert "Not asked: this needs" in said  # no sham was run
    best = [x for x in parsed(site[1] / "countermeasures/lcnn.html").links if x.startswith("../methods/")][1:]
    assert best == [f"../methods/{n}.html" for n in ("grad-cam", "lime", "saliency", "lime", "grad-cam")]
    assert "saliency (12 cells) it needs a twin" in said
    assert "@inproceedings{lavrentyeva2019stc" in said


def test_whether_it_uses_the_truth_is_the_verdicts_answer(tmp_path):
    scores = {**fake_run.SCORES, "moved-truth": {"rank-accuracy": 0.0, "drop-twin": 0.1}}
    _, folder, _ = write(tmp_path / "yes", fake_run.rows(scores))
    assert "lcnn does use it." in text(folder / "countermeasures/lcnn.html")
    assert "yes" in text(folder / "countermeasures/index.html")
    scores["oracle"] = {"rank-accuracy": 1.0, "drop-twin": 0.05}
    _, folder, _ = write(tmp_path / "no", fake_run.rows(scores))
    assert "Warning: deleting the truth's region" in text(folder / "countermeasures/lcnn.html")
    assert "not shown" in text(folder / "countermeasures/index.html")


CARDS = [
    {}, None, {"eer": 0.1, "trained_on": "speech", "classes": "two", "n_samples": "many", "parameters": True},
    {"eer": {"eval": {"d": {"pooled": "low", "x": 7}}}, "trained_on": [1], "spec": [2], "sample_rate": 0, "n_samples": 1},
]  # fmt: skip


@pytest.mark.parametrize("card", CARDS)
def test_a_card_of_another_form_is_no_error(tmp_path, card):
    record = fake_run.run_record()
    record["countermeasures"]["lcnn"]["card"] = card
    record["countermeasures"]["lcnn"]["void"] = "its scores are all the same"
    _, folder, _ = write(tmp_path, fake_run.rows(fake_run.SCORES), record)
    said = text(folder / "countermeasures/lcnn.html")
    assert "It failed preflight" in said and "Error rates on its card" not in said


# --- escaping ----------------------------------------------------------------------------------------------------------


def test_nothing_that_a_run_or_a_plugin_says_is_markup(tmp_path, monkeypatch):
    paper = f"{EVIL}, 2031, arXiv 2031.00001"
    evil = Facts(HOSTILE, EVIL, paper, f"`{EVIL}` {HOSTILE}", (EVIL,), {EVIL: HOSTILE}, ("random",))
    monkeypatch.setattr(installed, "facts", lambda group, names, records=(): dict.fromkeys(names, evil))
    rows = fake_run.rows({**fake_run.SCORES, HOSTILE: fake_run.SCORES["lime"]}, utterances=8)
    rows = fake_run.fail(rows, rows["attributor"].eq(HOSTILE) & rows["utterance"].eq("u1"), note=EVIL)
    rows = rows.replace({"vocoder": {"world": HOSTILE}, "speaker": {"s0": EVIL}, "utterance": {"u2": EVIL}})
    rows["dataset"] = HOSTILE
    record = fake_run.run_record(dataset=HOSTILE, pairs=16, options={HOSTILE: {EVIL: EVIL}})
    record["countermeasures"]["lcnn"] |= {
        "card": {**CARD, "licence": EVIL, "classes": [HOSTILE], "trained_on": {"data": {EVIL: HOSTILE}, "vocoders": [EVIL]},
                 "eer": {EVIL: {HOSTILE: {EVIL: 0.1}}}, "spec": {EVIL: EVIL}, "paper": EVIL},
        "void": EVIL, "weights": HOSTILE, "options": {EVIL: HOSTILE}, "checkpoint": EVIL,
    }  # fmt: skip
    record["origins"] = {f"attributors/{HOSTILE}": EVIL, "countermeasures/lcnn": EVIL}
    run = fake_run.write_run(tmp_path / "run", rows.assign(attributor=rows["attributor"].replace(HOSTILE, "evil")), record)
    for file in (run / "rows").rglob("evil/*.parquet"):  # a name that no folder could have
        rows[rows["attributor"].eq(HOSTILE)].to_parquet(file, index=False)
    (run / "preflight").mkdir()
    name = "lcnn-native-_img_src_x_onerror_alert_1__.json"
    (run / "preflight" / name).write_text(json.dumps({"void": EVIL, "warnings": [HOSTILE], "measured": {EVIL: 1.0}}))
    paths = profiles.write(read([run]), tmp_path / "site")
    assert len(paths) == 2 + 7 + 1
    for path in paths:
        page = parsed(path)
        assert not [tag for tag, _ in page.tags if tag == "img"], path
        scripts = [attrs for tag, attrs in page.tags if tag == "script"]
        assert all(attrs.get("src", "").startswith("../assets/") for attrs in scripts), path
        assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")], path
    said = text(tmp_path / f"site/methods/{shell.slug(HOSTILE)}.html")
    for shown in (HOSTILE, f"so none of its cells counts: {EVIL}", f"failed 4 every metric {EVIL}"):
        assert shown in said


def test_means_that_only_rounding_parts_share_a_rank():
    assert profiles._ranked({"a": 0.3, "b": 0.1 + 0.2, "c": 0.2}, higher=True) == {"a": 1, "b": 1, "c": 3}


def test_only_what_the_explorer_shows_is_linked(tmp_path):
    run = fake_run.write_run(tmp_path / "run", fake_run.rows(fake_run.SCORES))
    (run / "maps").mkdir()
    source = read([run])
    slug = Path(source.boards[0].page).stem
    for shown, linked in (
        (None, True),
        ({f"explorer/{slug}/{shell.slug('u0/world')}.js"}, True),
        ({"explorer/other/x.js"}, False),
    ):
        profiles.write(source, tmp_path / "site", shown=shown)
        text = (tmp_path / "site" / "methods" / "lime.html").read_text(encoding="utf-8")
        assert ("See and hear its maps" in text) == linked
        found = set(re.findall(r"&amp;u=([^&]+)&amp;", text))
        assert found <= {"u0%2Fworld"} if shown else found


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.2, "exceeds random"), (-0.2, -0.1, "falls short of random"), (-0.1, 0.2, "is not told apart from random"),
     (np.nan, np.nan, "")],
)  # fmt: skip
def test_a_control_is_exceeded_where_the_whole_interval_lies_above_it(low, high, words):
    row = {"kind": "method", "m_margin_low": low, "m_margin_high": high, "m_floor": "random"}
    assert profiles.against(row, "m") == words
    assert profiles.against({**row, "kind": "floor"}, "m") == ""
