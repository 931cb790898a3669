import csv
import json
import os
import signal

import pytest

from halvit_mm.cost.benchmark import benchmark, count, in_fresh_process, peak_memory
from halvit_mm.cost.subject import Settings, Subject
from tests.utils import ROOT, run_tool

DIGITS = 'configs/digits/halvit_2xb64_digits.py'
KEYS = {
    *(
        'name',
        'config',
        'params',
        'params_no_head',
        'macs',
        'weight_bytes',
        'gradient_bytes',
        'train_state_bytes',
        'runs',
    )
}
RUN_KEYS = {
    *('batch', 'mode', 'precision', 'device', 'ms_median', 'ms_min', 'ms_max', 'images_per_second'),
    *('peak_memory_bytes', 'ratio_to_first'),
}


def die(*args) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_told():
    with pytest.raises(Exception, match='terminated abruptly'):
        in_fresh_process(die)


def test_images_of_one_channel(tmp_path):
    (tmp_path / 'grey.py').write_text(f"""
_base_ = '{ROOT / DIGITS}'
model = dict(backbone=dict(in_channels=1))
data_preprocessor = dict(mean=[33.0], std=[78.6])
""")
    settings = Settings(shape=(32, 32))
    grey, color = (count(Subject(str(path)), settings) for path in (tmp_path / 'grey.py', ROOT / DIGITS))
    assert color['macs'] - grey['macs'] == 16 * 96 * 2 * 64
    shown = run_tool('tools/count.py', tmp_path / 'grey.py').stdout  # of the config's own image size
    assert f'{grey["macs"]:,}      32 x 32  {tmp_path}' in shown


def test_memory_grows_with_the_batch():
    subject, settings = Subject(str(ROOT / DIGITS)), Settings(shape=(32, 32))
    small, large = (in_fresh_process(peak_memory, subject, settings, batch, 'train', 'fp32') for batch in (8, 256))
    assert large['activation_bytes'] == pytest.approx(32 * small['activation_bytes'], rel=0.01)
    assert large['peak_memory_bytes'] > small['peak_memory_bytes'] + 128 * 2**20


def test_a_model_that_cannot_be_built_does_not_lose_the_others(tmp_path):
    broken = tmp_path / 'broken.py'
    broken.write_text(f"_base_ = '{ROOT / DIGITS}'\nmodel = dict(backbone=dict(tie='most'))\n")
    said = []
    settings = Settings(shape=(32, 32), batches=(2,), rounds=2, processes=2, memory=False)
    subjects = [Subject(str(broken)), Subject(str(ROOT / DIGITS))]
    bad, good = benchmark(subjects, settings, said.append)
    assert 'tie' in bad['error']
    assert bad['runs'] == []
    assert KEYS <= good.keys()
    assert [run['mode'] for run in good['runs']] == ['infer', 'train']
    assert [run['ratio_to_first'] for run in good['runs']] == [1, 1]
    assert [run['rounds'] for run in good['runs']] == [4, 4]
    assert any(line.startswith('broken failed: ') for line in said)


def test_a_model_that_cannot_be_run_does_not_lose_the_others(tmp_path):
    small = tmp_path / 'small.py'
    small.write_text(f"_base_ = '{ROOT / DIGITS}'\nmodel = dict(backbone=dict(arch=dict(num_layers=1)))\n")
    settings = Settings(shape=(32, 32), batches=(1,), rounds=3, memory=False)
    # Of one image of this size its last batch norm sees one value for each channel.
    resnet = Subject('mmpretrain::resnet/resnet18_8xb32_in1k.py')
    bad, *others = benchmark([resnet, Subject(str(small)), Subject(str(ROOT / DIGITS))], settings)
    assert 'Expected more than 1 value per channel when training' in bad['error']
    assert [run['mode'] for run in bad['runs']] == ['infer']
    ratios = [[run['ratio_to_first'] for run in one['runs']] for one in (bad, *others)]
    assert (ratios[0][0], ratios[1][1]) == (1, 1)
    assert all(ratio != 1 for ratio in (ratios[1][0], *ratios[2]))


def test_times_of_a_process_that_dies_are_told(monkeypatch):
    monkeypatch.setattr('halvit_mm.cost.benchmark.take_times', die)
    settings = Settings(shape=(32, 32), batches=(2,), rounds=1, memory=False)
    [result] = benchmark([Subject(str(ROOT / DIGITS))], settings)
    assert 'BrokenProcessPool' in result['error']
    assert KEYS <= result.keys()
    assert result['runs'] == []


@pytest.mark.long
def test_tool(tmp_path):
    tied, untied = tmp_path / 'tied.py', tmp_path / 'untied.py'
    tied.write_text(f"_base_ = '{ROOT / DIGITS}'\nmodel = dict(backbone=dict(arch=dict(num_layers=1)))\n")
    untied.write_text("_base_ = 'tied.py'\nmodel = dict(backbone=dict(tie='none'))\n")
    done = run_tool(
        *('tools/benchmark.py', tied, untied, '--shape', '32', '--batch', '4'),
        *('--rounds', '2', '--compile', '--modes', 'infer', '--out', str(tmp_path / 'out')),
    )
    results = json.loads((tmp_path / 'out/results.json').read_text())
    assert [result['name'] for result in results] == ['tied', 'untied']
    for result in results:
        assert KEYS <= result.keys()
        assert [one['compiled'] for one in result['runs']] == [False, True]
        assert all(RUN_KEYS <= one.keys() for one in result['runs'])
        assert result['environment']['threads'] > 0
    tied, untied = results
    assert tied['gradient_bytes'] < 0.65 * untied['gradient_bytes']
    assert all(one['peak_memory_bytes'] > 2**27 for one in tied['runs'] if not one['compiled'])
    lines = [*csv.DictReader((tmp_path / 'out/results.csv').open())]
    assert [line['ms_median'] for line in lines] == [str(one['ms_median']) for r in results for one in r['runs']]
    assert '| untied, compiled | 4 | infer | fp32 |' in (tmp_path / 'out/results.md').read_text()
    assert '| untied, compiled | 4 | infer | fp32 |' in done.stdout
    for chart in ('counts.png', 'time_infer.png'):
        assert (tmp_path / 'out' / chart).read_bytes().startswith(b'\x89PNG')


@pytest.mark.long
def test_tool_profiles():
    shown = run_tool(
        *('tools/benchmark.py', DIGITS, '--shape', '32', '--batch', '4', '--rounds', '2', '--profile')
    ).stdout
    [row] = [line for line in shown.splitlines() if line.startswith('| halvit_2xb64_digits | 4 | train | fp32 |')]
    assert row.count('%') == 6


def test_tool_tells_two_configs_of_one_name():
    done = run_tool('tools/benchmark.py', DIGITS, DIGITS, check=False)
    assert done.returncode == 2
    assert 'error: two configs have the name halvit_2xb64_digits' in done.stdout
