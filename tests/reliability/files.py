"""Checkpoints that carry code or are damaged, and images of every kind, with what is to become of each."""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from PIL import Image
from safetensors.torch import save as to_safetensors

# What code in a file would make in the folder where it is loaded
MARK = 'executed'

REFUSED, DAMAGED, LOADED = 'refused: it carries code', 'refused: it cannot be read', 'loaded'


class Call:
    """Pickled, a call of a function."""

    def __init__(self, function, *args) -> None:
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


MKDIR = Call(os.mkdir, MARK)
EVAL = Call(eval, f"__import__('os').mkdir({MARK!r})")


def state(**others) -> dict:
    """What mmengine writes, in small."""
    return dict(
        meta=dict(epoch=1, iter=5, seed=0),
        state_dict=dict(weight=torch.arange(64.0), bias=torch.zeros(3)),
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1])), runtime_info={}, resumed_keys={}),
        **others,
    )


def saved(content, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def old_format(pickled: bytes) -> bytes:
    """A pickle inside torch's first format: magic number, protocol, system, the object, no storages."""
    head = (0x1950A86A20F9469CFC6C, 1001, dict(protocol_version=1001, little_endian=True, type_sizes={}))
    return b''.join(pickle.dumps(part, protocol=2) for part in head) + pickled + pickle.dumps([], protocol=2)


def reach_by_getattr() -> bytes:
    """A pickle that mmengine 0.10.12's own list of types lets go from a ``getattr`` to NumPy's whole namespace.

    The names in the module of ``HistoryBuffer`` become attributes of a ``HistoryBuffer``, and one of them is NumPy.
    """

    def attribute(name: str) -> bytes:
        return b'X' + struct.pack('<I', len(name)) + name.encode() + b'\x86R'

    getattr_, buffer = b'cbuiltins\ngetattr\n', b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
    names = 2 * getattr_ + buffer + attribute('__init__') + attribute('__globals__')
    return (
        b'\x80\x02' + 2 * getattr_ + buffer + b')\x81' + names + b'b' + attribute('np') + attribute('__dict__') + b'.'
    )


def changed(content: bytes, place: int, value: bytes) -> bytes:
    return content[:place] + value + content[place + len(value) :]


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def packed(pack, *files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with pack(buffer) as archive:
        for name, content in files:
            if isinstance(archive, tarfile.TarFile):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                archive.writestr(name, content)
    return buffer.getvalue()


def checkpoints() -> Iterator[tuple[str, str, bytes, str]]:
    """Hostile and damaged checkpoints.

    Yields:
        tuple: What it is, the name of its file, its content, and what is to become of it.
    """
    whole = saved(state())
    history = HistoryBuffer([1.0], [1])
    history._statistics_methods = dict(mean=MKDIR)
    objects = np.array([None], dtype=object)
    objects[0] = MKDIR
    yield 'a call of os.mkdir among the weights', 'a.pth', saved(state(extra=MKDIR)), REFUSED
    yield 'the same in the format of torch 1.5', 'a.pth', saved(state(extra=MKDIR), zipped=False), REFUSED
    yield 'a call of eval', 'a.pth', saved(state(extra=EVAL)), REFUSED
    yield 'a call of exec', 'a.pth', saved(state(extra=Call(exec, EVAL.args[0]))), REFUSED
    yield 'a call of os.system', 'a.pth', saved(state(extra=Call(os.system, f'mkdir {MARK}'))), REFUSED
    yield 'a call in place of all', 'a.pth', saved(MKDIR), REFUSED
    yield 'a call as the name of a weight', 'a.pth', saved(dict(state_dict={Call(str, EVAL): 1})), REFUSED
    yield 'a call in an array of objects', 'a.pth', saved(state(extra=objects)), REFUSED
    yield 'a call as a statistic of the log', 'a.pth', saved(state(extra=history)), REFUSED
    yield 'a bare pickle with a call', 'a.pth', pickle.dumps(state(extra=MKDIR), protocol=2), REFUSED
    yield 'a bare pickle of protocol 5 with a call', 'a.pth', pickle.dumps(MKDIR, protocol=5), DAMAGED
    yield "a call by Python 2's name", 'a.pth', old_format(b"c__builtin__\neval\n(S'1'\ntR."), REFUSED
    yield 'a class of an unknown module', 'a.pth', old_format(b'cunknown_module\nClass\n)\x81.'), REFUSED
    yield 'attributes up to a whole module', 'a.pth', old_format(reach_by_getattr()), REFUSED
    yield 'a program of TorchScript', 'a.pth', torchscript(), REFUSED
    yield "a config's text that mmengine would run", 'a.pth', saved(dict(meta=dict(config=EVAL.args[0]))), LOADED
    tar = packed(
        lambda file: tarfile.TarFile(fileobj=file, mode='w'), ('pickle', pickle.dumps(MKDIR)), ('storages', b'')
    )
    yield 'a call in a tar file of torch 0.1', 'a.pth', tar, DAMAGED
    yield 'more memory than there is', 'a.pth', old_format(b'cbuiltins\nbytearray\n(I%d\ntR.' % 10**15), DAMAGED
    yield 'a million lists in one another', 'a.pth', old_format(b']' * 10**6 + b'a' * (10**6 - 1) + b'.'), DAMAGED
    yield 'a tensor larger than its data', 'a.pth', saved_beyond(), DAMAGED
    yield 'an empty file', 'a.pth', b'', DAMAGED
    yield 'cut in the middle', 'a.pth', whole[: len(whole) // 2], DAMAGED
    yield 'cut by a byte', 'a.pth', whole[:-1], DAMAGED
    yield 'zeros of the same length', 'a.pth', bytes(len(whole)), DAMAGED
    yield 'other bytes in its pickle', 'a.pth', changed(whole, whole.index(b'data.pkl') + 200, b'\xff' * 8), DAMAGED
    yield 'other bytes in its table of contents', 'a.pth', changed(whole, len(whole) - 60, b'\xff' * 8), DAMAGED
    yield 'a text', 'a.pth', b'version https://git-lfs.github.com/spec/v1\n', DAMAGED
    yield 'a picture', 'a.pth', encoded('PNG', 'RGB'), DAMAGED
    yield 'a zip file of something else', 'a.pth', packed(lambda f: zipfile.ZipFile(f, 'w'), ('a.txt', b'1')), DAMAGED
    yield 'a list of tensors', 'a.pth', saved([torch.zeros(2)]), DAMAGED
    tensors = to_safetensors(dict(weight=torch.arange(64.0)))
    yield 'safetensors, cut', 'a.safetensors', tensors[:-9], DAMAGED
    yield 'safetensors that name 8 EiB', 'a.safetensors', b'\xff' * 7 + b'\x7f' + tensors[8:], DAMAGED
    yield 'a whole one', 'a.pth', whole, LOADED
    yield 'whole safetensors', 'a.safetensors', tensors, LOADED


def saved_beyond() -> bytes:
    """A tensor that says that it has 6,400 numbers, over a storage of 64."""
    whole = saved(dict(weight=torch.arange(64.0)))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = [(info.filename, archive.read(info)) for info in archive.infolist()]
    # K\x40 is the number 64, in the storage's length first and in the shape then
    parts = [
        (name, (b'M\x00\x19'.join(data.rsplit(b'K@', 1)) if name.endswith('data.pkl') else data))
        for name, data in parts
    ]
    return packed(lambda file: zipfile.ZipFile(file, 'w'), *parts)


def picture(mode: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    width, height = size
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)
    if mode == 'I;16':
        return Image.fromarray((ramp * 200).astype(np.uint16))
    if mode == 'F':
        return Image.fromarray(ramp.astype(np.float32))
    rgb = np.stack([ramp, ramp // 2, 255 - ramp % 256], axis=-1).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def encoded(kind: str, mode: str, size: tuple[int, int] = (40, 30), **options) -> bytes:
    buffer = io.BytesIO()
    picture(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def images(large: bool = True) -> Iterator[tuple[str, str, bytes, tuple[int, int] | str]]:
    """Damaged and unusual images.

    Args:
        large (bool): With the one of 20,000 x 20,000 pixels, which takes 1.2 GB to read. Defaults to True.

    Yields:
        tuple: What it is, the name of its file, its content, and what is to become of it: height and width of what is
            read, or words of the error.
    """
    jpeg, png, hw = encoded('JPEG', 'RGB'), encoded('PNG', 'RGB'), (30, 40)
    rotated = Image.Exif()
    rotated[0x0112] = 6  # turn by 90 degrees
    yield 'JPEG, grey', 'a.jpg', encoded('JPEG', 'L'), hw
    yield 'JPEG, CMYK', 'a.jpg', encoded('JPEG', 'CMYK'), hw
    yield 'JPEG, progressive', 'a.jpg', encoded('JPEG', 'RGB', progressive=True), hw
    yield 'JPEG with an EXIF rotation', 'a.jpg', encoded('JPEG', 'RGB', exif=rotated), (40, 30)
    yield 'JPEG of 1 x 1', 'a.jpg', encoded('JPEG', 'RGB', (1, 1)), (1, 1)
    yield 'JPEG of 1 x 5,000', 'a.jpg', encoded('JPEG', 'RGB', (5000, 1)), (1, 5000)
    yield 'JPEG with bytes after its end', 'a.jpg', jpeg + b'trailer' * 9, hw
    yield 'JPEG under the name of a PNG', 'a.png', jpeg, hw
    yield 'JPEG, bytes changed within', 'a.jpg', changed(jpeg, len(jpeg) // 2, b'\x55' * 8), hw
    yield 'JPEG, empty', 'a.jpg', b'', 'is empty'
    yield 'JPEG, cut in the middle', 'a.jpg', jpeg[: len(jpeg) // 2], 'is cut'
    yield 'JPEG, cut by a byte', 'a.jpg', jpeg[:-1], 'is cut'
    yield 'JPEG, its first three bytes', 'a.jpg', jpeg[:3], 'is cut'
    yield 'JPEG, zeros after the head', 'a.jpg', jpeg[:20] + bytes(len(jpeg) - 22) + jpeg[-2:], 'is not an image'
    yield 'PNG, grey', 'a.png', encoded('PNG', 'L'), hw
    yield 'PNG, black and white', 'a.png', encoded('PNG', '1'), hw
    yield 'PNG with a palette', 'a.png', encoded('PNG', 'P'), hw
    yield 'PNG with alpha', 'a.png', encoded('PNG', 'RGBA'), hw
    yield 'PNG, grey with alpha', 'a.png', encoded('PNG', 'LA'), hw
    yield 'PNG, 16 bits', 'a.png', encoded('PNG', 'I;16'), hw
    yield 'PNG of 1 x 1', 'a.png', encoded('PNG', 'RGB', (1, 1)), (1, 1)
    yield 'PNG, cut in the middle', 'a.png', png[: len(png) // 2], 'is cut'
    yield 'PNG without its end', 'a.png', png[:-12], 'is cut'
    yield 'PNG, bytes changed within', 'a.png', changed(png, len(png) // 2, b'\x55' * 8), 'is not an image'
    yield 'PNG of no pixels', 'a.png', changed(png, 16, bytes(8)), 'is not an image'
    yield (
        'PNG that says 2,000,000,000 pixels a side',
        'a.png',
        changed(png, 16, struct.pack('>II', *[2 * 10**9] * 2)),
        ('is not an image'),
    )
    if large:
        yield 'PNG of 20,000 x 20,000', 'a.png', encoded('PNG', '1', (20000, 20000)), (20000, 20000)
    yield 'BMP', 'a.bmp', encoded('BMP', 'RGB'), hw
    yield 'BMP, cut', 'a.bmp', encoded('BMP', 'RGB')[:-900], 'is not a whole image'
    yield 'TIFF, 16 bits', 'a.tif', encoded('TIFF', 'I;16'), hw
    yield 'TIFF, cut', 'a.tif', encoded('TIFF', 'RGB')[:-900], 'is no'
    yield 'WebP with alpha', 'a.webp', encoded('WEBP', 'RGBA'), hw
    yield 'WebP, cut', 'a.webp', encoded('WEBP', 'RGB')[:-40], 'is no'
    yield 'PPM', 'a.ppm', encoded('PPM', 'RGB'), hw
    yield 'PPM, cut', 'a.ppm', encoded('PPM', 'RGB')[:-900], 'is not a whole image'
    yield 'a text', 'a.jpg', b'not an image\n' * 20, 'is not an image'
    yield 'a web page', 'a.png', b'<html><body>404</body></html>', 'is not an image'
    yield 'a pickle with a call', 'a.jpg', pickle.dumps(MKDIR), 'is not an image'
    yield 'zeros', 'a.png', bytes(5000), 'is not an image'
    yield 'a drawing (SVG)', 'a.png', b"<svg xmlns='http://www.w3.org/2000/svg'/>", 'is not an image'
    yield 'no file', 'a.jpg', None, 'does not exist'


def write(folder: Path, name: str, content: bytes | None) -> Path:
    """Write one of these files, or see to it that it is not there."""
    path = Path(folder, name)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    return path
