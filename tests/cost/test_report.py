"""Tables, files and charts of results that no benchmark has to be run for."""

import csv
import json

import pytest
from PIL import Image

from halvit_mm.cost import report
from halvit_mm.cost.report import counts_table, environment_line, markdown_table, quantity, runs_table, write_results

ENVIRONMENT = dict(
    device='a processor',
    instructions='AVX2',
    cores=2,
    threads=1,
    shape=[224, 192],
    channels_last=True,
    versions=dict(torch='2.10.0', mmcv='2.1.0'),
)
RUN = dict(
    **dict(batch=4, mode='infer', precision='fp32', device='cpu', compiled=False, rounds=3),
    **dict(ms_median=8.04, ms_min=7.0, ms_max=9.0, images_per_second=497.5, ratio_to_first=1.0),
    **dict(peak_memory_bytes=250_400_000, activation_bytes=None),
)


def result(name: str, *runs: dict, **counts: float) -> dict:
    return dict(name=name, config=f'{name}.py', environment=ENVIRONMENT, runs=[*runs], **counts)


COUNTS = dict(
    **dict(params=22_050_000, params_no_head=21_600_000, macs=4.6e9),
    **dict(weight_bytes=88.2e6, gradient_bytes=88.2e6, train_state_bytes=353e6),
)
TIED = result('tied', RUN, {**RUN, 'compiled': True, 'ms_median': 4.0}, {**RUN, 'mode': 'train'}, **COUNTS)
UNTIED = result('untied', {**RUN, 'ratio_to_first': 1.25}, {**RUN, 'batch': 8}, **COUNTS)
FAILED = result('failed')


def test_markdown_table():
    assert markdown_table(['a', 'b'], [(1, None)]) == '| a | b |\n| --- | --- |\n| 1 | - |'


def test_quantity():
    assert quantity(1_250_000, 1e6) == '1.25'
    assert quantity(1_250_000, 1e6, 0) == '1'
    assert quantity(None, 1e6) is None


def test_counts_are_in_units_and_absent_ones_are_dashes():
    lines = counts_table([TIED, FAILED]).splitlines()
    assert lines[2] == '| tied | 22.050 | 21.600 | 4.600 | 88.2 | 88.2 | 353.0 |'
    assert lines[3] == '| failed | - | - | - | - | - | - |'


def test_runs_of_one_kind_are_together():
    rows = [line.split(' | ') for line in runs_table([TIED, UNTIED, FAILED]).splitlines()[2:]]
    kinds = [(row[0].removeprefix('| '), row[1], row[2]) for row in rows]
    assert kinds == [
        ('tied', '4', 'infer'),
        ('tied, compiled', '4', 'infer'),
        ('untied', '4', 'infer'),
        ('tied', '4', 'train'),
        ('untied', '8', 'infer'),
    ]
    assert rows[2][3:] == ['fp32', '8.0', '7.0 to 9.0', '497.5', '1.250', '250', '- |']


def test_environment_in_one_line():
    expected = 'a processor (AVX2), 2 cores, 1 threads, 224 x 192, channels_last; torch 2.10.0, mmcv 2.1.0'
    assert environment_line(ENVIRONMENT) == expected


def test_files(tmp_path):
    files = write_results([TIED, UNTIED, FAILED], tmp_path / 'made/out')
    names = ['results.json', 'results.csv', 'results.md', 'counts.png', 'time_infer.png', 'time_train.png']
    assert [file.relative_to(tmp_path / 'made/out').name for file in files] == names
    assert json.loads(files[0].read_text()) == [TIED, UNTIED, FAILED]
    lines = [*csv.DictReader(files[1].open())]
    assert [line['name'] for line in lines] == ['tied'] * 3 + ['untied'] * 2 + ['failed']
    assert [line['ms_median'] for line in lines] == ['8.04', '4.0', '8.04', '8.04', '8.04', '']
    told = files[2].read_text()
    assert told == f'{environment_line(ENVIRONMENT)}\n\n{counts_table([TIED, UNTIED, FAILED])}\n\n' + (
        f'{runs_table([TIED, UNTIED, FAILED])}\n'
    )
    for file in files[3:]:
        with Image.open(file) as chart:
            assert min(chart.size) > 400
            assert len({*chart.convert('RGB').resize((90, 45)).getdata()}) > 10


def test_one_batch_makes_bars(monkeypatch, tmp_path):
    monkeypatch.setattr(report, 'save', lambda figure, path: figure)
    lines = dict(tied=[(16, 3.0)], untied=[(16, 4.0)])
    [axes] = report.chart_lines(lines, 'images', 'ms', tmp_path / 'chart.png', log=True).axes
    assert [bar.get_width() for bar in axes.patches] == [3.0, 4.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ['tied', 'untied']
    assert not axes.lines
    lines['tied'].append((32, 3.5))
    [axes] = report.chart_lines(lines, 'images', 'ms', tmp_path / 'chart.png', in_front=['untied']).axes
    assert not axes.patches
    assert axes.lines[1].get_zorder() > axes.lines[0].get_zorder()


@pytest.mark.parametrize('results', [[FAILED], [result('uncounted', RUN)]])
def test_files_of_what_was_measured(results, tmp_path):
    """No chart is drawn of counts or times that are not there."""
    charts = [file.name for file in write_results(results, tmp_path) if file.suffix == '.png']
    assert charts == (['time_infer.png'] if results[0]['runs'] else [])
