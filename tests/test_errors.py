import pytest

from halvit_mm.errors import DEBUG, RankError, UserError, did_you_mean, errors_in_one_line, warn


def test_only_the_first_rank_tells(capsys, monkeypatch):
    for rank, told in (('0', 'error: the reason\n'), ('1', '')):
        monkeypatch.setenv('RANK', rank)
        with pytest.raises(SystemExit) as ended, errors_in_one_line():
            raise UserError('the reason')
        assert ended.value.code == 2
        assert capsys.readouterr().err == told


def test_what_one_rank_met_is_told_by_that_rank(capsys, monkeypatch):
    monkeypatch.setenv('SLURM_PROCID', '3')
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(SystemExit) as ended, errors_in_one_line():
        raise RankError('the reason')
    assert ended.value.code == 2
    assert capsys.readouterr().err == 'error: rank 3: the reason\n'


def test_without_ranks(capsys, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    for error in (UserError, RankError):
        with pytest.raises(SystemExit), errors_in_one_line():
            raise error('the reason')
        assert capsys.readouterr().err == 'error: the reason\n'


def test_other_errors_keep_their_traceback():
    with pytest.raises(ValueError, match='a fault of ours'), errors_in_one_line():
        raise ValueError('a fault of ours')


def test_the_traceback_comes_on_demand(capsys, monkeypatch):
    monkeypatch.setenv(DEBUG, '1')
    with pytest.raises(SystemExit), errors_in_one_line():
        raise UserError('the reason')
    *before, last = capsys.readouterr().err.splitlines()
    assert before[0] == 'Traceback (most recent call last):'
    assert last == 'error: the reason'


def test_a_warning_is_told_once(capsys, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.delenv(name, raising=False)
    warn('a')
    monkeypatch.setenv('SLURM_PROCID', '1')
    warn('b')
    monkeypatch.setenv('SLURM_PROCID', '0')
    warn('c')
    # The process that started torchrun has told it.
    monkeypatch.setenv('RANK', '0')
    warn('d')
    assert capsys.readouterr().err == 'warning: a\nwarning: c\n'


def test_did_you_mean():
    assert did_you_mean('halvit', ['DaViT', 'HaLViT']) == "did you mean 'HaLViT'?"
    assert (
        did_you_mean('HalViT', {'DaViT': 'DaViT', 'HaLViT': 'halvit_mm.HaLViT'}) == "did you mean 'halvit_mm.HaLViT'?"
    )
    assert did_you_mean('x', ['depth', 'xyz']) == ''
