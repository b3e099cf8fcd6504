"""Citations become BibTeX that others' readers accept; a stranger's string stays text."""

import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from pybtex.database import parse_string

from xaibench import datasets, registry
from xaibench.site.references import bibliography, latex, references
from xaibench.site.works import WORKS

OURS = ("xaibench",)
NO_WORK = ("control:", "sham:", "none:", "ceiling: the truth")
HOSTILE = (
    "Evil } @article{x, title={", "\\input{/etc/passwd}", "a % comment # $x_1^2$ ~ & {", 'quote " and {{', "@comment{",
    "<img src=x onerror=alert(1)>", "line\nbreak\x00\u2028\u202e", "雨 😀 Ünïcödé", "}}}}", "{{{{",
)  # fmt: skip


def papers():
    """Every `paper` of a first-party method and countermeasure."""
    found = {}
    for group in ("attributors", "countermeasures"):
        for name, (plugin, *_) in registry.plugins(group).items():
            if plugin.distribution.startswith(OURS):
                found[f"{group} {name}"] = registry.load(group, name).paper
    return found


@pytest.fixture(scope="module")
def ours():
    return papers()


def test_every_paper_of_ours_is_a_work_with_title_and_authors(ours):
    assert len(ours) > 40
    for name, paper in ours.items():
        found = references(paper)
        assert bool(found) != paper.startswith(NO_WORK), (name, paper)
        for reference in found:
            assert {"author", "title", "year"} <= set(reference.fields), (name, paper)
            assert reference.url or reference.key in {"strumbelj2010explanation", "sahidullah2015features"}, (name, paper)
            assert reference.kind == "misc" or {"journal", "booktitle"} & set(reference.fields), (name, paper)


def test_the_number_in_the_string_is_that_of_the_entry(ours):
    for name, paper in ours.items():
        said = set(re.findall(r"arXiv (\d{4}\.\d{5})", paper))
        found = {r.fields.get("eprint") for r in references(paper)}
        assert said <= found, (name, paper)
        dois = set(re.findall(r"doi (10\.[^\s;,]+)", paper))
        assert dois <= {r.fields.get("doi") for r in references(paper)}, (name, paper)


def test_the_year_and_first_author_of_an_entry_are_those_of_the_string(ours):
    for name, paper in ours.items():
        for reference in references(paper):
            surname = reference.fields["author"].partition(",")[0]
            plain = surname.replace("Š", "S")
            if plain in paper:
                assert reference.fields["year"] in paper or reference.key == "gildenblat2021pytorchgradcam", (name, paper)
            else:
                assert reference.key == "muhammad2020eigencam" and "2008.00299" in paper, (name, paper, surname)


def test_an_independent_reader_reads_the_whole_bibliography(ours):
    text = bibliography(ours)
    read = parse_string(text, "bibtex")
    expected = {r.key for paper in ours.values() for r in references(paper)}
    assert set(read.entries) == expected and text.count("\n@") + 1 == len(expected)
    selvaraju = read.entries["selvaraju2017gradcam"]
    assert selvaraju.type == "inproceedings" and selvaraju.fields["eprint"] == "1610.02391"
    assert [p.last_names[0] for p in selvaraju.persons["author"]][:2] == ["Selvaraju", "Cogswell"]
    assert "grad-cam" in selvaraju.fields["keywords"]
    assert selvaraju.fields["title"].strip("{}").startswith("Grad-CAM: Visual")


def test_keys_of_works_are_unique_and_plain():
    keys = [work.key for work in WORKS]
    assert len(set(keys)) == len(keys) and all(re.fullmatch(r"[a-z]+\d{4}[a-z]\w*", key) for key in keys)
    numbers = [work.arxiv for work in WORKS if work.arxiv] + [work.doi for work in WORKS if work.doi]
    assert len(set(numbers)) == len(numbers)


def test_data_sets_are_cited_too():
    strings = set()
    for path in sorted(Path(datasets.__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        strings |= set(re.findall(r'"?citation"?[=:] ?"([^"]+)"', source))
    assert len(strings) == 8
    for citation in strings:
        (reference,) = references(citation)
        assert "title" in reference.fields, citation


def test_a_stranger_is_cited_by_what_its_string_says():
    (reference,) = references("Doe, Roe and Poe, ICML 2031, doi 10.1234/ab_c.(5), Eq. 3")
    assert reference.kind == "misc"
    assert reference.fields["author"] == "Doe and Roe and Poe" and reference.fields["year"] == "2031"
    assert reference.url == "https://doi.org/10.1234/ab_c.(5)"
    assert references("Doe, 2031 (doi 10.1234/x)")[0].fields["doi"] == "10.1234/x"
    assert references("Doe, Roe and Poe, ICML 2031, doi 10.1234/ab_c.(5), Eq. 3")[0].key == reference.key
    (bare,) = references("our own")
    assert bare.fields == {"note": "our own"}
    assert references("") == references("none") == references("control: noise") == ()


def test_a_name_like_a_work_of_ours_without_its_number_is_not_taken_for_it():
    (reference,) = references("Wang et al., ICML 2020")  # not Score-CAM, not ASVspoof 2019
    assert "title" not in reference.fields and reference.fields["author"] == "Wang and others"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_string_stays_a_note(text):
    bib = bibliography({text: text, "grad-cam": "Selvaraju et al., ICCV 2017, arXiv 1610.02391"})
    read = parse_string(bib, "bibtex")
    assert len(read.entries) == 2 and "selvaraju2017gradcam" in read.entries
    note = next(e.fields["note"] for key, e in read.entries.items() if key != "selvaraju2017gradcam")
    assert "\\input{" not in note and "\n" not in note and "\x00" not in bib and "\u202e" not in bib


@hypothesis.given(st.text(max_size=60))
def test_any_text_is_balanced_and_ascii_as_latex(text):
    found = latex(text)
    depth = 0
    for sign in found:  # as BibTeX counts: a backslash protects no brace
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0 and found.isascii() and "\n" not in found
    assert not re.search(r"(?<!\\)[%#&_]", found)


@hypothesis.given(st.dictionaries(st.text(max_size=12), st.text(max_size=80), max_size=4))
def test_any_citations_make_a_file_that_is_read(citations):
    text = bibliography(citations)
    expected = {r.key for citation in citations.values() for r in references(citation)}
    assert set(parse_string(text, "bibtex").entries) == expected
    assert text == bibliography(dict(reversed(list(citations.items()))))
