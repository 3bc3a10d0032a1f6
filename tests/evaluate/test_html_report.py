from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from embedpress.errors import FormatError, MissingDependencyError, StorageError
from embedpress.evaluate import plots, space_plots
from embedpress.evaluate.headline import verdict
from embedpress.evaluate.report import render, write_report
from embedpress.evaluate.result import (
    CodeUse,
    CurvePoint,
    Evaluation,
    IndexLoss,
    IndexPoint,
    LatentSpace,
    Neighbourhood,
    RecallAt,
    RecallRow,
    Reconstruction,
    RelevanceRow,
    RerankPoint,
    WorstQuery,
)

pytest.importorskip("matplotlib")
NASTY = '<script>alert(1)</script> & "q" $x^2$ \'n'


def figures() -> Evaluation:
    return Evaluation(
        metric="cosine",
        k=10,
        dim=384,
        base_rows=58_000,
        query_rows=2_000,
        seed=5,
        original_bytes=1536,
        form="codes",
        recall=[
            RecallRow("embeddings", "original", 1536, 1.0, 1.0, 1.0),
            RecallRow("codes", "codes", 32, 0.75, 0.744, 0.756, encode_rows_per_second=8000.0),
            RecallRow("latents", "latents", 256, 0.652, 0.645, 0.659),
            RecallRow(
                "OPQ32", "peer", 32, 0.686, 0.679, 0.692, -0.064, -0.07, -0.058, 90.5, 9e4, 983126
            ),
            RecallRow(NASTY, "peer", 32, 0.6, 0.59, 0.61, -0.15, -0.16, -0.14),
        ],
        depths=[
            RecallAt("embeddings", 1536, 100, 1.0, 1.0, 1.0),
            RecallAt("codes", 32, 100, 0.911, 0.9, 0.92),
        ],
        index=IndexLoss(
            "codes",
            "IVF64",
            0.75,
            [
                IndexPoint("nprobe 1", 1, False, False, 0.6, 0.59, 0.61, -0.15, -0.16, -0.14, 50.0),
                IndexPoint("nprobe 8", 8, False, False, 0.743, 0.73, 0.75, -0.007, -0.01, 0, 110.0),
                IndexPoint(
                    "nprobe 8, int8 rerank tier",
                    8,
                    True,
                    True,
                    0.98,
                    0.97,
                    0.99,
                    0.23,
                    0.2,
                    0.25,
                    400,
                ),
            ],
        ),
        neighbourhoods=[Neighbourhood("codes", 2000, k, 0.99, 0.98) for k in (5, 10)],
        curve=[CurvePoint("Gaussian channel", b, r) for b, r in ((16, 0.54), (32, 0.725))],
        rerank=[RerankPoint("codes", n, 0.75 + n / 1000) for n in (10, 100)],
        reconstruction=[
            Reconstruction("codes", 4, 0.9, 0.8, 0.82, 0.9, 0.95, 0.96, 0.2, [0.8, 0.9, 1], [1, 3])
        ],
        latents=LatentSpace(100, 2, 1.7, 1, [0.8, 0.2], [-1, 0, 1], [[3, 97], [50, 50]]),
        missing_judged=12,
        planned_vectors=2_000_000_000,
        price=3.0,
        codes=CodeUse(100, 2, [3, 4], [7.5, 7.7]),
        relevance=[RelevanceRow("codes", 32, 50, 0.61, 0.6, 0.62, 0.71, 0.7, 0.72)],
        history={"codes": [{"step": 0, "loss": 2.0, "recall": 0.6}, {"step": 9, "recall": 0.7}]},
        worst=[WorstQuery(3, NASTY, 0.2, [NASTY], ["other"])],
    )


class Page(HTMLParser):
    VOID = ("meta", "img", "link", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def parsed(html: str) -> Page:
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


def test_the_page_stands_alone_and_is_well_formed():
    html = render(figures())
    page = parsed(html)
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    assert "script" not in page.tags
    assert "url(" not in html
    assert "@import" not in html
    for link in page.links:
        ElementTree.fromstring(base64.b64decode(link.split(",")[1]))


def test_every_section_is_there_with_its_figures():
    text = parsed(render(figures(), title="A title")).text
    for part in (
        "A title", "58,000 base vectors", "1,536 → 32", "48.0 times smaller", "1.000 → 0.750",
        "0.744 to 0.756", "0.850", "Recall at equal bytes", "OPQ32", "-0.064", "90.5 s",
        "Rate and recall", "nDCG@10", "0.610", "12 judged documents are not",
        "recall@100", "0.911", "Compression loses 0.250", "IVF64", "-0.007", "110 µs",
        # 2e9 vectors of 1,536 and 32 bytes at 3 dollars a gigabyte.
        "3.07 TB", "64 GB", "$9,216", "$192", "$9,024", "Neighbourhoods",
        "Reconstruction", "effective rank 1.7 of 2",
        "1 dead component.", "7 of 512 codewords", "7.60 bits", "Training", "Worst queries",
        "2 of 10", "Seed 5",
    ):  # fmt: skip
        assert part in text, part


def test_a_strict_policy_is_kept():
    html = render(figures())
    style = html.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search('Content-Security-Policy" content="([^"]*)"', html).group(1)
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"
    assert " style=" not in html
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style


def test_worst_queries_are_shown_as_pictures(tmp_path):
    from PIL import Image

    for name, colour in (("a.png", "red"), ("b.jpg", "blue")):
        Image.new("RGB", (600, 300), colour).save(tmp_path / name)
    query = WorstQuery(0, "a.png", 0.5, ["b.jpg", "gone.jpg", "../up.png"], [])
    html = render(replace(figures(), worst=[query]), images=tmp_path)
    page = parsed(html)
    photos = [link for link in page.links if link.startswith("data:image/jpeg")]
    assert len(photos) == 2
    with Image.open(io.BytesIO(base64.b64decode(photos[1].split(",")[1]))) as shown:
        assert shown.size == (112, 56)
        assert shown.getpixel((5, 5))[2] > 240
    assert "gone.jpg" in page.text
    assert "../up.png" in page.text


def test_all_text_is_escaped():
    html = render(figures(), title=NASTY)
    assert "<script>" not in html
    assert parsed(html).text.count("<script>alert(1)</script>") == 5


def test_sections_without_data_are_left_out():
    bare = replace(
        figures(), curve=[], rerank=[], reconstruction=[], latents=None, codes=None,
        relevance=[], history={}, worst=[], index=None, neighbourhoods=[], depths=[],
    )  # fmt: skip
    text = parsed(render(bare)).text
    for part in (
        "Relevance",
        "Reconstruction",
        "Use of the space",
        "Training",
        "Worst queries",
        "Neighbourhoods",
        "index loss",
        "recall@100",
    ):
        assert part not in text
    assert "Recall at equal bytes" in text


def test_the_verdict_says_who_is_ahead():
    e = figures()
    assert "OPQ32 with 0.686, 0.064 [0.058, 0.070] behind" in verdict(e)
    assert "above the Gaussian channel" in verdict(e)
    better = replace(e.recall[3], recall=0.8, difference=0.05)
    better = replace(better, difference_low=0.04, difference_high=0.06)
    e = replace(e, recall=[*e.recall[:3], better], curve=[CurvePoint("Gaussian channel", 32, 0.9)])
    assert "OPQ32 with 0.800, 0.050 [0.040, 0.060] ahead." in verdict(e)
    assert "below the Gaussian channel" in verdict(e)
    unsure = replace(better, difference=-0.001, difference_low=-0.01, difference_high=0.008)
    e = replace(e, recall=[*e.recall[:3], unsure])
    assert "0.001 [-0.008, 0.010] behind, which may be chance" in verdict(e)


def test_the_same_figures_give_the_same_bytes(tmp_path):
    write_report(tmp_path / "a.html", figures())
    write_report(tmp_path / "b.html", figures().to_dict())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_report_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    target = tmp_path / "report.html"
    write_report(target, figures())
    before = target.read_bytes()
    with pytest.raises(FormatError):
        write_report(target, {"k": 10})
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(StorageError):
        write_report(tmp_path / "nowhere" / "report.html", figures())


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=re.escape("embedpress[train]")):
        render(figures())


def test_what_is_trained_is_told_apart_by_its_colour():
    curve = [{"step": step, "recall": step / 10} for step in (0, 5)]
    three = replace(figures(), history=dict.fromkeys(("latents", "codes", "reranker"), curve))
    picture = plots.training(three).decode().lower()
    for color in plots.FORM_COLORS.values():
        assert f"stroke: {color.lower()}" in picture
    assert len(set(plots.FORM_COLORS.values())) == 3


def test_plots_without_data_are_none():
    bare = replace(
        figures(), rerank=[], reconstruction=[], latents=None, codes=None, history={}, index=None,
        neighbourhoods=[],
    )  # fmt: skip
    for plot in (
        plots.rerank_recall, plots.reconstruction_cosines, plots.training,
        plots.index_recall, space_plots.latent_spectrum, space_plots.code_entropy,
        space_plots.latent_histograms, space_plots.neighbourhoods,
    ):  # fmt: skip
        assert plot(bare) is None
        assert plot(figures()).startswith(b"<?xml")
    lonely = replace(bare, recall=figures().recall[:1], curve=[])
    assert plots.rate_recall(lonely).startswith(b"<?xml")
    partial = replace(figures(), history={"codes": [{"step": 0, "seconds": 1.0}], "latents": []})
    assert plots.training(partial) is None


def test_extreme_figures_are_drawn():
    e = figures()
    dead = replace(e, latents=LatentSpace(2, 1, 0.0, 1, [0.0]), codes=CodeUse(1, 1, [255], [0.0]))
    tiny = replace(dead, recall=[RecallRow("codes", "codes", 1, 0.0, 0.0, 0.0)], curve=[])
    parsed(render(replace(tiny, rerank=[RerankPoint("codes", 1, 0.0)])))
