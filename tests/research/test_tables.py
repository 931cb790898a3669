import copy
import json

import pytest
from tables import compare, measure_tables

from halvit_mm.errors import UserError
from tests.utils import ROOT, run_tool

PUBLISHED = {
    'sources': 'A paper.',
    'tables': [
        {
            'title': 'Digits',
            'shape': [32, 32],
            'first': 'ResNet50-PE1',
            'charted': ['HaLViT'],
            'batches': [1, 2],
            'rows': [
                {
                    'method': 'HaLViT',
                    'config': 'digits/halvit_2xb64_digits.py',
                    'params': 0.4,
                    'gmacs': 0.01,
                    'top1': 99.0,
                    'counted': 'without classifier',
                    'note': 'A reason.',
                },
                {'method': 'ResNet50-PE1', 'config': 'digits/resnet50-pe_2xb64_digits.py', 'top1': 98.0},
                {'method': 'FocalAtt-Tiny', 'params': 28.9, 'gmacs': 4.9, 'top1': 82.2},
            ],
        },
        {
            'title': 'Detected digits',
            'shape': [64, 96],
            'memory_shapes': [[64, 64], [64, 128]],
            'charted': ['PVT'],
            'rows': [
                {'method': 'PVT', 'config': 'digits/mask-rcnn_pvt_digits-coco.py', 'box_ap': 40.0, 'mask_ap': 38.0}
            ],
        },
    ],
    'beyond': {
        'title': 'Bytes',
        'rows': [
            {'method': 'HaLViT', 'params': 10.0, 'gmacs': None, 'top1': 99.0, 'source': 'A paper.'},
            {
                **{'method': 'Small', 'params': 20.0, 'gmacs': 1.5, 'top1': 98.0, 'source': 'Another.'},
                **{'bits': 4, 'teacher': 'Large'},
            },
        ],
    },
}


@pytest.mark.long
def test_tool(tmp_path):
    (tmp_path / 'published.json').write_text(json.dumps(PUBLISHED))
    command = ['research/make_tables.py', '--published', str(tmp_path / 'published.json'), '--rounds', '2']
    shown = run_tool(*command, '--out', str(tmp_path)).stdout
    assert 'Since the last time' not in shown
    lines = (tmp_path / 'tables.md').read_text().splitlines()
    [halvit] = [line for line in lines if line.startswith('| HaLViT |')]
    assert halvit.startswith('| HaLViT | 99.0 | 0.4 | 0.36* | 0.01 | 0.01 | ')
    assert '| FocalAtt-Tiny | 82.2 | 28.9 | - | 4.9 | - | - | - | - | - |' in lines
    assert any(line.startswith('| ResNet50-PE1 | 98.0 | - | 0.82 |') and line.endswith('| 1.00 |') for line in lines)
    assert '- HaLViT: A reason.' in lines
    assert any(line.startswith('| PVT | 40.0 | 38.0 | - | 1.77 | ') for line in lines)
    at = lines.index('## Bytes')
    rows = [line for line in lines[at:] if line.startswith('| ')][2:]
    assert rows[0] == '| Small | 10.0 | 20.0 | 4 | 1.5 | 98.0 | Large | Another. |'
    assert rows[1] == '| **HaLViT** | 40.0 | 10.0 | 32 | - | 99.0 | - | A paper. |'
    charts = {path.name for path in (tmp_path / 'charts').iterdir()}
    assert charts == {
        'digits_accuracy_over_parameters.png',
        'digits_accuracy_over_training_state.png',
        'digits_time_infer.png',
        'digits_time_train.png',
        'detected_digits_accuracy_over_training_state.png',
        'detected_digits_memory.png',
        'imagenet_accuracy_over_bytes.png',
    }
    assert all(f'](charts/{name})' in '\n'.join(lines) for name in charts)
    before = json.loads((tmp_path / 'tables.json').read_text())
    after = copy.deepcopy(before)
    assert compare(before, after) == ['counts: the same', 'ratios of times: at most 0.0 % apart']
    after[0]['measured']['HaLViT']['macs'] += 1
    after[0]['measured']['HaLViT']['runs'][0]['ratio_to_first'] *= 1.2
    said = compare(before, after)
    assert said[0].startswith('HaLViT: macs was ')
    assert said[1] == 'ratios of times: at most 20.0 % apart (HaLViT, infer, batch 1)'


@pytest.mark.parametrize('field', ['first', 'charted'])
def test_names_of_no_row_are_refused(field):
    table = {**PUBLISHED['tables'][0], field: 'FocalAtt-Tiny' if field == 'first' else ['FocalAtt-Tiny']}
    with pytest.raises(UserError, match='Digits: FocalAtt-Tiny is not a row with a config'):
        measure_tables([table], ROOT / 'configs', 2, lambda _: None)


def test_published_rows_name_configs():
    published = json.loads((ROOT / 'docs/published.json').read_text())
    for table in published['tables']:
        methods = [row['method'] for row in table['rows']]
        assert len(methods) == len({*methods})
        assert {*table['charted'], *filter(None, [table.get('first')])} <= {*methods}
        for row in table['rows']:
            assert 'config' not in row or (ROOT / 'configs' / row['config']).is_file(), row


def test_measured_agrees_with_published():
    """Parameters within 1.5 %, multiply-accumulates within 1 %, each to its rounding, or a note says why not."""
    published = json.loads((ROOT / 'docs/published.json').read_text())
    measured = json.loads((ROOT / 'docs/tables.json').read_text())
    compared = 0
    for table, result in zip(published['tables'], measured, strict=True):
        for row in table['rows']:
            one = result['measured'].get(row['method'], {})
            assert 'error' not in one, row
            params = 'params_no_head' if 'counted' in row else 'params'
            for key, counted, unit, tolerance in (('params', params, 1e6, 0.015), ('gmacs', 'macs', 1e9, 0.01)):
                if row.get(key) is None or not one:
                    continue
                half_a_digit = 0.5 * 10 ** -len(str(row[key]).partition('.')[2])
                close = abs(one[counted] / unit - row[key]) <= tolerance * row[key] + half_a_digit
                assert close or 'note' in row, (row, one[counted])
                compared += 1
    assert compared > 60
