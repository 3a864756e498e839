"""The tutorials run, and their pages show what they say."""

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from braidwater.parallel import STRATEGIES

TUTORIALS = Path(__file__).parent.parent / "docs" / "tutorials"
PAGES = {"building_brains.py": "building-brains.md"}

spec = spec_from_file_location("render_tutorial", TUTORIALS / "render.py")
render = sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(render)


def test_a_cell_is_followed_by_what_it_printed_and_drew(tmp_path):
    (tmp_path / "two_cells.py").write_text(
        "# %% [markdown]\n# # Title\n\n# %%\nx = 2\nprint(x)\n\n# %%\npicture = f'<svg id=\"{x}\"></svg>'\n"
    )
    names = render.render(tmp_path / "two_cells.py", tmp_path)
    assert names["x"] == 2
    page = (tmp_path / "two-cells.md").read_text()
    assert page.startswith("# Title\n\n```python\nx = 2\nprint(x)\n```\n\n```text\n2\n```\n\n```python\npicture = ")
    assert page.endswith("\n\n![](two-cells-2.svg)\n")
    assert (tmp_path / "two-cells-2.svg").read_text().startswith('<svg id="2"><style>')


def test_an_error_in_a_cell_names_its_line(tmp_path):
    (tmp_path / "wrong.py").write_text("# %% [markdown]\n# Text\n\n# %%\nx = 1\nx / 0\n")
    with pytest.raises(ZeroDivisionError) as caught:
        render.render(tmp_path / "wrong.py", tmp_path)
    assert caught.traceback[-1].lineno + 1 == 6


def test_every_tutorial_has_its_page():
    assert set(PAGES) == {file.name for file in TUTORIALS.glob("*.py")} - {"render.py"}


@pytest.mark.parametrize("tutorial", PAGES)
def test_a_page_shows_the_cells_of_its_tutorial(tutorial):
    page = (TUTORIALS / PAGES[tutorial]).read_text()
    for cell in render.cells(TUTORIALS / tutorial):
        assert render.shown(cell) in page, f"run docs/tutorials/render.py: line {cell.line} is not on the page"
    for picture in re.findall(r"!\[\]\((.+)\)", page):
        assert (TUTORIALS / picture).is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen gangs are started, which takes long where others use the machine
def test_the_same_net_is_trained_by_every_strategy(tmp_path, monkeypatch):
    monkeypatch.delenv("BRAIDWATER_DATA", raising=False)
    names = render.render(TUTORIALS / "building_brains.py", tmp_path)
    strategies, results = names["strategies"], names["results"]
    assert {strategy.name for strategy in strategies.values()} == set(STRATEGIES)
    losses = {name: trained.history_[-1]["validation_loss"] for name, (trained, _) in results.items()}
    sent = {name: told for name, (_, told) in results.items()}
    for name, strategy in strategies.items():
        assert results[name][0].history_[-1]["validation_accuracy"] > 0.5, name
        if strategy.exact:
            assert losses[name] == pytest.approx(losses["single"], rel=1e-3), name
    assert 0 < sent["averaging, 8 steps"] < sent["all_reduce"] / 4
    assert names["named"] == "single"  # some seconds of work: processes would take longer to start
    assert names["named"] in (tmp_path / "building-brains.md").read_text()
