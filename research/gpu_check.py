"""Run what can only be seen on GPUs, on all GPUs of this machine, and write docs/gpu.md with the card's name.

Without a GPU the steps are printed with their commands, and nothing is run. With --device cpu the steps that exist
there are run small, over gloo, and docs/gpu.md is left alone.

example:
  python research/gpu_check.py --only fp16-fused resume
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import psutil
import torch

from halvit_mm.cost.report import markdown_table
from halvit_mm.errors import UserError, errors_in_one_line
from halvit_mm.io.checkpoints import load_file
from halvit_mm.io.operators import how_to_get_cuda, lack_cuda

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = '<!-- gpu-check -->', '<!-- end of gpu-check -->'
PARTS = 'research/gpu_parts.py'
DEIT = 'mmpretrain::deit/deit-small_4xb256_in1k.py'

TRAINING = """_base_ = {base!r}
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters={iterations}, val_interval={iterations})
param_scheduler = None
default_hooks = dict(
    logger=dict(interval={log}), checkpoint=dict(by_epoch=False, interval={every}, max_keep_ckpts=-1)
)
log_processor = dict(by_epoch=False)
train_dataloader = dict(batch_size={batch}, dataset=dict(data_root={root!r}))
val_dataloader = dict(dataset=dict(data_root={root!r}))
test_dataloader = dict(dataset=dict(data_root={root!r}))
work_dir = {work_dir!r}
"""


@dataclass
class Command:
    """A command; with ``killed_at`` all of its processes are killed once that file is there."""

    words: Sequence[str]
    killed_at: Path | None = None

    def __str__(self) -> str:
        line = ' '.join(map(str, self.words))
        return line if self.killed_at is None else f'{line}   # killed with SIGKILL at {self.killed_at.name}'


@dataclass
class Step:
    """A step: what it shows, its configs by path, its commands, and what is read from their results."""

    name: str
    shows: str
    commands: list[Command]
    configs: dict[Path, str] = field(default_factory=dict)
    result: Callable[[str], str] = lambda output: 'done'
    gpu_only: bool = False
    least_gpus: int = 1
    detects: bool = False


class Plan:
    """The steps for a device.

    Args:
        device (str): ``'cuda'`` or ``'cpu'``.
        ranks (int): Processes of a training.
        work (Path): Folder for data, configs and trainings.
    """

    def __init__(self, device: str, ranks: int, work: Path) -> None:
        self.device, self.ranks, self.work = device, ranks, work
        large = device == 'cuda'
        self.iterations, self.batch = (300, 64) if large else (6, 8)
        self.every = self.iterations // 3

    def steps(self) -> list[Step]:
        classify = 'configs/digits/halvit_2xb64_digits.py'
        detect = 'configs/digits/mask-rcnn_halvit_digits-coco.py'
        amp = "optim_wrapper = dict(type='AmpOptimWrapper', dtype={dtype!r}{more})\n"
        fp16, bf16 = (amp.format(dtype=f'{kind}float16', more='{more}') for kind in ('', 'b'))
        scale = ", loss_scale='dynamic'"
        # Positions of 16 pixels for images of 32: the embedding is resized in every step.
        exact = 'model = dict(backbone=dict(img_size=16))\nrandomness = dict(seed=0, deterministic=True)\n'
        compiled = 'compile = True\n' if self.device == 'cuda' else "compile = dict(backend='eager')\n"
        fused = 'optim_wrapper = dict(optimizer=dict(fused=True))\n'
        return [
            self._data(),
            self._training('fp32', 'classification in fp32 on all cards', classify),
            self._training('fp16', 'mixed precision, fp16', classify, fp16.format(more=scale), gpu_only=True),
            self._training('bf16', 'mixed precision, bf16', classify, bf16.format(more=''), gpu_only=True),
            self._training('fused', 'a fused AdamW', classify, fused),
            self._training(
                'fp16-fused',
                'a fused AdamW under fp16, whose overflows are left to the scaler',
                classify,
                fp16.format(more=f'{scale}, optimizer=dict(fused=True)'),
                gpu_only=True,
            ),
            self._training('compile', 'torch.compile of the training step', classify, compiled),
            self._training(
                'sync-bn',
                'ResNet50-PE with batch norms of all ranks',
                'configs/digits/resnet50-pe_2xb64_digits.py',
                "sync_bn = 'torch'\n",
                gpu_only=True,
            ),
            self._resume(classify, exact),
            self._part(
                'waits', 'our hooks add no wait for the device and no exchange between ranks', 'waits', classify
            ),
            self._part('slurm', 'tasks that see one GPU each, as with --gpus-per-task=1 of Slurm', 'slurm', classify),
            self._part('fsdp', 'FSDP2 over each layer of a HaLViT with windows', 'fsdp'),
            self._part('graphs', "a CUDA graph of HaLViT-Tiny's forward pass", 'graphs', gpu_only=True),
            self._training('detect', 'Mask R-CNN in fp32 on all cards', detect, detects=True),
            self._training(
                'detect-fp16',
                'Mask R-CNN under fp16',
                detect,
                fp16.format(more=scale),
                detects=True,
                gpu_only=True,
            ),
            self._benchmark(),
            self._profile(),
        ]

    def _data(self) -> Step:
        canvases = [] if self.device == 'cuda' else ['--train', '16', '--val', '4']
        return Step(
            'data',
            'the digits, and the digits on canvases',
            [
                self._python('tools/prepare_digits.py', '--root', self.work / 'data/digits'),
                self._python('tools/prepare_digits_coco.py', '--root', self.work / 'data/digits_coco', *canvases),
            ],
        )

    def _training(self, name: str, shows: str, base: str, more: str = '', **options) -> Step:
        config, text = self._config(name, base, more)
        return Step(name, shows, [self._train(config)], {config: text}, lambda _: self._read(name), **options)

    def _resume(self, base: str, more: str) -> Step:
        whole, cut = (self._config(name, base, more) for name in ('whole', 'cut'))
        checkpoint = self.work / f'cut/iter_{self.every}.pth'
        commands = [
            self._train(whole[0]),
            Command(self._train(cut[0]).words, killed_at=checkpoint),
            self._train(cut[0], '--resume'),
        ]
        shows = 'deterministic mode with a resized embedding; a kill, and a resumed run that ends bit for bit alike'
        return Step('resume', shows, commands, dict([whole, cut]), lambda _: self._compare())

    def _part(self, name: str, shows: str, part: str, base: str | None = None, gpu_only: bool = False) -> Step:
        configs, words = {}, [part, '--device', self.device]
        if base:
            config, text = self._config(name, base)
            configs[config] = text
            words += ['--config', config]
        if part == 'slurm':
            words += ['--ranks', self.ranks]
        launcher = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={self.ranks}']
        launcher = launcher if part in ('fsdp', 'waits') else []
        least = 2 if part == 'slurm' else 1
        return Step(name, shows, [self._python(*launcher, PARTS, *words)], configs, _last_result, gpu_only, least)

    def _subjects(self) -> tuple[list, dict[Path, str]]:
        """DeiT-S and HaLViT-Tiny, plain and with ``with_cp='ffn'``; an untied HaLViT is DeiT-S."""
        if self.device == 'cpu':
            return ['configs/digits/halvit_2xb64_digits.py'], {}
        ours = 'configs/halvit/halvit-tiny_8xb128_in1k.py'
        configs = {}
        for name, options in (('deit-small-ffn', "tie='none', with_cp='ffn'"), ('halvit-tiny-ffn', "with_cp='ffn'")):
            text = f'_base_ = {str(ROOT / ours)!r}\nmodel = dict(backbone=dict({options}))\n'
            configs[self.work / f'{name}.py'] = text
        deit, halvit = configs
        return [DEIT, deit, ours, halvit], configs

    def _benchmark(self) -> Step:
        subjects, configs = self._subjects()
        options = ['--batch', *self._batches(), '--precision', 'fp32', 'amp-bf16', 'amp-fp16', '--rounds', '20']
        if self.device == 'cpu':
            options = ['--batch', '2', '--shape', '32', '--rounds', '2', '--no-memory']
        out = self.work / 'benchmark'
        command = self._python('tools/benchmark.py', *subjects, '--device', self.device, *options, '--out', out)
        shows = "throughput and peak memory of DeiT-S and HaLViT-Tiny, with and without with_cp='ffn'"
        return Step('benchmark', shows, [command], configs, lambda _: 'below')

    def _batches(self) -> list[str]:
        """Batches that a training of DeiT-S in fp32 has room for."""
        room = torch.cuda.mem_get_info()[1] if torch.cuda.is_available() else math.inf
        return [str(batch) for batch in (1, 32, 128, 512) if batch * 0.12e9 < room]

    def _profile(self) -> Step:
        subjects, configs = self._subjects()
        options = ['--batch', '32'] if self.device == 'cuda' else ['--batch', '2', '--shape', '32', '--rounds', '2']
        command = self._python('tools/benchmark.py', *subjects, '--device', self.device, *options, '--profile')
        return Step('profile', 'where the time goes; each kernel is counted once', [command], configs, _tables)

    def _python(self, *words) -> Command:
        return Command(['python', *words])

    def _train(self, config: Path, *words: str) -> Command:
        return Command(['tools/dist_train.sh', config, self.ranks, *words])

    def _config(self, name: str, base: str, more: str = '') -> tuple[Path, str]:
        coco = 'coco' in base
        values = dict(iterations=self.iterations, every=self.every, log=max(1, self.iterations // 30))
        text = TRAINING.format(
            base=str(ROOT / base),
            batch=4 if coco else self.batch,
            root=str(self.work / 'data' / ('digits_coco' if coco else 'digits')),
            work_dir=str(self.work / name),
            **values,
        )
        if coco:
            text += f"val_evaluator = dict(ann_file='{self.work}/data/digits_coco/annotations/instances_val.json')\n"
            text += 'test_evaluator = val_evaluator\n'
        return self.work / f'{name}.py', text + more

    def _read(self, name: str) -> str:
        """The first and the last loss of a training, its score and its memory."""
        log = max((self.work / name).glob('*/vis_data/scalars.json'))
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        losses = [line['loss'] for line in lines if 'loss' in line]
        if not losses or not all(map(math.isfinite, losses)):
            raise UserError(f'{name}: the losses are not finite: {losses}')
        if self.device == 'cuda' and not losses[-1] < losses[0]:
            raise UserError(f'{name}: the loss has not fallen: {losses[0]:.3f} to {losses[-1]:.3f}')
        scores = {'accuracy/top1': 'top-1', 'coco/bbox_mAP': 'box AP', 'coco/segm_mAP': 'mask AP'}
        found = [f'{word} {line[key]:.4g}' for line in lines for key, word in scores.items() if key in line]
        memory = [line['memory'] for line in lines if 'memory' in line]
        found += [f'{max(memory):,} MB'] if memory else []
        return ', '.join([f'loss {losses[0]:.3f} to {losses[-1]:.3f}', *found])

    def _compare(self) -> str:
        whole, cut = (
            load_file(self.work / f'{name}/iter_{self.iterations}.pth')['state_dict'] for name in ('whole', 'cut')
        )
        if differing := [name for name in whole if not torch.equal(whole[name], cut[name])]:
            raise UserError(f'the resumed run differs in {len(differing)} of {len(whole)} tensors: {differing[:3]}')
        return f'{len(whole)} tensors, bit for bit the same'


def _last_result(output: str) -> str:
    return [line for line in output.splitlines() if line.startswith('result: ')][-1].removeprefix('result: ')


def _tables(output: str) -> str:
    return '\n'.join(line for line in output.splitlines() if line.startswith('|')) or 'no table'


def run_step(step: Step, environment: dict[str, str]) -> str:
    """Write a step's configs, run its commands, and read its result.

    Raises:
        UserError: If a command fails, or if its result is not what it should be.
    """
    for path, text in step.configs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output = ''
    for command in step.commands:
        words = [str(word) for word in command.words]
        words = [sys.executable, *words[1:]] if words[0] == 'python' else words
        process = subprocess.Popen(
            words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if command.killed_at is not None:
            _kill_at(process, command.killed_at)
            continue
        output, _ = process.communicate()
        if process.returncode:
            lines = [line for line in output.splitlines() if line.strip()]
            raise UserError(f'{command} ended with {process.returncode}: ' + ' / '.join(lines[-3:])[-600:])
    return step.result(output)


def _kill_at(process: subprocess.Popen, file: Path) -> None:
    """Kill all processes of a training once a file is there, as a machine does that goes down."""
    while not file.exists() and process.poll() is None:
        time.sleep(0.05)
    main = psutil.Process(process.pid)
    for member in [main, *main.children(recursive=True)]:
        member.kill()
    process.communicate()


def reason_to_leave_out(step: Step, device: str, ranks: int) -> str | None:
    if step.gpu_only and device == 'cpu':
        return 'exists on a GPU only'
    if device == 'cuda' and ranks < step.least_gpus:
        return f'needs {step.least_gpus} GPUs'
    if step.detects and device == 'cuda' and lack_cuda():
        return f"mmcv's operators are compiled for the CPU only: {how_to_get_cuda()}"
    return None


def write_page(path: Path, title: str, rows: list[list[str]], tables: Sequence[str]) -> None:
    """Replace what stands between the marks of a page."""
    text = path.read_text() if path.exists() else f'# GPUs\n\n{BEGIN}\n{END}\n'
    before, _, rest = text.partition(BEGIN)
    body = '\n\n'.join([title, markdown_table(['step', 'what it shows', 'result', 'seconds'], rows), *tables])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{before}{BEGIN}\n\n{body}\n\n{END}{rest.partition(END)[2]}')


def describe(steps: Sequence[Step]) -> None:
    for step in steps:
        print(f'{step.name}: {step.shows}')
        for command in step.commands:
            print(f'    {command}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', choices=['cuda', 'cpu'], help='(default: cuda if there is a GPU)')
    parser.add_argument('--ranks', type=int, help='processes of a training (default: the GPUs, or 2)')
    parser.add_argument('--only', nargs='+', metavar='STEP', help='these steps; data is made where it is missing')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/gpu_check', help='(default: %(default)s)')
    parser.add_argument('--out', type=Path, help='the page (default: docs/gpu.md, or gpu.md in the work dir)')
    args = parser.parse_args()
    with errors_in_one_line():
        gpus = torch.cuda.device_count()
        if args.device == 'cuda' and not gpus:
            raise UserError('--device cuda is not a device of this machine; expected cpu')
        device = args.device or 'cuda'
        ranks = args.ranks or (gpus if device == 'cuda' and gpus else 2)
        work = args.work_dir.resolve()
        steps = Plan(device, ranks, work).steps()
        if unknown := {*(args.only or ())} - {step.name for step in steps}:
            raise UserError(f'--only {min(unknown)} is not a step; expected {", ".join(step.name for step in steps)}')
        if args.only:
            needed = {*args.only} | (set() if (work / 'data').is_dir() else {'data'})
            steps = [step for step in steps if step.name in needed]
        if args.device is None and not gpus:
            describe(steps)
            print('Nothing was run: this machine shows no GPU. --device cpu runs the steps that exist without one.')
            return
        page = args.out or (ROOT / 'docs/gpu.md' if device == 'cuda' else work / 'gpu.md')
        failed = run_steps(steps, device, ranks, work, page)
        print(f'{page}: {len(failed)} of {len(steps)} steps failed{": " + ", ".join(failed) if failed else ""}')
        sys.exit(1 if failed else 0)


def run_steps(steps: Sequence[Step], device: str, ranks: int, work: Path, page: Path) -> list[str]:
    """Run steps, write the page after each, and return the names of those that failed."""
    environment = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    environment['PYTHONPATH'] = f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}'
    if device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    name = torch.cuda.get_device_name() if device == 'cuda' else 'CPU'
    versions = (
        f'torch {torch.__version__}, CUDA {torch.version.cuda}' if device == 'cuda' else f'torch {torch.__version__}'
    )
    title = f'{ranks} x {name}, {versions}, {date.today():%Y-%m-%d}.'
    rows, tables, failed = [], [], []
    for step in steps:
        print(f'{step.name}: {step.shows} ...', flush=True)
        start = time.perf_counter()
        result = reason_to_leave_out(step, device, ranks)
        if result is not None:
            result = f'left out: {result}'
        else:
            try:
                result = run_step(step, environment)
            except Exception as error:
                failed.append(step.name)
                result = f'**failed**: {" ".join(str(error).split())}'
        if result.startswith('|'):
            tables, result = [*tables, result], 'below'
        if step.name == 'benchmark' and (measured := work / 'benchmark/results.md').exists():
            tables.append(measured.read_text().strip())
        print(f'    {result}', flush=True)
        rows.append([step.name, step.shows, result.replace('|', '/'), f'{time.perf_counter() - start:.0f}'])
        write_page(page, title, rows, tables)
    return failed


if __name__ == '__main__':
    main()
