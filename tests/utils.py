"""What several tests need: the untied counterpart of a tied model, and processes."""

import multiprocessing
import os
import re
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor
from torch import distributed as dist

ROOT = Path(__file__).resolve().parents[1]

# Small, with widths that are all different, so that a transposition in the wrong place has the wrong shape.
TINY_ARCH = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=40)

# The beginning of a program in whose process the packages of OpenMMLab are not installed.
WITHOUT_OPENMMLAB = """
import sys

class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] in ('mmcv', 'mmengine', 'mmpretrain', 'mmdet'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent)
"""


def untie_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write W and W^T of a tied model out as the separate matrices of mmpretrain's plain ViT."""
    plain = {}
    for name, value in state.items():
        stem, _, leaf = name.rpartition('.')
        if leaf == 'q_weight':
            w_kv = state[f'{stem}.kv_weight']
            plain[f'{stem}.qkv.weight'] = torch.cat([value, w_kv, w_kv.T])
            plain[f'{stem}.proj.weight'] = value.T.contiguous()
        elif leaf == 'qkv_bias':
            plain[f'{stem}.qkv.bias'] = value
        elif leaf == 'proj_bias':
            plain[f'{stem}.proj.bias'] = value
        elif stem.endswith('ffn') and leaf == 'weight':
            plain[f'{stem}.layers.0.0.weight'] = value
            plain[f'{stem}.layers.1.weight'] = value.T.contiguous()
        elif leaf == 'hidden_bias':
            plain[f'{stem}.layers.0.0.bias'] = value
        elif leaf == 'out_bias':
            plain[f'{stem}.layers.1.bias'] = value
        elif leaf != 'kv_weight':
            plain[name] = value
    return {name: value.detach().clone() for name, value in plain.items()}


def tie_gradients(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum the gradients of a plain ViT's matrices as a tied model must: dW = dW_in + dW_out^T."""
    tied = {}
    for name, grad in grads.items():
        if name.endswith('attn.qkv.weight'):
            stem = name.removesuffix('qkv.weight')
            d_q, d_k, d_v = grad.chunk(3)
            tied[f'{stem}q_weight'] = d_q + grads[f'{stem}proj.weight'].T
            tied[f'{stem}kv_weight'] = d_k + d_v.T
        elif name.endswith('ffn.layers.0.0.weight'):
            stem = name.removesuffix('layers.0.0.weight')
            tied[f'{stem}weight'] = grad + grads[f'{stem}layers.1.weight'].T
        elif not name.endswith(('attn.proj.weight', 'ffn.layers.1.weight')):
            renamed = re.sub(r'attn\.(qkv|proj)\.bias', r'attn.\1_bias', name)
            renamed = renamed.replace('ffn.layers.0.0.bias', 'ffn.hidden_bias')
            tied[renamed.replace('ffn.layers.1.bias', 'ffn.out_bias')] = grad
    return tied


def from_config(path, tied: bool = True) -> torch.nn.Module:
    """A model of a config of configs/tied, or its untied counterpart."""
    cfg = Config.fromfile(path)
    model = cfg.model
    part = model if 'of' in model else model.backbone
    if not tied:
        part.type = part.pop('of')
        part.pop('tie', None)
    if 'swin' in path.stem:
        model.backbone.pad_small_map = True
    # No weights from the network
    if cfg.default_scope == 'mmdet':
        model.backbone.init_cfg = None
    preprocessor = cfg.get('data_preprocessor') or model.get('data_preprocessor')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build({**model, 'data_preprocessor': preprocessor})


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_gradients(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], tolerance: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        error = (grad - theirs[name]).abs().max().item()
        assert error <= tolerance, f'{name}: {error}'


def assert_identical(a, b, place: str = '') -> None:
    """Two contents of checkpoints are the same, bit for bit."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, Mapping):
        assert a.keys() == b.keys(), place
        for key, value in a.items():
            assert_identical(value, b[key], f'{place}/{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b)):
            assert_identical(x, y, f'{place}/{i}')
    else:
        assert a == b, place


def groups_of(cfg: Config, model: torch.nn.Module) -> dict[str, dict]:
    """The optimizer's group of each parameter."""
    # Mixed precision needs a GPU; the optimizer is the same.
    wrapper_cfg = {key: value for key, value in cfg.optim_wrapper.items() if key != 'loss_scale'}
    wrapper = build_optim_wrapper(model, {**wrapper_cfg, 'type': 'OptimWrapper'})
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in wrapper.optimizer.param_groups for p in group['params']}


def count_reads(runner) -> list[int]:
    """Note which images the training of a runner reads from here on."""
    dataset = runner.train_dataloader.dataset.dataset.dataset
    read, prepare = [], dataset.prepare_data

    def noted(index):
        read.append(index)
        return prepare(index)

    dataset.prepare_data = noted
    return read


def put_between_marks(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` in a document."""
    before, mark, rest = path.read_text().partition(f'<!-- {name} -->\n')
    _, end, after = rest.partition(f'<!-- end of {name} -->')
    assert mark, f'{path} has no mark {name}'
    assert end, f'{path} has no end of {name}'
    path.write_text(f'{before}{mark}\n{text}\n\n{end}{after}')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('', 0))
        return probe.getsockname()[1]


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that runs this checkout."""
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return {**os.environ, 'PATH': path, 'PORT': str(free_port()), **variables}


def kill_tree(process: subprocess.Popen) -> None:
    """End a process and all that it has started, as a machine does that goes down.

    torchrun's ranks have sessions of their own.
    """
    main = psutil.Process(process.pid)
    for member in [main, *main.children(recursive=True)]:
        member.kill()
    process.wait()


def run(*command: str | Path, cwd: Path = ROOT, timeout: float = 300, check: bool = True, **variables: str):
    """Run a process to its end; where it outlasts the time limit, end all that it has started."""
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            kill_tree(process)
    if check:
        assert process.returncode == 0, output
    return subprocess.CompletedProcess(command, process.returncode, output)


# A rank's number, its number on the machine, and how many ranks there are
_RANK_VARIABLES = dict(
    pytorch=('RANK', 'LOCAL_RANK', 'WORLD_SIZE'), slurm=('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS')
)


def run_tool(
    tool: str | Path,
    *arguments: str | Path,
    cwd: Path = ROOT,
    ranks: int | None = None,
    launcher: str = 'pytorch',
    timeout: float = 300,
    check: bool = True,
    **variables: str,
):
    """Run a Python tool as :func:`run` does, in processes that have imported upstream already.

    To import it takes longer than most of what is tested. With ``ranks`` there are as many processes, which find
    what torchrun, or Slurm with ``launcher='slurm'``, would tell them.
    """
    rank_variables = [{}]
    if ranks:
        number, place, size = _RANK_VARIABLES[launcher]
        common = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(free_port()), size: str(ranks)}
        rank_variables = [{**common, number: str(rank), place: str(rank)} for rank in range(ranks)]
    words = [str(word) for word in (ROOT / tool, *arguments)]
    codes, output = _fork(
        _as_a_tool, [(words, str(cwd), {**environment(**variables), **v}) for v in rank_variables], timeout
    )
    if check:
        assert not any(codes), output
    return subprocess.CompletedProcess(words, next((code for code in codes if code), 0), output)


def on_ranks(function: Callable, *args, ranks: int = 2, timeout: float = 200) -> None:
    """Call ``function(*args, rank)`` on ranks that are joined over gloo, each a process that has done nothing else."""
    port = free_port()
    codes, output = _fork(_as_a_rank, [(function, args, rank, ranks, port) for rank in range(ranks)], timeout)
    assert not any(codes), output


# What a tool imports at once, and what it imports when it builds its data, writes its config down or asks for compilers
_IMPORTED = ['halvit_mm.train', 'halvit_mm.cost', 'halvit_mm.launch.checks', 'mmpretrain.apis', 'mmdet.apis']
_IMPORTED += ['mmpretrain.datasets', 'mmpretrain.visualization', 'yapf.yapflib.yapf_api', 'distutils.ccompiler']


def _fork(function: Callable, calls: Sequence[tuple], timeout: float) -> tuple[list[int], str]:
    """Call a function in as many processes as there are calls; their exit codes and what they have written."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(_IMPORTED)
    with tempfile.NamedTemporaryFile('r', errors='replace') as log:
        processes = [context.Process(target=_call, args=(log.name, function, call)) for call in calls]
        for process in processes:
            process.start()
        end = time.monotonic() + timeout
        for process in processes:
            process.join(max(0, end - time.monotonic()))
        late = [process for process in processes if process.is_alive()]
        for process in late:
            process.kill()
            process.join()
        output = log.read()
        assert not late, f'{len(late)} processes took longer than {timeout} s\n{output}'
    return [process.exitcode for process in processes], output


def _call(log: str, function: Callable, args: tuple) -> None:
    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    function(*args)


def _as_a_tool(words: list[str], cwd: str, variables: Mapping[str, str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = words
    runpy.run_path(words[0], run_name='__main__')


def _as_a_rank(function: Callable, args: tuple, rank: int, ranks: int, port: int) -> None:
    dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=ranks)
    function(*args, rank)
    dist.barrier()
    dist.destroy_process_group()
