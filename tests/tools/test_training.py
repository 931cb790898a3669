"""The tools as processes, on real images."""

import json
import os
import random
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from halvit_mm.data import write_digits
from halvit_mm.io.checkpoints import find_latest_checkpoint
from tests.utils import ROOT, environment, kill_tree, run, run_tool

CONFIG = 'configs/digits/halvit_2xb64_digits.py'
TINY_MODEL = [
    'model.backbone.arch.embed_dims=24',
    'model.backbone.arch.num_layers=2',
    'model.backbone.arch.feedforward_channels=48',
    'model.head.in_channels=24',
]

# The warm-up alone is longer.
ONE_EPOCH = ['train_cfg.max_epochs=1', 'param_scheduler=None']


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> list[str]:
    """Options that point a config at the digits."""
    root = tmp_path_factory.mktemp('digits')
    write_digits(root)
    return [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')]


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def assert_same_weights(a, b) -> None:
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


@pytest.mark.long
def test_number_of_ranks_does_not_change_the_losses(digits, tmp_path):
    losses = {}
    for ranks, batch in ((1, 64), (2, 32)):
        out = tmp_path / f'{ranks}.json'
        config = tmp_path / f'{ranks}.py'
        config.write_text(
            f'_base_ = {str(ROOT / CONFIG)!r}\n'
            "custom_imports = dict(imports='tests.train.loss_recorder')\n"
            f"custom_hooks = [dict(type='LossRecorder', out={str(out)!r})]\n"
        )
        run_tool(
            *('tools/train.py', config, '--launcher', 'pytorch', '--work-dir', tmp_path / str(ranks), '--no-validate'),
            *('--cfg-options', digits[0], *TINY_MODEL, f'train_dataloader.batch_size={batch}'),
            *('default_hooks.checkpoint.interval=-1', 'randomness.seed=5'),
            ranks=ranks,
        )
        losses[ranks] = json.loads(out.read_text())
    # 22 batches of 64 are whole; the last one is filled up for two ranks.
    assert len(losses[1]) == len(losses[2]) == 23
    np.testing.assert_allclose(losses[1][:22], losses[2][:22], rtol=0, atol=1e-4)
    assert losses[1][21] < losses[1][0]


def start(config, work_dir, *options: str) -> subprocess.Popen:
    command = ['tools/dist_train.sh', str(config), '2', '--work-dir', str(work_dir), '--no-validate', '--resume']
    log = open(work_dir.with_suffix('.log'), 'a')  # noqa: SIM115 - the process writes to it
    return subprocess.Popen(
        [*command, '--cfg-options', *options],
        cwd=ROOT,
        env=environment(),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def train_to_the_end(config, work_dir, *options: str) -> str:
    """What :func:`start` starts, without torchrun; what it writes."""
    tool = ('tools/train.py', config, '--launcher', 'pytorch', '--work-dir', work_dir, '--no-validate', '--resume')
    return run_tool(*tool, '--cfg-options', *options, ranks=2, timeout=200).stdout


@pytest.mark.long
def test_killed_training_ends_with_the_same_weights(digits, tmp_path):
    options = [
        *(digits[0], *TINY_MODEL, 'model.backbone.drop_path_rate=0.2', 'train_cfg.max_epochs=8'),
        'train_dataloader.dataset.indices=600',  # five iterations an epoch, the last with a part of a batch
        *('default_hooks.checkpoint.interval=1', 'train_dataloader.num_workers=1'),
        *('train_dataloader.persistent_workers=True', 'randomness.seed=None', 'env_cfg.dist_cfg.timeout=120'),
    ]
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {str(ROOT / CONFIG)!r}\n'
        "custom_hooks = [dict(type='EMAHook', momentum=0.01)]\n"
        "model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))\n"
    )
    killed, whole = tmp_path / 'killed', tmp_path / 'whole'
    process = start(config, killed, *options)
    deadline = time.monotonic() + 200
    while find_latest_checkpoint(killed) is None:
        assert process.poll() is None, (tmp_path / 'killed.log').read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(random.uniform(0, 0.5))
    kill_tree(process)
    last = Path(find_latest_checkpoint(killed))
    epoch = int(last.stem.removeprefix('epoch_'))
    assert epoch < 8, 'the training was over before it was killed'
    cut = killed / f'epoch_{epoch + 1}.pth'
    # As if the kill had come while the next one was written by mmengine itself
    cut.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    (killed / 'last_checkpoint').write_text(str(cut))
    log = train_to_the_end(config, killed, *options)
    assert f'{cut.name} is not a whole checkpoint and is skipped' in log
    assert f'resumed epoch: {epoch},' in log

    seed = torch.load(killed / 'epoch_8.pth', weights_only=False)['meta']['seed']
    options = [option for option in options if not option.startswith('randomness')]
    train_to_the_end(config, whole, *options, f'randomness.seed={seed}')
    assert_same_weights(killed / 'epoch_8.pth', whole / 'epoch_8.pth')
    ends = [torch.load(path / 'epoch_8.pth', weights_only=False) for path in (killed, whole)]
    for a, b in zip(*(end['ema_state_dict'].values() for end in ends), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(*(end['optimizer']['state'].values() for end in ends), strict=True):
        assert torch.equal(a['exp_avg_sq'], b['exp_avg_sq'])


@pytest.fixture(scope='module')
def imagenet(tmp_path_factory):
    """A folder in ImageNet's layout, with as many classes as it has and an image or two in some of them."""
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

    assert len(IMAGENET_CATEGORIES) == 1000
    root = tmp_path_factory.mktemp('imagenet')
    pixels = np.random.default_rng(0)
    for split, count in (('train', 24), ('val', 6)):
        for i in range(1000):
            folder = root / split / f'n{i:08d}'
            folder.mkdir(parents=True)
            if i < count:
                size = pixels.integers(60, 300, 2)
                noise = pixels.integers(0, 255, (*size, 3), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f'image_{i}.JPEG')
    return root


@pytest.mark.long
@pytest.mark.parametrize(
    ('config', 'batch'),
    [
        ('halvit/halvit-micro_8xb128_in1k', 1024),
        ('halvit/halvit-tiny_8xb256-deit3-400e_in1k', 2048),
        ('shared_resnet/resnet50-pe2_8xb32_in1k', 256),
    ],
)
def test_imagenet_config(imagenet, tmp_path, config, batch):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'imagenet').symlink_to(imagenet)
    # Unchanged but for sizes: from a folder in which data/imagenet lies
    trained = run_tool(
        *('tools/train.py', ROOT / f'configs/{config}.py', '--launcher', 'pytorch', '--auto-scale-lr', '--cfg-options'),
        *(*ONE_EPOCH, 'train_dataloader.batch_size=4', 'default_hooks.logger.interval=1'),
        *('train_dataloader.num_workers=1', 'val_dataloader.num_workers=1', 'val_dataloader.batch_size=4'),
        cwd=tmp_path,
        ranks=2,
    )
    assert f'LR is set based on batch size of {batch} and the current batch size is 8' in trained.stdout
    assert 'Epoch(train) [1][3/3]' in trained.stdout
    assert 'accuracy/top5' in trained.stdout
    assert (tmp_path / f'work_dirs/{Path(config).name}/epoch_1.pth').is_file()


@pytest.mark.long
def test_the_hosts_own_tool_runs_our_config(digits, tmp_path):
    import mmpretrain

    tool = os.path.join(os.path.dirname(mmpretrain.__file__), '.mim/tools/train.py')
    trained = run_tool(tool, CONFIG, '--work-dir', tmp_path, '--cfg-options', *digits, *TINY_MODEL, *ONE_EPOCH)
    assert 'accuracy/top1' in trained.stdout


class TestErrors:
    """One clear line, at once, and nothing else."""

    def told(self, *command, run=run, **variables) -> str:
        failed = run(*command, check=False, **variables)
        assert failed.returncode == 2
        assert 'Traceback' not in failed.stdout
        lines = [line for line in failed.stdout.splitlines() if 'Warning' not in line and line.strip()]
        assert len(lines) == 1, failed.stdout
        return lines[0]

    def test_missing_config(self):
        assert self.told('tools/dist_train.sh', 'absent.py', '2') == 'error: config absent.py does not exist'

    def test_busy_port(self):
        import socket

        with socket.socket() as other:
            other.bind(('', 0))
            other.listen()
            port = other.getsockname()[1]
            line = self.told('tools/dist_train.sh', CONFIG, '2', PORT=str(port))
        assert line.startswith(f'error: port {port} on 127.0.0.1 cannot be used')

    def test_a_class_that_is_not_there(self, digits):
        options = ('--cfg-options', *digits, 'optim_wrapper.optimizer.type=AdamWW')
        line = self.told('tools/dist_train.sh', CONFIG, '2', *options)
        assert line == ("error: optim_wrapper.optimizer.type='AdamWW' is not a registered class; did you mean 'AdamW'?")

    def test_missing_data(self):
        options = ('--cfg-options', 'train_dataloader.dataset.data_root=absent')
        for start, *tool in ((run, 'tools/dist_train.sh', CONFIG, '2'), (run_tool, 'tools/train.py', CONFIG)):
            line = self.told(*tool, *options, run=start)
            assert line.startswith('error: train_dataloader: absent does not exist')

    def test_usage(self):
        for script in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
            failed = run(f'tools/{script}.sh', check=False)
            assert failed.returncode == 2
            assert f'tools/{script}.sh' in failed.stdout

    def test_help_is_the_hosts(self):
        for tool in ('train', 'test'):
            shown = run_tool(f'tools/{tool}.py', '--help').stdout
            for option in ('--work-dir', '--amp', '--cfg-options', '--launcher', '--local-rank', '--local_rank'):
                assert option in shown

    @pytest.mark.long
    def test_a_rank_that_fails(self, digits):
        failed = run(
            *('tools/dist_train.sh', CONFIG, '2', '--cfg-options', *digits, *TINY_MODEL),
            'default_hooks.logger.interval=x',
            check=False,
        )
        assert failed.returncode == 2
        assert 'interval must be' in failed.stdout
        assert failed.stdout.splitlines()[-1].startswith('error: rank ')


@pytest.mark.long
def test_slurm_ranks_on_cpu(digits, tmp_path):
    """What srun gives each task, without srun: two processes with Slurm's variables."""
    tool = ('tools/train.py', CONFIG, '--work-dir', tmp_path, '--launcher=slurm', '--cfg-options')
    options = (*digits, *TINY_MODEL, *ONE_EPOCH)
    trained = run_tool(*tool, *options, ranks=2, launcher='slurm', SLURM_NODELIST='localhost')
    assert 'GPU number: 2' in trained.stdout
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_slurm_scripts_hand_over_what_srun_needs(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = f'{tmp_path}{os.pathsep}{environment()["PATH"]}'
    words = run(
        *('tools/slurm_train.sh', 'part', 'job', 'c.py', 'work dir', '--amp', '--cfg-options', 'a="b c"'),
        PATH=path,
        GPUS='16',
    ).stdout.splitlines()
    expected = ['-p', 'part', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8']
    expected += ['--cpus-per-task=5', '--kill-on-bad-exit=1', 'python', '-u', 'tools/train.py', 'c.py']
    assert words == [*expected, '--work-dir=work dir', '--launcher=slurm', '--amp', '--cfg-options', 'a="b c"']
    words = run('tools/slurm_test.sh', 'p', 'j', 'c.py', 'x.pth', PATH=path, GPUS='2', GRES='').stdout.splitlines()
    assert not any(word.startswith('--gres') for word in words)
    assert words[-4:] == ['tools/test.py', 'c.py', 'x.pth', '--launcher=slurm']
