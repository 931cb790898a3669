"""Parts of research/gpu_check.py that are programs of their own; each ends with a line ``result: ...``.

example:
  torchrun --nproc-per-node 2 research/gpu_parts.py fsdp --device cpu
"""

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import distributed as dist
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from halvit_mm.models import HaLViT
from halvit_mm.train import ResumableRunner
from halvit_mm.train.hooks import ADDED_HOOKS
from halvit_mm.train.ranks import wrapper_for_cpu

SMALL = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=40)


def fsdp(device: str) -> str:
    """FSDP2 over each layer of a HaLViT with windows; its losses are those of one process with all images."""
    # Not in torch 2.1
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rank, ranks = _join(device)
    arch, side, steps = ('tiny', 224, 20) if device == 'cuda' else (SMALL, 32, 3)

    def build() -> HaLViT:
        torch.manual_seed(0)
        return HaLViT(arch=arch, img_size=side, patch_size=8, window_size=2, global_attn_layers=(1,)).to(device)

    torch.manual_seed(1)
    images = torch.randn(4 * ranks, 3, side, side, device=device)
    alone, sharded = build(), build()
    mesh = init_device_mesh(device, (ranks,))
    for layer in sharded.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    losses = {}
    for name, model, own in (('alone', alone, images), ('sharded', sharded, images.chunk(ranks)[rank])):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        losses[name] = []
        for _ in range(steps):
            loss = model(own)[0].square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = loss.detach().clone()
            if name == 'sharded':
                dist.all_reduce(mean)
                mean /= ranks
            losses[name].append(mean.item())
    torch.testing.assert_close(losses['sharded'], losses['alone'], rtol=1e-3, atol=1e-4)
    return f'{steps} steps on {ranks} ranks, last loss {losses["sharded"][-1]:.4f}, alone {losses["alone"][-1]:.4f}'


def graphs(device: str) -> str:
    """A CUDA graph of HaLViT-Tiny's forward pass gives what the model gives."""
    torch.manual_seed(0)
    model = HaLViT(arch='tiny').to(device).eval()
    kept, other = (torch.randn(1, 3, 224, 224, device=device) for _ in range(2))
    with torch.inference_mode():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model(kept)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            [out] = model(kept)
        kept.copy_(other)
        graph.replay()
        torch.testing.assert_close(out, model(other)[0], rtol=1e-3, atol=1e-4)
        eager, replayed = (_milliseconds(run) for run in (lambda: model(kept), graph.replay))
    return f'equal; one image in {eager:.2f} ms, by the graph in {replayed:.2f} ms'


def waits(device: str, config: Path) -> str:
    """An iteration of our runner waits for the device, and exchanges between ranks, as often as one of mmengine's."""
    _join(device)
    found = {}
    for kind in (Runner, ResumableRunner):
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(
            {
                'launcher': 'pytorch',
                'experiment_name': kind.__name__,
                'work_dir': f'{cfg.work_dir}/{kind.__name__}',
                'train_dataloader.pin_memory': device == 'cuda',
                'default_hooks.checkpoint.interval': 10**6,
            }
        )
        if device == 'cpu':
            cfg.model_wrapper_cfg = wrapper_for_cpu(None)
        if kind is Runner:
            cfg.default_hooks = {name: hook for name, hook in cfg.default_hooks.items() if name not in ADDED_HOOKS}
            cfg.default_hooks['checkpoint'] = dict(type='CheckpointHook', by_epoch=False, interval=10**6)
        found[kind.__name__] = _count(kind.from_cfg(cfg), device)
    plain, ours = found['Runner'], found['ResumableRunner']
    assert plain, 'the profile has no exchange and no wait'
    assert all(ours[name] <= plain.get(name, 0) for name in ours), f'mmengine: {plain}; ours: {ours}'
    return f'each iteration under mmengine {json.dumps(plain)}, with our hooks {json.dumps(ours)}'


def slurm(device: str, config: Path, ranks: int) -> str:
    """Ranks as Slurm starts them with --gpus-per-task=1: each sees one GPU, number 0."""
    tool = Path(__file__).parents[1] / 'tools/train.py'
    common = dict(SLURM_NTASKS=str(ranks), SLURM_JOB_ID=str(os.getpid()), MASTER_ADDR='127.0.0.1')
    cards = (os.environ.get('CUDA_VISIBLE_DEVICES') or ','.join(map(str, range(ranks)))).split(',')
    processes = []
    for rank in range(ranks):
        variables = {**common, 'SLURM_PROCID': str(rank), 'SLURM_LOCALID': str(rank)}
        variables['CUDA_VISIBLE_DEVICES'] = cards[rank] if device == 'cuda' else ''
        command = [sys.executable, str(tool), str(config), '--launcher', 'slurm']
        processes.append(subprocess.Popen(command, env={**os.environ, **variables}))
    codes = [process.wait() for process in processes]
    assert not any(codes), f'exit codes {codes}'
    return f'{ranks} tasks with one GPU each trained together' if device == 'cuda' else f'{ranks} tasks without GPUs'


def _join(device: str) -> tuple[int, int]:
    if device == 'cuda':
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    dist.init_process_group('nccl' if device == 'cuda' else 'gloo')
    return dist.get_rank(), dist.get_world_size()


def _milliseconds(run, rounds: int = 50) -> float:
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 1e3 * median(times)


def _count(runner: Runner, device: str, begin: int = 2, iterations: int = 3) -> dict[str, float]:
    """What each of some iterations waits for, by a profile; the training has more iterations."""
    loop, number = runner.train_loop, itertools.count()
    run_iter = loop.run_iter
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == 'cuda' else [])]
    profiler = profile(activities=activities)

    def counted(*args):
        i = next(number)
        if i == begin:
            profiler.start()
        run_iter(*args)
        if i == begin + iterations - 1:
            profiler.stop()

    loop.run_iter = counted
    runner.train()
    kinds = ('nccl:', 'gloo:', 'cudaStreamSynchronize', 'cudaDeviceSynchronize', 'cudaEventSynchronize')
    counts = {}
    for event in profiler.key_averages():
        # Calls are events of the CPU, and copies are events of the GPU, which has each exchange as an event once more.
        kind = 'Memcpy DtoH' if event.device_type == DeviceType.CUDA else kinds
        if event.key.startswith(kind):
            counts[event.key] = counts.get(event.key, 0) + event.count / iterations
    return dict(sorted(counts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=['fsdp', 'graphs', 'waits', 'slurm'])
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda', help='(default: cuda)')
    parser.add_argument('--config', type=Path, help='of the training, for waits and slurm')
    parser.add_argument('--ranks', type=int, default=1, help='for slurm (default: 1)')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    options = dict(waits=[args.config], slurm=[args.config, args.ranks]).get(args.part, [])
    result = globals()[args.part](args.device, *options)
    if os.environ.get('RANK', '0') == '0':
        print(f'result: {result}', flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == '__main__':
    main()
