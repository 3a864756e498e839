"""The report: charts that say what the numbers say, in a page that needs nothing else."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import braidwater as bw
from braidwater.errors import ModelFileError, OptionError, UnsupportedError, UserError
from braidwater.events import BlockDone, Metric, PassFinished, PassStarted, RunFinished, RunStarted
from braidwater.planner import Plan
from braidwater.report import Record, Report, explain, load
from braidwater.report.charts import Series, Span, coefficient_chart, confusion_matrix, line_chart, timeline
from braidwater.report.models import ESTIMATORS, estimator, find
from braidwater.report.svg import Scale, log_ticks, nice_ticks

SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(3, 9))
def test_ticks_are_round_evenly_spaced_and_inside(low: float, width: float, wanted: int) -> None:
    high = low + width
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return  # the two ends are one number to any axis
    ticks = nice_ticks(low, high, wanted)
    assert 1 <= len(ticks) <= 2 * wanted + 2
    slack = 1e-6 * (high - low)
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    steps = [b - a for a, b in pairwise(ticks)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-3) for step in steps)


def test_a_logarithmic_axis_has_powers_of_ten() -> None:
    assert log_ticks(0.003, 20.0) == pytest.approx([0.01, 0.1, 1.0, 10.0])
    assert log_ticks(0.4, 3.0) == pytest.approx([0.5, 1.0, 2.0])
    scale = Scale(0.01, 100.0, 0.0, 100.0, log=True)
    assert scale(1.0) == pytest.approx(50.0)


def test_larger_values_are_drawn_higher_and_later_ones_further_right() -> None:
    svg = line_chart("Loss", [Series("loss", [1, 2, 3], [3.0, 1.0, 2.0])], x_label="epoch", y_label="loss")
    circles = [(float(c.get("cx", "0")), float(c.get("cy", "0"))) for c in parsed(svg).iter(f"{SVG}circle")]
    xs, ys = [x for x, _ in circles], [y for _, y in circles]
    assert xs == sorted(xs)
    assert ys[1] > ys[2] > ys[0], "SVG counts from the top"


def test_a_curve_has_axes_names_a_legend_and_words() -> None:
    curves = [Series("training", [1, 2], [1.0, 0.5]), Series("validation", [1, 2], [1.1, 0.7])]
    svg = line_chart("Loss", curves, x_label="epoch", y_label="log-loss", whole_x=True)
    found = texts(svg)
    assert {"epoch", "log-loss", "training", "validation", "1", "2"} <= set(found)
    assert "1.5" not in found, "half an epoch on the axis"
    root = parsed(svg)
    assert root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert description is not None
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert "training log-loss goes from 1 to 0.5" in (description.text or "")


def test_values_that_are_not_finite_leave_a_gap() -> None:
    svg = line_chart("Loss", [Series("loss", range(5), [1.0, 2.0, math.nan, 3.0, 4.0])], x_label="x", y_label="y")
    assert len(list(parsed(svg).iter(f"{SVG}path"))) == 2
    assert "nan" not in svg
    nothing = line_chart("Loss", [Series("loss", [1.0], [math.inf])], x_label="x", y_label="y")
    assert "nothing to show" in nothing


def test_a_confusion_matrix_shows_counts_where_they_belong() -> None:
    svg = confusion_matrix("Confusion", [[8, 2], [0, 5]], ["cat", "dog"])
    hints = [title.text or "" for rect in parsed(svg).iter(f"{SVG}rect") for title in rect.iter(f"{SVG}title")]
    assert "true cat, predicted dog: 2 rows (20.0% of cat)" in hints
    assert "true dog, predicted dog: 5 rows (100.0% of dog)" in hints
    assert "13 of 15 rows lie on the diagonal" in svg


def test_coefficients_come_in_order_of_size_with_their_intervals() -> None:
    svg = coefficient_chart("C", ["small", "large", "unsure"], [0.5, -3.0, 1.0], [0.1, 0.5, 2.0])
    names = [text for text in texts(svg) if text in ("small", "large", "unsure")]
    assert names == ["large", "unsure", "small"]
    hints = {(title.text or ""): circle for circle in parsed(svg).iter(f"{SVG}circle") for title in circle}
    assert hints["unsure: 1 ± 3.92"].get("class") == "fill5", "an interval over zero looks as sure as the others"
    assert hints["large: -3 ± 0.98"].get("class") == "fill0"


def test_errors_that_are_not_known_draw_no_interval() -> None:
    svg = coefficient_chart("C", ["a"], [1.0], [math.nan])
    assert not [line for line in parsed(svg).iter(f"{SVG}line") if "error" in (line.get("class") or "")]
    assert "nan" not in svg


def test_a_timeline_has_a_lane_a_worker_and_joins_what_touches() -> None:
    spans = [Span(0, k / 1000, (k + 1) / 1000) for k in range(1000)] + [Span(1, 0.5, 0.75, 1)]
    svg = timeline("Workers", spans, groups=["first", "later"])
    bars = [r for r in parsed(svg).iter(f"{SVG}rect") if (r.get("class") or "").startswith("span")]
    assert len(bars) == 2
    assert {"worker 0", "worker 1", "first", "later"} <= set(texts(svg))
    lane = next(r for r in parsed(svg).iter(f"{SVG}rect") if r.get("class") == "lane")
    assert float(bars[1].get("width", "0")) == pytest.approx(float(lane.get("width", "0")) / 4, rel=0.01)


def recorded() -> Record:
    record = Record()
    record(RunStarted(name="cnn", passes=2, time=100.0))
    for epoch in (1, 2):
        record(PassStarted(number=epoch, what="epoch", rows=10, time=100.0 + epoch))
        record(BlockDone(worker=epoch - 1, rows=10, start=100.0 + epoch, seconds=0.5))
        record(Metric(name="loss", value=1 / epoch, step=epoch, epoch=epoch))
        record(Metric(name="loss", value=99.0, step=epoch, epoch=epoch, worker=1))
        record(PassFinished(number=epoch, what="epoch", rows=10, seconds=0.6))
    record(RunFinished(name="cnn", seconds=3.0))
    return record


def test_a_record_keeps_curves_and_the_workers_time() -> None:
    record = recorded()
    assert record.curves() == [Series("loss", [1.0, 2.0], [1.0, 0.5])]
    spans, kinds = record.timeline()
    assert [(span.worker, span.start, span.end) for span in spans] == [(0, 1.0, 1.5), (1, 2.0, 2.5)]
    assert kinds == ["epoch"]
    assert len(record.passes) == 2


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that tags close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "line", "rect", "path", "circle"):
            self.open.append(tag)
        found = dict(attributes)
        self.fetched += [value or "" for name, value in found.items() if name in ("src", "srcset", "data")]
        if tag in ("script", "link", "iframe"):
            self.fetched.append(tag)
        target = found.get("href")
        if target is not None and not target.startswith("#"):
            self.fetched.append(target)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of_everything() -> str:
    report = Report("Digits & <letters>", "from <table>")
    report.section("Metrics", "On rows & columns.")
    report.metrics({"accuracy": 0.98765, "rows": 1234})
    report.confusion([[1, 0], [0, 1]], ["<a>", "b&c"])
    report.coefficients(["x<1"], [0.5], [0.1])
    report.table(["name", "value"], [["<i>", 1.5], ["b", None]])
    report.section("Training")
    report.record(recorded())
    report.section("Plan")
    report.text("a < b\n└─ c")
    return report.html()


def test_the_page_needs_no_network_and_no_script() -> None:
    text = page_of_everything()
    assert Page(text).fetched == []
    addresses = set(re.findall(r"https?://[^\"' <)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    assert "url(" not in text


def test_the_page_is_well_formed_and_shows_text_as_text() -> None:
    page = Page(page_of_everything())
    assert page.open == []
    for words in ("Digits & <letters>", "b&c", "a < b\n└─ c", "0.9877", "1,234", "–", "<i>"):
        assert words in page.words


def test_the_page_has_dark_colours_and_words_for_every_picture() -> None:
    text = page_of_everything()
    assert "prefers-color-scheme: dark" in text
    pictures = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(pictures) == 4
    assert all("<title id=" in picture and "<desc id=" in picture for picture in pictures)
    identifiers = re.findall(r'id="(chart\w+)"', text)
    assert len(identifiers) == len(set(identifiers)), "two pictures share a name"


def test_writing_replaces_a_page_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Report("First").write(tmp_path / "deep" / "report.html")
    assert "First" in path.read_text()

    def fail(report: Report) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(Report, "html", fail)
    with pytest.raises(ZeroDivisionError):
        Report("Second").write(path)
    assert "First" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def rows() -> bw.tables.Table:  # type: ignore[name-defined]
    return bw.table(
        pa.table({"x": [float(k % 7) for k in range(200)], "late": [k % 3 == 0 for k in range(200)]}), name="t"
    )


def test_explain_plans_without_training() -> None:
    model = bw.LogisticRegression()
    found = explain(model, rows(), label="late", workers=1, cache="none")
    assert isinstance(found, Plan)
    assert (found.rows, found.chosen.workers, found.chosen.cache) == (200, 1, "none")
    assert not hasattr(model, "coef_")


def test_explain_refuses_what_fit_would_refuse() -> None:
    with pytest.raises(OptionError, match="label=None"):
        explain(bw.LogisticRegression(), rows())
    with pytest.raises(UserError, match="Did you mean 'late'"):
        explain(bw.LogisticRegression(), rows(), label="lat")
    with pytest.raises(UnsupportedError, match="no method work"):
        explain(object(), rows(), label="late")


def test_load_gives_back_whatever_was_saved(tmp_path: Path) -> None:
    model = bw.LogisticRegression(alpha=0.1).fit(rows(), label="late")
    model.save(tmp_path / "m")
    found = load(tmp_path / "m")
    assert type(found) is bw.LogisticRegression
    assert found.coef_.tolist() == model.coef_.tolist()
    assert bw.load(tmp_path / "m").alpha == 0.1
    with pytest.raises(ModelFileError):
        load(tmp_path)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_name_of_an_estimator_finds_one(name: str) -> None:
    assert callable(estimator(name))


def test_what_cannot_be_imported_is_told_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"There is no estimator 'kmeans'\. Did you mean 'k_means'\?"):
        estimator("kmeans")
    with pytest.raises(UserError, match=r"write it as package\.module:Name"):
        find("module")
    with pytest.raises(UserError, match="'math' has no 'Nothing'"):
        find("math:Nothing")
    with pytest.raises(UserError, match="cannot be imported: No module named"):
        find("no_such_package:Thing")
