import pytest

from halvit_mm.data import write_digits
from tests.utils import run, run_tool

SHORT = [
    *('model.backbone.arch.embed_dims=24', 'model.backbone.arch.num_layers=2', 'model.head.in_channels=24'),
    *('train_cfg.max_epochs=1', 'param_scheduler=None', 'train_dataloader.dataset.indices=64'),
]


@pytest.fixture(scope='module')
def options(tmp_path_factory) -> list[str]:
    root = tmp_path_factory.mktemp('digits')
    write_digits(root)
    return ['--cfg-options', *SHORT, f'train_dataloader.dataset.data_root={root}']


@pytest.mark.long
@pytest.mark.parametrize(
    ('given', 'named'), [([], 'halvit_mm.ResumableRunner'), (['runner_type=Runner'], 'Runner')], ids=['ours', 'own']
)
def test_runner(given, named, options, tmp_path):
    config = 'halvit_mm::digits/halvit_2xb64_digits.py'
    # Upstream takes no options of a loader that --no-validate removes.
    options = [option for option in options if not option.startswith('val_')]
    trained = run_tool(
        *('tools/train.py', '--work-dir', tmp_path, *options, *given, '--no-validate', config), cwd=tmp_path
    )
    assert f"\nrunner_type = '{named}'\n" in trained.stdout
    assert 'embed_dims=24' in trained.stdout
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_every_tool_finds_our_runner():
    code = (
        'from halvit_mm.launch.command import UPSTREAM, load_upstream_tool\n'
        'tools = [load_upstream_tool(package, tool) for package in UPSTREAM for tool in ("train", "test")]\n'
        # mmseg's test.py has none, and run_upstream_tool gives it the runner.
        "assert [tool.__name__ for tool in tools if not hasattr(tool, 'RUNNERS')] == ['mmseg_test_tool']\n"
        "runners = [tool.RUNNERS for tool in tools if hasattr(tool, 'RUNNERS')]\n"
        "print({runners.get('halvit_mm.ResumableRunner').__name__ for runners in runners})"
    )
    assert run('python', '-c', code).stdout.splitlines()[-1] == "{'ResumableRunner'}"


def test_mistakes_are_told_before_anything_else(options, tmp_path):
    """In one line, by a process of its own as by the process that starts the ranks; with the traceback on demand."""
    config = 'halvit_mm::digits/halvit_2xb64_digits.py'
    tool = ('tools/train.py', config, '--no-validate', '--work-dir', tmp_path / 'run', *options)
    message = "error: model.backbone.type='HalViT' is not a registered class; did you mean 'halvit_mm.HaLViT'?"
    for variables in ({}, {'HALVIT_MM_DEBUG': '1'}):
        failed = run_tool(*tool, 'model.backbone.type=HalViT', cwd=tmp_path, check=False, **variables)
        assert failed.returncode == 2
        *before, line = failed.stdout.splitlines()
        assert line == message
        assert bool(before) == bool(variables), failed.stdout
    assert 'in check_components' in failed.stdout
    assert not (tmp_path / 'run').exists()
