import itertools
import json

import charts
import pytest
import tables
from draw_pictures import draw_curves, draw_detections, draw_savings
from matplotlib.text import Text

from halvit_mm.errors import UserError
from tests.utils import ROOT

PUBLISHED = json.loads((ROOT / 'docs/published.json').read_text())
TRANSFORMERS = [row for row in PUBLISHED['tables'][0]['rows'] if 'top1' in row]
OVER_PARAMETERS = [(row['method'], row['params'], row['top1'], 0.0) for row in TRANSFORMERS]
OVER_BYTES = [(row['method'], tables.megabytes(row), row['top1'], 0.0) for row in PUBLISHED['beyond']['rows']]


@pytest.mark.parametrize(('points', 'ticks'), [(OVER_PARAMETERS, ()), (OVER_BYTES, tables.TICKS)])
def test_names_do_not_collide_and_ours_are_in_front(monkeypatch, tmp_path, points, ticks):
    monkeypatch.setattr(charts, 'save', lambda figure, path: figure)
    figure = charts.scatter(points, 'parameters', 'top-1', tmp_path / 'chart.png', ticks)
    figure.canvas.draw()
    [axes] = figure.axes
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
    assert boxes.keys() == {name for name, *_ in points}
    for (name, box), (other, other_box) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(other_box), (name, other)
    order = {charts.is_ours(name): bars.lines[0].get_zorder() for (name, *_), bars in _drawn(points, axes)}
    assert order[True] > order[False]


def _drawn(points, axes):
    """Each point with its container, in the order in which they are drawn."""
    return zip(sorted(points, key=lambda point: not charts.is_ours(point[0])), axes.containers, strict=True)


def test_rows_have_their_names_from_the_top(monkeypatch, tmp_path):
    monkeypatch.setattr(charts, 'save', lambda figure, path: figure)
    rows = [('untied (0.68 M)', 82.66, 0.6), ('tied (0.35 M)', 80.18, 0.6), ('ResNet-50 (1.48 M)', 89.47, 0.0)]
    figure = charts.intervals(rows, 'top-1', tmp_path / 'chart.png')
    figure.canvas.draw()
    [axes] = figure.axes
    labels = {text.get_text(): text.get_window_extent() for text in axes.get_yticklabels()}
    assert [*labels] == [name for name, *_ in rows]
    heights = [box.y0 for box in labels.values()]
    assert heights == sorted(heights, reverse=True)
    assert all(box.x0 >= 0 for box in labels.values())
    assert [bars.lines[0].get_xdata()[0] for bars in axes.containers] == [value for _, value, _ in rows]


def test_pictures(tmp_path):
    log = tmp_path / 'run/1/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"epoch": 1, "loss": 2.0, "step": 10}\n{"accuracy/top1": 50.0, "step": 1}\n')
    assert draw_curves(dict(tied=tmp_path / 'run'), tmp_path / 'curves.png').stat().st_size > 10_000
    assert draw_savings(ROOT / 'docs/tables.json', tmp_path / 'savings.png').stat().st_size > 10_000
    with pytest.raises(UserError, match=r'1 is not the work directory of a finished training of a classifier'):
        draw_curves(dict(tied=tmp_path / 'run/1'), tmp_path / 'curves.png')
    with pytest.raises(UserError, match='run is not the work directory of `make demo-det`'):
        draw_detections(tmp_path / 'run', tmp_path / 'detections.png')
