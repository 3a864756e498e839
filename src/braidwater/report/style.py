"""The look of a report: one style sheet inside the page, for light and dark screens and for paper."""

STYLE = """
:root { color-scheme: light dark;
  --back: #ffffff; --text: #1b2430; --soft: #566173; --rule: #dde2ea; --panel: #f6f8fb; --on: #ffffff;
  --c0: #2563c9; --c1: #c2570c; --c2: #0f8a5f; --c3: #a21caf; --c4: #b4232c; --c5: #64748b; }
@media (prefers-color-scheme: dark) { :root {
  --back: #12161c; --text: #e6eaf0; --soft: #9aa6b6; --rule: #2c3440; --panel: #1a2029; --on: #0d1117;
  --c0: #6ea8ff; --c1: #f59e54; --c2: #4ed0a0; --c3: #e28bf0; --c4: #ff8087; --c5: #8b99ad; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
header h1 { font-size: 1.7rem; margin: 0 0 2px; }
header p { margin: 0; color: var(--soft); }
nav { margin: 16px 0 0; display: flex; flex-wrap: wrap; gap: 6px 18px; }
a { color: var(--c0); }
h2 { font-size: 1.2rem; margin: 40px 0 4px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 18px 0 6px; }
p.note { color: var(--soft); margin: 0 0 12px; max-width: 75ch; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 16px; align-items: start; }
figure { margin: 0; padding: 14px 16px 10px; background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; }
figcaption { font-weight: 600; margin-bottom: 6px; }
figure small { display: block; color: var(--soft); margin-top: 4px; }
svg { display: block; width: 100%; height: auto; max-height: 620px; }
svg.narrow { margin: 0 auto; }
pre { margin: 0; padding: 14px 16px; overflow-x: auto; background: var(--panel); border: 1px solid var(--rule);
  border-radius: 8px; font: 12px/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.scroll { overflow-x: auto; margin: 16px 0; }
pre + pre { margin-top: 16px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 14px 5px 0; text-align: left; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 8px 0 16px; }
.card { background: var(--panel); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 16px; min-width: 118px; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--soft); font-size: .88rem; }
svg text { fill: var(--text); font-family: inherit; font-size: 12px; }
svg text.label { fill: var(--soft); }
svg text.name { fill: var(--text); font-size: 12.5px; }
svg text.onhot { fill: var(--on); font-weight: 600; }
.axis { stroke: var(--soft); stroke-width: 1; }
.grid line, .grid path { vector-effect: non-scaling-stroke; }
line.grid { stroke: var(--rule); stroke-width: 1; }
.zero { stroke: var(--text); stroke-width: 1.2; stroke-dasharray: 3 3; }
.curve { fill: none; stroke-width: 2.2; stroke-linejoin: round; stroke-linecap: round; }
.error { stroke-width: 2.4; }
.cell, .lane { fill: var(--rule); fill-opacity: .45; }
.hot { fill: var(--c0); } .miss { fill: var(--c4); } .span { fill-opacity: .9; }
.line0 { stroke: var(--c0); } .line1 { stroke: var(--c1); } .line2 { stroke: var(--c2); }
.line3 { stroke: var(--c3); } .line4 { stroke: var(--c4); } .line5 { stroke: var(--c5); }
.fill0 { fill: var(--c0); } .fill1 { fill: var(--c1); } .fill2 { fill: var(--c2); }
.fill3 { fill: var(--c3); } .fill4 { fill: var(--c4); } .fill5 { fill: var(--c5); }
footer { margin-top: 48px; color: var(--soft); font-size: .85rem; }
@media print { figure, pre { break-inside: avoid; } nav { display: none; } }
"""
