"""Command lines, read by upstream's own parsers."""

import os
import sys
from pathlib import Path

import mmdet
import mmpretrain
import pytest

from halvit_mm.errors import UserError
from halvit_mm.launch.checks import check_run
from halvit_mm.launch.command import load_upstream_tool, parse_command
from tests.utils import ROOT

DIGITS = 'configs/digits/halvit_2xb64_digits.py'
CLASSIFIER = str(Path(mmpretrain.__file__).parent / '.mim/configs/resnet/resnet18_8xb32_in1k.py')
DETECTOR = str(Path(mmdet.__file__).parent / '.mim/configs/retinanet/retinanet_r18_fpn_1x_coco.py')
SEGMENTOR = str(ROOT / 'configs/digits/upernet_halvit_digits-seg.py')


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('config', [DIGITS, DETECTOR])
@pytest.mark.parametrize(
    ('argv', 'values'),
    [
        ('CONFIG', {}),
        ('--work-dir X CONFIG', dict(work_dir='X')),
        ('--work-dir=X CONFIG', dict(work_dir='X')),
        ('CONFIG --work-dir X', dict(work_dir='X')),
        ('CONFIG --work-dir=X', dict(work_dir='X')),
        ('--launcher none --work-dir X CONFIG --amp', dict(work_dir='X', amp=True)),
        ('--local-rank 1 CONFIG', dict(local_rank=1)),
        ('CONFIG --resume', dict(resume='auto')),
        ('CONFIG --resume --amp', dict(resume='auto', amp=True)),
        ('--resume --work-dir X CONFIG', dict(resume='auto', work_dir='X')),
        ('--resume a.pth CONFIG', dict(resume='a.pth')),
        ('--resume=a.pth CONFIG', dict(resume='a.pth')),
        ('CONFIG --resume a.pth', dict(resume='a.pth')),
        ('--cfg-options a.b=1 c=[2,3] --work-dir X CONFIG', dict(cfg_options={'a.b': 1, 'c': [2, 3]}, work_dir='X')),
        ('--cfg-options=a.b=1 CONFIG', dict(cfg_options={'a.b': 1})),
        ('CONFIG --cfg-options a.b=1 c=[2,3]', dict(cfg_options={'a.b': 1, 'c': [2, 3]})),
        ('CONFIG --cfg-options a.b=1 --resume --cfg-options c=2', dict(cfg_options={'a.b': 1, 'c': 2}, resume='auto')),
        ('--trust-checkpoint CONFIG', dict(trust_checkpoint=True)),
        (
            '--cfg-options a=1 --trust-checkpoint --work-dir X CONFIG',
            dict(cfg_options={'a': 1}, trust_checkpoint=True, work_dir='X'),
        ),
        ('CONFIG --resume --trust-checkpoint', dict(resume='auto', trust_checkpoint=True)),
    ],
)
def test_train(argv, values, config):
    command = parse_command('train', [config if word == 'CONFIG' else word for word in argv.split()])
    defaults = dict(config=config, work_dir=None, resume=None, amp=False, cfg_options=None, trust_checkpoint=False)
    assert {**vars(command.args), **defaults, **values} == vars(command.args)
    assert '--trust-checkpoint' not in command.argv
    for key, value in (command.args.cfg_options or {}).items():
        assert command.cfg[key.partition('.')[0]] in (value, {key.partition('.')[2]: value})


@pytest.mark.parametrize('config', [DIGITS, DETECTOR])
@pytest.mark.parametrize(
    ('argv', 'values'),
    [
        ('CONFIG CK', {}),
        ('--show-dir P CONFIG CK', dict(show_dir='P')),
        ('CONFIG --show-dir P CK', dict(show_dir='P')),
        ('CONFIG CK --show-dir=P --tta', dict(show_dir='P', tta=True)),
        ('--out o.pkl --wait-time 3 CONFIG CK', dict(out='o.pkl', wait_time=3.0)),
        ('--cfg-options a=1 b=2 --out o.pkl CONFIG CK', dict(cfg_options=dict(a=1, b=2), out='o.pkl')),
        ('CONFIG CK --cfg-options a=1 b=2', dict(cfg_options=dict(a=1, b=2))),
        ('CONFIG CK --trust-checkpoint', dict(trust_checkpoint=True)),
    ],
)
def test_test(argv, values, config):
    command = parse_command('test', [config if word == 'CONFIG' else word for word in argv.split()])
    defaults = dict(config=config, checkpoint='CK', show_dir=None, tta=False, out=None, trust_checkpoint=False)
    assert {**vars(command.args), **defaults, **values} == vars(command.args)


@pytest.mark.parametrize(
    ('config', 'package'),
    [(DIGITS, 'mmpretrain'), (CLASSIFIER, 'mmpretrain'), (DETECTOR, 'mmdet'), (SEGMENTOR, 'mmseg')],
)
def test_the_config_says_whose_tool_it_is(config, package):
    assert package in Path(parse_command('train', [config]).upstream.__file__).parts


def test_mmseg_resumes_by_a_flag():
    for argv, resume in (([], None), (['--resume'], 'auto')):
        assert parse_command('train', [SEGMENTOR, *argv]).args.resume == resume


def refused(capsys, tool: str, argv: list[str]) -> str:
    with pytest.raises(SystemExit) as end:
        parse_command(tool, argv)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f'usage: {tool}.py')
    assert said.count('usage:') == 1
    return said


class TestWrongOptions:
    def test_of_every_package(self, capsys):
        assert 'unrecognized arguments: --absent' in refused(capsys, 'train', [DIGITS, '--absent'])
        assert 'arguments are required: config' in refused(capsys, 'train', [])
        assert 'arguments are required: checkpoint' in refused(capsys, 'test', ['--show-dir', 'P', DIGITS])

    def test_the_package_of_the_config_has_the_last_word(self, capsys):
        parse_command('train', [DIGITS, '--no-validate'])
        assert 'unrecognized arguments: --no-validate' in refused(capsys, 'train', [DETECTOR, '--no-validate'])

    def test_an_option_that_only_the_second_package_knows(self, capsys, monkeypatch):
        # Today mmdet's parsers know no such option, so that the order is turned around.
        monkeypatch.setattr('halvit_mm.launch.command.PARSERS', ('mmdet', 'mmpretrain'))
        assert parse_command('train', [DIGITS, '--no-validate']).args.no_validate
        assert 'unrecognized arguments: --no-validate' in refused(capsys, 'train', [DETECTOR, '--no-validate'])


def test_options_that_a_package_lacks_are_absent():
    command = parse_command('train', [DETECTOR])
    assert not hasattr(command.args, 'no_validate')
    with pytest.raises(UserError, match='train_dataloader: data/coco does not exist'):
        check_run(command.cfg, 'train', command.args)


def test_help_is_upstream_s_and_ours(capsys):
    with pytest.raises(SystemExit) as end:
        parse_command('train', ['--help'])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert '--no-persistent-workers' in said
    assert '--trust-checkpoint' in said
    assert 'HALVIT_MM_DEBUG=1' in said


@pytest.mark.parametrize('local_rank', [None, '3'])
def test_the_process_is_left_as_it_was(local_rank, monkeypatch):
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    if local_rank:
        monkeypatch.setenv('LOCAL_RANK', local_rank)
    before = [*sys.argv], dict(os.environ)
    parse_command('train', [DETECTOR, '--local-rank', '1'])
    assert (sys.argv, dict(os.environ)) == before


class TestPackagedConfigs:
    @pytest.mark.parametrize(
        ('config', 'file'),
        [
            ('halvit_mm::digits/halvit_2xb64_digits.py', ROOT / DIGITS),
            ('mmpretrain::resnet/resnet18_8xb32_in1k.py', CLASSIFIER),
            ('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', DETECTOR),
        ],
    )
    def test_become_files(self, config, file):
        command = parse_command('train', ['--work-dir', 'X', config, '--amp'])
        assert Path(command.args.config).samefile(file)
        assert command.argv == ['--work-dir', 'X', command.args.config, '--amp']
        assert command.cfg.filename == command.args.config

    @pytest.mark.parametrize(
        ('config', 'message'),
        [
            ('halvit_mm::digits/halvit_2xb64_digit.py', 'expected one such as digits/halvit_2xb64_digits.py'),
            ('mmdet::retinanet/absent.py', "'retinanet/absent.py' is not a config of mmdet"),
            ('absent::x.py', "'absent' is not an installed package"),
            ('::x.py', "'' is not an installed package"),
            ('halvit-mm::x.py', "did you mean 'halvit_mm'"),
        ],
    )
    def test_that_are_not_there(self, config, message):
        with pytest.raises(UserError, match=message):
            parse_command('train', [config])


@pytest.mark.parametrize('scope', ['absent', 'mmengine', 'halvit_mm'])
def test_scopes_without_a_tool(scope):
    with pytest.raises(UserError, match=f"default_scope='{scope}' is not .*; expected mmpretrain or mmdet"):
        parse_command('train', [DIGITS, '--cfg-options', f'default_scope={scope}'])


@pytest.mark.parametrize('tool', ['train', 'test'])
@pytest.mark.parametrize('package', ['mmpretrain', 'mmdet'])
def test_upstream_adds_up_the_pairs_of_all_cfg_options(package, tool, monkeypatch):
    """So that our runner can be named before what the user names."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', ['x', '--cfg-options=a=1', 'CONFIG', 'CK'][: 4 if tool == 'test' else 3])
    sys.argv += ['--cfg-options', 'b=2', 'c=3']
    assert load_upstream_tool(package, tool).parse_args().cfg_options == dict(a=1, b=2, c=3)


@pytest.mark.parametrize('argv', ['--cfg-options a=1 b', 'CONFIG --cfg-options a=1 b --amp', 'CONFIG --cfg-options=b'])
def test_options_that_are_no_pairs(argv):
    with pytest.raises(UserError, match="--cfg-options: 'b' is not KEY=VALUE; expected such as"):
        parse_command('train', [DIGITS if word == 'CONFIG' else word for word in argv.split()])
