import json

from check_exports import KINDS, MODELS, check, name_of, read_config, tables

from halvit_mm.data import write_digits, write_digits_seg
from tests.deploy.conftest import HALVIT, SEGMENTOR, SMALL
from tests.utils import ROOT, run_tool


def test_cells(tmp_path):
    write_digits(tmp_path / 'digits')
    cells = {}
    for kind in KINDS:
        if kind[0] == '.pt':
            cells[name_of(kind)] = check(read_config(HALVIT, SMALL[HALVIT], tmp_path), kind)
    assert cells['.pt fp32 one size'] == dict(sizes=1, error=0.0, same=100.0)
    assert cells['.pt fp32 any size']['refused'].startswith('--dynamic-size: a TorchScript trace keeps the size')

    cells['.xml fp32 any size'] = dict(refused='--out model.xml is not right')
    cells['.xml fp16 one size'] = dict(refused='--out model.xml is not right')
    cells['.xml int8 one size'] = dict(sizes=1, error=1.5, same=87.5)
    lines = tables({'a model': cells}).splitlines()
    assert '| a model | 0.000 % | [1] | 0.' in '\n'.join(lines)
    assert '| a model |  | [2] | [2] | 1.500 %, same class 88 % |' in lines
    assert lines[-1] == '2. refused: the file is not right'


def test_every_family_is_in_the_table():
    families = {path.parent.name for path in (ROOT / 'configs').glob('*/*.py')}
    families -= {'_base_', 'warm_start', 'fashion', 'elpv'}  # models of other families
    assert families <= {path.split('/')[1] for path, _ in MODELS}


def test_a_segmentor_is_read_with_the_dataset_of_its_config(tmp_path):
    write_digits_seg(tmp_path / 'digits_seg', train=1, val=2)
    cell = check(read_config(SEGMENTOR, SMALL[SEGMENTOR], tmp_path), ('.pt', 'fp32', False, False))
    assert cell == dict(sizes=1, error=0.0, same=100.0)


def test_cells_of_another_stack_are_kept(tmp_path):
    for name in ('digits', 'digits_coco', 'digits_seg'):
        (tmp_path / name).mkdir()
    kept = tmp_path / 'exports.json'
    kept.write_text(json.dumps(dict(environment='another machine', cells={})))
    tool = ('research/check_exports.py', '--data', tmp_path, '--out', kept.with_suffix('.md'))
    refused = run_tool(*tool, check=False).stdout
    assert 'exports.json is of "another machine", not of "' in refused
    assert json.loads(kept.read_text())['environment'] == 'another machine'
