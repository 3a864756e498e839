"""The picture of docs/benchmarks.md: how many times as long the peers take, and where the goals are."""

from __future__ import annotations

from braidwater.report.svg import Drawing, Scale
from goals import Goal

ROW = 26
STYLE = """<style>
svg { --back: #ffffff; --text: #1b2430; --soft: #566173; --rule: #dde2ea; --reached: #2563c9; --missed: #c2570c; }
@media (prefers-color-scheme: dark) { svg { --back: #12161c; --text: #e6eaf0; --soft: #9aa6b6; --rule: #2c3440;
  --reached: #6ea8ff; --missed: #f59e54; } }
text { fill: var(--text); font: 12px system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
text.label { fill: var(--soft); } .back { fill: var(--back); } .axis { stroke: var(--soft); } .grid { stroke: var(--rule); }
.reached { fill: var(--reached); } .missed { fill: var(--missed); } .goal { stroke: var(--text); stroke-width: 2; }
</style>"""

MODELS = {
    "logistic_regression": "logistic regression",
    "linear_regression": "linear regression",
    "k_means": "k-means",
    "pca": "PCA",
    "sgd": "SGD, one pass",
    "mini_batches": "mini-batches",
}


def ratios_chart(measured: list[tuple[Goal, float]]) -> str:
    """Bars on a logarithmic axis; a stroke marks the goal. Two colours, and the number in words, say whether it is reached."""
    bars = [(goal, number) for goal, number in measured if goal.peer]
    description = "; ".join(f"{_name(goal)}: {number:.1f} times, goal {goal.wanted:g}" for goal, number in bars)
    drawing = Drawing(
        "How many times as long the peers take",
        description,
        width=760,
        height=len(bars) * ROW + 100,
        left=250,
        right=70,
        top=44,
        bottom=56,
    )
    drawing.parts.append(STYLE)
    drawing.rectangle(0, 0, drawing.width, drawing.height, "back")
    drawing.text(16, 24, "Wall time of the peer, as a multiple of braidwater's; the stroke is the goal", style="name")
    # a bar that begins at a half shows the peers that are quicker too
    scale = Scale(0.5, max([20.0, *(number * 1.2 for _, number in bars)]), *drawing.x_range, log=True)
    for tick in scale.ticks():
        drawing.line(scale(tick), drawing.height - drawing.bottom, scale(tick), drawing.top, "grid")
    for place, (goal, number) in enumerate(bars):
        y = drawing.top + place * ROW
        drawing.text(drawing.left - 10, y + 17, _name(goal), anchor="end", style="name")
        style = "reached" if goal.reached(number) else "missed"
        end = max(scale(max(number, 0.5)), drawing.left + 1.0)
        drawing.rectangle(
            drawing.left, y + 4, end - drawing.left, ROW - 8, style, f"{number:.2f} ×, goal {goal.wanted:g} ×"
        )
        drawing.line(scale(goal.wanted), y + 2, scale(goal.wanted), y + ROW - 2, "goal")
        drawing.text(
            max(end, scale(goal.wanted)) + 7, y + 17, f"{number:.1f} ×{'' if style == 'reached' else ' (missed)'}"
        )
    drawing.x_axis(scale, "times as long as braidwater (logarithmic)")
    return drawing.svg() + "\n"


def _name(goal: Goal) -> str:
    return f"{MODELS.get(goal.benchmark, goal.benchmark)}: {goal.peer}"
