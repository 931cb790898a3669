import argparse

import pytest

from halvit_mm.errors import UserError
from halvit_mm.io.configs import OptionAction, load_config, words_after
from tests.utils import ROOT

DIGITS = str(ROOT / 'configs/digits/halvit_2xb64_digits.py')
DETECTOR = str(ROOT / 'configs/digits/mask-rcnn_halvit_digits-coco.py')


def test_config_that_cannot_be_read(tmp_path):
    (tmp_path / 'broken.py').write_text("_base_ = 'absent.py'\n")
    with pytest.raises(UserError, match=r'broken\.py cannot be read: .*absent\.py'):
        load_config(str(tmp_path / 'broken.py'))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('a = dict(\nb = 1\n', r"cannot be read: SyntaxError: '\(' was never closed in line 1: a = dict\("),
        ('a = undefined\n', "cannot be read: NameError: name 'undefined' is not defined"),
        (
            "custom_imports = dict(imports='absent_module')\n",
            r'Failed to import absent_module \(custom_imports; ',
        ),
    ],
)
def test_the_reason_is_told_in_one_line(text, message, tmp_path):
    (tmp_path / 'broken.py').write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        load_config(str(tmp_path / 'broken.py'))
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    'path', ['digits/halvit_2xb64_digits', 'halvit_2xb64_digits.py', 'configs/halvit/halvit_2xb64_digit.py']
)
def test_the_nearest_config_is_named(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='does not exist; did you mean .halvit_mm::digits/halvit_2xb64_digits.py.'):
        load_config(path)


def test_a_config_beside_it_is_named_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'halvit_2xb64_digits.py').touch()
    with pytest.raises(UserError, match="did you mean 'halvit_2xb64_digits.py'"):
        load_config('halvit_2xb64_digits')
    with pytest.raises(UserError, match='absent.py does not exist$'):
        load_config('absent.py')


def test_a_package_is_named():
    with pytest.raises(UserError, match="'halvit-mm' is not an installed package; did you mean 'halvit_mm'"):
        load_config('halvit-mm::digits/halvit_2xb64_digits.py')


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'train_dataloder.batch_size',
            "is not a key that a run reads; did you mean 'train_dataloader'",
        ),
        ('optim_wraper.optimizer.lr', "did you mean 'optim_wrapper'"),
        ('train_dataloader.dataset.pipeline.99.type', "'99' is not an entry of .*pipeline, a list of .; expected 0 to"),
        (
            'train_dataloader.dataset.pipeline.first.type',
            "'first' is not an entry of train_dataloader.dataset",
        ),
        ('train_cfg.max_epochs.x', 'train_cfg.max_epochs=100 has no keys; expected train_cfg.max_epochs=VALUE'),
    ],
)
def test_options_that_nothing_reads(option, message):
    with pytest.raises(UserError, match=f'--cfg-options {option}: .*{message}'):
        load_config(DIGITS, {option: 1})


def test_options_that_may_be_mistakes(capsys):
    load_config(DETECTOR, {'model.test_cfg.rcn.score_thr': 0.3})
    assert "model.test_cfg has had no 'rcn' so far; did you mean 'rcnn'?" in capsys.readouterr().err
    load_config(DETECTOR, {'mine': 3})
    assert "'mine' is not a key of" in capsys.readouterr().err
    load_config(DETECTOR, {'model.backbone.drop_path_rate': 0.1, 'reliability.bad_images': 'skip', 'load_from': None})
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('word', ['model.backbone.depth', 'a=[1,2'])
def test_options_that_cannot_be_read(word, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionAction)
    assert parser.parse_args(['--cfg-options', 'a.b=[1,2]']).cfg_options == {'a.b': [1, 2]}
    with pytest.raises(SystemExit):
        parser.parse_args(['--cfg-options', 'a=1', word])
    assert f'--cfg-options: {word!r} is not KEY=VALUE; expected such as' in capsys.readouterr().err


def test_words_of_an_option():
    argv = ['--cfg-options=a=1', 'CONFIG', '--amp', '--cfg-options', 'b=2', 'c=3', '--work-dir', 'x']
    assert words_after(argv, '--cfg-options') == ['a=1', 'b=2', 'c=3']
    assert words_after(argv, '--resume') == []
