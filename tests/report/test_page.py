from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
import synthetic_study as synthetic
from made_reports import analysed, figures_of, html_of

from isoflop.config import EveryToken, TopK, Variant
from isoflop.report import LeftOut
from isoflop.report.page import script_json

HOSTILE = "</script><img src=x onerror=alert(1)>\"'{{ 7*7 }}"


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass
        if tag in ("td", "th", "dt", "dd", "li", "p", "summary"):
            self.text += " "

    def handle_data(self, data):
        if not {"script", "style"} & set(self._inside):
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def html(analysis):
    return html_of(analysis)


def test_nothing_is_loaded_from_elsewhere(html):
    for tag, attributes in Elements(html).found:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        source = attributes.get("src")
        assert source is None or source.startswith("data:")
        href = attributes.get("href")
        assert href is None or re.fullmatch(r"figures/[a-z0-9.-]+\.(png|svg|pdf|csv)", href)
        assert not any(name.startswith("on") for name in attributes)
    policy = next(a for t, a in Elements(html).found if a.get("http-equiv"))
    assert "default-src 'none'" in policy["content"]
    assert "@import" not in html
    assert "url(" not in html


def test_the_page_holds_a_specification_per_figure(html, analysis):
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)
    specs = json.loads(found[1])
    places = {a["id"] for _, a in Elements(html).found if a.get("id", "").startswith("live-")}
    assert {f"live-{name}" for name in specs} == places
    assert set(specs) == set(figures_of(analysis))


def test_left_out_runs_and_mixed_environments_are_told():
    study = synthetic.study((1e12,), (0,), synthetic.VARIANTS[:2])
    runs = synthetic.runs(study, widths=(32, 64, 96, 128, 192))
    bad = synthetic.diverged(study.variants[1], 1e12, 64, "loss was NaN at step 12")
    runs = [*runs, ("MoD 12.5%", 1e12, bad)]
    waiting = LeftOut("Baseline", 1e12, "6 blocks of width 256", 3, "pending", "not started")
    variant, budget, record = runs[0]
    other = record.environment.model_copy(update={"threads": 2, "torch": "2.12.0"})
    changed = record.model_copy(update={"environment": other, "data_sha256": "beef" * 16})
    analysis = analysed(study, [(variant, budget, changed), *runs[1:]])
    text = Elements(html_of(analysis, missing=[waiting])).words
    assert "Runs left out 2" in text
    assert "diverged loss was NaN at step 12" in text
    assert "6 blocks of width 256 3 pending not started" in text
    assert "The runs were not made alike." in text
    assert "threads: 1 (10 runs), 2 (1 run)" in text
    assert "version of torch: 2.13.0 (10 runs), 2.12.0 (1 run)" in text
    assert "data (SHA-256): da7ada7ada7a (10 runs), beefbeefbeef (1 run)" in text
    assert "Threads 1" not in text  # where all share a value it stands on its own


def test_hostile_text_is_inert():
    variants = (
        Variant(name=f"Base {HOSTILE}", depth=EveryToken()),
        Variant(name="=cmd()", depth=TopK(capacity=0.125)),
    )
    study = synthetic.study((1e12,), (0,), variants)
    runs = synthetic.runs(study, widths=(32, 64, 96, 128, 192))
    bad = synthetic.diverged(variants[1], 1e12, 64, f"\x1b[31m{HOSTILE}")
    runs = [*runs, ("=cmd()", 1e12, bad)]
    html = html_of(analysed(study, runs))
    elements = Elements(html)
    assert sum(tag == "script" for tag, _ in elements.found) == 3
    assert all("onerror" not in attributes for _, attributes in elements.found)
    assert "</script><img" in elements.text  # as text
    assert "49" not in re.findall(r"Base .{60}", elements.words)[0]
    assert "\x1b" not in html
    assert "\\x1b[31m" in elements.text


def test_json_in_a_script_cannot_end_it():
    text = script_json({"name": "</script><!--&\u2028", "loss": float("nan")})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": "</script><!--&\u2028", "loss": None}
