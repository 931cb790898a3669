"""Image files: checks that they are whole, and reading."""

import os
import warnings
from io import BytesIO

import mmcv
import numpy as np
from PIL import Image

# First bytes of a format: last bytes of a whole file, after which programs may append a few
ENDS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG\r\n\x1a\n': b'IEND'}
TAIL = 4096


def find_image_damage(path: str | os.PathLike, decode: bool = False) -> str | None:
    """Check that a file is a whole image, as :func:`find_damage` does.

    Of a JPEG or PNG file only both ends are read, unless Pillow is to decode the image.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(8)
            if decode or _end(head) is None:
                return find_damage(head + file.read(), decode)
            file.seek(max(8, file.seek(0, os.SEEK_END) - TAIL))
            return find_damage(head + file.read())
    except FileNotFoundError:
        return 'does not exist'
    except OSError as error:
        return f'cannot be read ({error.strerror})'


def find_damage(content: bytes, decode: bool = False) -> str | None:
    """Check that the content of a file is a whole image.

    Upstream reads with OpenCV, which fills missing parts of an image with grey and raises no error. This function looks
    at the end of a JPEG or PNG file; Pillow decodes files of other formats.

    Args:
        content (bytes): The content.
        decode (bool): Whether Pillow decodes JPEG and PNG too, which takes as long as reading them. Defaults to False.

    Returns:
        str or None: What is wrong with the file; None if it is whole.
    """
    if not content:
        return 'is empty'
    end = _end(content)
    if end is not None and end not in content[-TAIL:]:
        return 'is cut: its end is missing'
    if end is not None and not decode:
        return None
    try:
        with warnings.catch_warnings(), Image.open(BytesIO(content)) as image:
            warnings.simplefilter('ignore')
            image.load()
    except Image.UnidentifiedImageError:
        return 'is not an image'
    except Exception as error:
        return f'is not a whole image ({error})'
    return None


def _end(content: bytes) -> bytes | None:
    """How a whole file of the same format ends, if the format is JPEG or PNG."""
    return next((ENDS[start] for start in ENDS if content.startswith(start)), None)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as upstream does, and check that it is whole.

    Returns:
        np.ndarray: Shape (H, W, 3), in RGB order.

    Raises:
        ValueError: If the file is not a whole image.
    """
    if damage := find_image_damage(path, decode=True):
        raise ValueError(f'{path} {damage}')
    picture = mmcv.imread(path)
    if picture is None:
        raise ValueError(f'{path} is not an image that OpenCV reads')
    return np.ascontiguousarray(picture[..., ::-1])
