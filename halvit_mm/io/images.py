"""Image files: whether they are whole, and reading them."""

import os
import warnings

import mmcv
import numpy as np
from PIL import Image

# What a whole file ends with; programs leave a few bytes of their own behind it.
ENDS = {b'\xff\xd8\xff': b'\xff\xd9', b'\x89PNG\r\n\x1a\n': b'IEND'}
TAIL = 4096


def find_image_damage(path: str | os.PathLike, decode: bool = False) -> str | None:
    """Look whether a file is a whole image.

    OpenCV, which the hosts read with, fills up what an image lacks with grey, without an error. Of JPEG and PNG the end
    of the file tells; files of other kinds are decoded, by Pillow.

    Args:
        path (str or PathLike): The file.
        decode (bool): Whether JPEG and PNG are decoded too, which takes as long as to read them. Defaults to False.

    Returns:
        str or None: What is wrong with it, or None.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(8)
            if not head:
                return 'is empty'
            end = next((ENDS[start] for start in ENDS if head.startswith(start)), None)
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            tail = file.read()
    except FileNotFoundError:
        return 'does not exist'
    except OSError as error:
        return f'cannot be read ({error.strerror})'
    if end is not None and end not in tail:
        return 'is cut: its end is missing'
    if end is not None and not decode:
        return None
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter('ignore')
            image.load()
    except Image.UnidentifiedImageError:
        return 'is no image'
    except Exception as error:
        return f'is no whole image ({error})'
    return None


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as the hosts do, and make sure that it is whole.

    Args:
        path (str or PathLike): The file.

    Returns:
        np.ndarray: Shape (H, W, 3), in RGB order.

    Raises:
        ValueError: If it is no image, or only the first part of one.
    """
    if damage := find_image_damage(path, decode=True):
        raise ValueError(f'{path} {damage}')
    picture = mmcv.imread(path)
    if picture is None:
        raise ValueError(f'{path} is no image that OpenCV reads')
    return np.ascontiguousarray(picture[..., ::-1])
