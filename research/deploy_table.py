"""Size on disk, memory and time of exported files, side by side."""

import gc
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from halvit_mm.cost import input_channels
from halvit_mm.cost.benchmark import in_fresh_process
from halvit_mm.cost.measure import time_interleaved
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.deploy.formats import FORMATS, read, write
from halvit_mm.deploy.network import Network
from halvit_mm.deploy.session import create_session
from halvit_mm.deploy.verify import compare

# Format, precision, whether an ONNX graph's weights have their own file, how it is opened: what create_session prefers,
# or a property of OpenVINO
KINDS = (
    ('.onnx', 'fp32', True, 'memory'),
    ('.onnx', 'fp32', False, 'memory'),
    ('.onnx', 'fp32', True, 'time'),
    ('.onnx', 'fp16', True, 'memory'),
    ('.onnx', 'int8', True, 'memory'),
    ('.onnx', 'int8', True, 'time'),
    ('.pt2', 'fp32', False, ''),
    ('.pt', 'fp32', False, ''),
    ('.xml', 'fp32', False, ''),
    ('.xml', 'fp32', False, 'ENABLE_MMAP=NO'),
    ('.xml', 'fp32', False, 'ENABLE_WEIGHTLESS=YES'),
    ('.xml', 'fp32', False, 'CACHE_MODE=OPTIMIZE_SPEED'),
    ('.xml', 'fp32', False, 'CACHE_MODE=OPTIMIZE_SIZE'),
    ('.xml', 'int8', False, ''),
)
IMAGES = 8


def opener(path: Path, how: str) -> Callable[[torch.Tensor], Any]:
    """A function that runs a file, which is opened as a kind's last entry says."""
    if path.suffix == '.onnx':
        session = create_session(path, how)
        return lambda images: session.run(None, {'images': images.numpy()})
    if not how:
        return read(path)
    import openvino

    name, _, value = how.partition('=')
    properties = dict(INFERENCE_PRECISION_HINT='f32') | {name: value}
    if name == 'CACHE_MODE':  # the first process writes the cache, and later ones read it
        properties['CACHE_DIR'] = path.parent / how
    compiled = openvino.compile_model(path, 'CPU', properties)
    return lambda images: compiled(images.numpy())


def resident_bytes(path: Path, how: str, shape: tuple[int, int, int]) -> int:
    """Bytes resident for an opened file that has run on one image of a shape, beyond those of its imported runtime."""
    images = torch.zeros(1, *shape)
    if path.suffix == '.xml':
        import openvino  # noqa: F401
    gc.collect()
    before = psutil.Process().memory_info().rss
    run = opener(path, how)
    for _ in range(3):
        run(images)
    gc.collect()
    return psutil.Process().memory_info().rss - before


def measure(
    subjects: Sequence[Subject],
    rounds: int,
    say: Callable[[str], None],
    processes: int = 3,
    kinds: Sequence[tuple[str, str, bool, str]] = KINDS,
) -> list[dict[str, Any]]:
    """Export models with random weights in every format, and measure the files, those of one kind in turn.

    Args:
        subjects (Sequence[Subject]): Ratios are to the first.
        rounds (int): Timed runs.
        say (Callable[[str], None]): Receives progress messages.
        processes (int): Processes of which the median of resident memory is taken. Defaults to 3.
        kinds (Sequence[tuple]): Those of ``KINDS`` to measure. Defaults to all.

    Returns:
        list[dict]: For each kind and config ``kind``, ``name``, ``file_bytes``, ``resident_bytes``, ``ms``, ``ratio``
        and ``difference``, or ``error``.
    """
    settings = Settings()
    rows, seed = [], torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        paths, differences, images = {}, {}, {}
        for subject in subjects:
            channels = input_channels(subject.model(settings))
            images[subject.name] = noise = torch.randn(IMAGES, channels, *settings.shape, generator=seed)
            for made_as in dict.fromkeys(kind[:3] for kind in kinds):
                suffix, precision, external = made_as
                say(f'{subject.name}: {FORMATS[suffix]}, {precision}' + (', weights beside it' if external else ''))
                torch.manual_seed(0)
                network = Network(subject.model(settings))
                with torch.no_grad():
                    expected = [network(image[None]) for image in noise]
                path = Path(folder, f'{subject.name}{suffix}-{precision}-{external}', f'model{suffix}')
                path.parent.mkdir()
                key = subject.name, *made_as
                try:
                    write(network, noise[:1].clone(), path, precision, external_data=external, calibration=noise)
                    differences[key] = compare(expected, read(path), noise.split(1), network.task)
                    paths[key] = path
                except Exception as error:
                    differences[key] = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
        names = [subject.name for subject in subjects]
        for *made_as, how in kinds:
            kind = describe(*made_as, how)
            say(f'memory and time: {kind}')
            made = {name: paths[(name, *made_as)] for name in names if (name, *made_as) in paths}
            resident = {
                name: median(
                    in_fresh_process(resident_bytes, path, how, images[name].shape[1:]) for _ in range(processes)
                )
                for name, path in made.items()
            }
            runs = {name: partial(opener(path, how), images[name][:1]) for name, path in made.items()}
            times = {name: median(values) for name, values in time_interleaved(runs, rounds).items()}
            for name in names:
                row = dict(kind=kind, name=name)
                if name in made:
                    difference = differences[(name, *made_as)]
                    row |= dict(
                        file_bytes=sum(file.stat().st_size for file in _files(made[name])),
                        resident_bytes=resident[name],
                        ms=1e3 * times[name],
                        ratio=times[name] / next(iter(times.values())),
                        difference=difference.largest,
                        error_norm=difference.error,
                    )
                else:
                    row['error'] = differences[(name, *made_as)]
                rows.append(row)
    return rows


def describe(suffix: str, precision: str, external: bool, how: str) -> str:
    """The table's name of a kind of file and of how it is opened."""
    words = [FORMATS[suffix], precision]
    if suffix == '.onnx':
        words += ['weights beside it' if external else 'one file', f'for {how}']
    elif how:
        words.append(how)
    return ', '.join(words)


def _files(path: Path) -> list[Path]:
    """A file and the files of its weights."""
    beside = (path.with_name(path.name + '.data'), path.with_suffix('.bin'))
    return [path, *(file for file in beside if file.is_file())]
