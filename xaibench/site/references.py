"""A citation as BibTeX: from the `paper` of a method or countermeasure, or the `citation` of a data set.

Such a string names one work or several, parted by semicolons: "LRP: Bach et al., PLOS ONE 2015; Kohlbrenner et al., IJCNN
2020, arXiv 1910.09840; zennit EpsilonPlus". Works that `xaibench.site.works` has are cited with title and all authors;
others, a stranger's above all, as @misc with what can be read out of the string (authors, year, arXiv number, DOI) and the
string itself as note. "control: ..." and "none: ..." cite nothing: no paper stands behind them.

A field is written so that neither BibTeX nor LaTeX takes any of its characters for a command, and so that braces balance
even for readers who count escaped ones. Format: Patashnik, "BibTeXing", 1988; `eprint` as arXiv recommends.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from xaibench.site.works import WORKS, Work

_ARXIV = re.compile(r"\barxiv[:\s]*(?:abs/)?(\d{4}\.\d{4,5}|[a-z-]+(?:\.[a-z]{2})?/\d{7})(?:v\d+)?\b", re.IGNORECASE)
_DOI = re.compile(r"\b(10\.\d{4,9}/[^\s,;\"<>{}\\^`|%#~]+)", re.IGNORECASE)
_YEAR = re.compile(r"(?<![\d.])(?:19|20)\d\d(?![\d.])")
_NAME = r"(?!and\b|et\b)[^\W\d_a-z][\w.'’-]*(?: (?!and\b|et\b)[\w.'’-]+){0,3}?"
_NAMES = re.compile(
    rf"(?:after )?(?P<names>{_NAME}(?:, {_NAME})*,? (?:and|&) {_NAME}|{_NAME}(?: et al\.?)?)(?=,| \(?(?:19|20)\d\d|$)"
)
#: Strings that begin so are about rows of our own making.
_NO_WORK = ("control:", "sham:", "none:", "this benchmark")
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".", "\u0308": '"',
    "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c", "\u0328": "k",
}  # fmt: skip
_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\textbraceleft{}", "}": r"\textbraceright{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``",
    "”": "''", "…": r"\ldots{}", "×": r"$\times$", "·": r"$\cdot$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$",
    "µ": r"$\mu$", "ß": r"{\ss}", "ø": r"{\o}", "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}", "æ": r"{\ae}", "Æ": r"{\AE}",
    "œ": r"{\oe}", "Œ": r"{\OE}", "å": r"{\aa}", "Å": r"{\AA}", "ı": r"{\i}",
}  # fmt: skip


@dataclass(frozen=True)
class Reference:
    """One BibTeX entry. `fields` are plain text; `bibtex` escapes them. `cited` is the part of the string it comes from."""

    key: str
    kind: str
    fields: Mapping[str, str] = field(default_factory=dict)
    cited: str = ""

    @property
    def url(self) -> str:
        """Where the work is; "" where neither arXiv number nor DOI is known."""
        return self.fields.get("url", "")

    @property
    def words(self) -> str:
        """The work for people: authors, title, venue, year; the cited string where that is all there is."""
        f = self.fields
        if "title" not in f:
            return self.cited
        names = f["author"].split(" and ")
        surnames = [n.partition(",")[0] for n in names if n != "others"]
        listed = f"{' and '.join(surnames)}." if len(names) < 3 and "others" not in names else f"{surnames[0]} et al."
        where = f.get("journal") or f.get("booktitle") or ("arXiv" if "eprint" in f else "")
        return f"{listed} {f['title']}{'' if f['title'][-1] in '?!.' else '.'} {where}{', ' if where else ''}{f['year']}."

    @property
    def bibtex(self) -> str:
        """The entry, a line a field."""
        lines = [f"  {name} = {{{_value(name, text)}}}" for name, text in self.fields.items() if text]
        return f"@{self.kind}{{{self.key},\n" + ",\n".join(lines) + "\n}\n"


def references(citation: str) -> tuple[Reference, ...]:
    """The works a citation names, in its order, each once; none where it names none.

    >>> [r.key for r in references("LRP: Bach et al., PLOS ONE 2015; Kohlbrenner et al., IJCNN 2020, arXiv 1910.09840")]
    ['bach2015lrp', 'kohlbrenner2020lrp']
    >>> references("control: uniform noise")
    ()
    >>> print(references("Doe and Roe, ICML 2031, arXiv 3101.00001")[0].bibtex, end="")
    @misc{doe2031-7d5e56,
      author = {Doe and Roe},
      year = {2031},
      eprint = {3101.00001},
      archiveprefix = {arXiv},
      url = {https://arxiv.org/abs/3101.00001},
      note = {Doe and Roe, ICML 2031, arXiv 3101.00001}
    }
    """
    citation = _line(citation)
    if not citation or citation.lower() == "none" or citation.lower().startswith(_NO_WORK):
        return ()
    found: dict[str, Reference] = {}
    for part in citation.split(";"):
        for reference in _of_part(part.strip()):
            found.setdefault(reference.key, reference)
    if not found and not citation.lower().startswith("ceiling:"):
        found[""] = _stranger(citation, "", "")
    return tuple(found.values())


def bibliography(citations: Mapping[str, str]) -> str:
    """A .bib file: every work that these citations name, once, by key; `keywords` says which of the mapping's names cite it.

    Same citations, same text, in whatever order they are given.
    """
    works: dict[str, Reference] = {}
    cited_by: dict[str, list[str]] = {}
    for name in sorted(citations):
        for reference in references(citations[name]):
            works.setdefault(reference.key, reference)
            cited_by.setdefault(reference.key, []).append(name)
    entries = []
    for key in sorted(works):
        fields = {**works[key].fields, "keywords": ", ".join(cited_by[key])}
        entries.append(Reference(key, works[key].kind, fields).bibtex)
    return "\n".join(entries)


def latex(text: str) -> str:
    """Any text as LaTeX that prints it, on one line. Accents become commands; letters of other scripts their code point.

    >>> latex("50 % of {a_b} & Müller"), latex("雨")
    ('50 \\\\% of \\\\textbraceleft{}a\\\\_b\\\\textbraceright{} \\\\& M{\\\\"u}ller', '[U+96E8]')
    """
    return "".join(_letter(c) for c in unicodedata.normalize("NFC", _line(text)))


def _letter(sign: str) -> str:
    if sign in _SIGNS:
        return _SIGNS[sign]
    if " " <= sign <= "~":
        return sign
    apart = unicodedata.normalize("NFD", sign)
    base, marks = apart[0], apart[1:]
    if len(marks) == 1 and marks[0] in _ACCENTS and base.isascii():
        mark = _ACCENTS[marks[0]]
        base = {"i": r"\i", "j": r"\j"}.get(base, base)
        return f"{{\\{mark}{{{base}}}}}" if mark.isalpha() or len(base) > 1 else f"{{\\{mark}{base}}}"
    return f"[U+{ord(sign):04X}]"


def _line(text: str) -> str:
    """Text without line breaks and control characters."""
    return " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in str(text)).split())


def _value(name: str, text: str) -> str:
    """A field's value between its braces. Addresses stay as they are: styles print them letter by letter."""
    if name in ("url", "doi", "eprint"):
        return re.sub(r"[^A-Za-z0-9:/._()?=+-]", lambda m: "".join(f"%{b:02X}" for b in m[0].encode()), text)
    if name == "author":
        return " and ".join(latex(n) for n in text.split(" and "))
    if name == "title":
        return f"{{{latex(text)}}}"  # styles turn capitals outside braces into small letters
    return text if name == "pages" else latex(text)


def _of_part(part: str) -> list[Reference]:
    """The works one part of a citation names."""
    arxiv = next(iter(_ARXIV.findall(part)), "")
    doi = next(iter(_DOI.findall(part)), "").rstrip(".")
    doi = doi if doi.count("(") == doi.count(")") else doi.rstrip(").")  # "(doi 10.1/x)" has one that is not the DOI's
    low = part.casefold()
    known = [
        w for w in WORKS
        if (arxiv and w.arxiv == arxiv) or (doi and w.doi.casefold() == doi.casefold())
        or (w.says and all(word in low for word in w.says))
    ]  # fmt: skip
    if known:
        return [_known(work, part) for work in known]
    cites = arxiv or doi or (_NAMES.match(_after_label(part)) and _YEAR.search(part))
    return [_stranger(part, arxiv, doi)] if cites else []


def _known(work: Work, cited: str) -> Reference:
    place = {"article": "journal", "inproceedings": "booktitle"}.get(work.kind)
    fields = {"author": " and ".join(work.authors), "title": work.title}
    if place:
        fields[place] = work.venue
    fields |= {"volume": work.volume, "pages": work.pages, "year": str(work.year)}
    if work.kind == "misc" and not work.arxiv:
        fields["url"] = work.venue
    return Reference(work.key, work.kind, {k: v for k, v in {**fields, **_where(work.arxiv, work.doi)}.items() if v}, cited)


def _stranger(part: str, arxiv: str, doi: str) -> Reference:
    """A work of which only the string is known. Its key depends on that string alone, wherever else it is cited."""
    named = _NAMES.match(_after_label(part))
    year = next(iter(_YEAR.findall(_DOI.sub("", _ARXIV.sub("", part)))), "")
    names = named["names"].strip() if named and (year or arxiv or doi) else ""
    people = [n.strip() for n in re.split(r",| and | & |\bet al\b\.?", names) if n.strip()]
    author = " and ".join([*people, *(["others"] if re.search(r"\bet al\b", names) else [])])
    surname = people[0].split()[-1] if people else "work"
    stem = re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", surname).casefold()) or "work"
    key = f"{stem}{year}-{hashlib.sha256(part.encode()).hexdigest()[:6]}"
    fields = {"author": author, "year": year, **_where(arxiv, doi), "note": part}
    return Reference(key, "misc", {k: v for k, v in fields.items() if v}, part)


def _after_label(part: str) -> str:
    """What follows a "label: " in a part of a citation.

    >>> _after_label("expected gradients: Erion et al. 2021"), _after_label("Fong et al., ICCV 2019")
    ('Erion et al. 2021', 'Fong et al., ICCV 2019')
    """
    label, colon, rest = part.partition(": ")
    return rest if colon and not _YEAR.search(label) and "," not in label else part


def _where(arxiv: str, doi: str) -> dict[str, str]:
    found = {"eprint": arxiv, "archiveprefix": "arXiv"} if arxiv else {}
    found |= {"doi": doi} if doi else {}
    url = f"https://doi.org/{doi}" if doi else f"https://arxiv.org/abs/{arxiv}" if arxiv else ""
    return {**found, "url": url} if url else found
