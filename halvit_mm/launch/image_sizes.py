"""Sizes of images, held against those that a COCO annotation file gives."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import mmcv
from PIL import Image

# Headers that are read at most: of more images an even sample is looked at.
MOST_HEADERS = 2000
# EXIF's tag, and its values that swap height and width
ORIENTATION, SWAPPED = 0x0112, (5, 6, 7, 8)


@dataclass
class OtherSize:
    """An image whose size is not the one that its annotation file gives.

    Attributes:
        image (Mapping): The entry of the file.
        path (str): The image.
        read (tuple[int, int]): Width and height as mmdet reads the image.
        stored (tuple[int, int]): Width and height before an EXIF orientation turns the image.
        orientation (int): EXIF's orientation.
    """

    image: Mapping
    path: str
    read: tuple[int, int]
    stored: tuple[int, int]
    orientation: int

    @property
    def given(self) -> tuple[float, float]:
        return self.image['width'], self.image['height']

    @property
    def is_turned(self) -> bool:
        """Whether the file would give the right size if the orientation were not there, or not left out."""
        return self.orientation in SWAPPED and self.given == self.read[::-1]


def find_other_sizes(
    images: Sequence[tuple[str, Mapping]], color_type: str = 'color', backend: str = 'cv2'
) -> tuple[list[OtherSize], int]:
    """Read the headers of images, and find those of another size than the annotation file gives.

    Args:
        images (Sequence[tuple[str, Mapping]]): Path and entry of each image.
        color_type (str): As in ``LoadImageFromFile``. Defaults to ``'color'``.
        backend (str): ``imdecode_backend`` of ``LoadImageFromFile``. Defaults to ``'cv2'``.

    Returns:
        tuple[list[OtherSize], int]: The images found, and how many were looked at.
    """
    step = max(1, len(images) / MOST_HEADERS)
    sample = [images[int(i * step)] for i in range(min(len(images), MOST_HEADERS))]
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as threads:
        warnings.simplefilter('ignore')
        headers = [*threads.map(_read_header, [path for path, _ in sample])]
    found = []
    for (path, image), header in zip(sample, headers):
        if header is None:
            continue
        stored, orientation, kind = header
        # OpenCV turns images of these formats. Pillow gives a TIFF's size as turned already.
        turns = backend == 'pillow' or (backend == 'cv2' and kind in ('JPEG', 'MPO', 'PNG'))
        turns = turns and color_type in ('color', 'grayscale') and orientation in SWAPPED and kind != 'TIFF'
        read = stored[::-1] if turns else stored
        if read != (image['width'], image['height']):
            found.append(OtherSize(image, path, read, stored, orientation))
    # What a header says is believed once mmcv has read such an image.
    confirmed = next(_as_mmcv_reads(found[:8], color_type, backend), None)
    return (found[found.index(confirmed) :] if confirmed else []), len(sample)


def _read_header(path: str) -> tuple[tuple[int, int], int, str] | None:
    """Size, orientation and format of an image; None if it is none, which is told when it is read."""
    try:
        with Image.open(path) as image:
            # A PNG's own method would decode the image to look for a late chunk.
            return image.size, Image.Image.getexif(image).get(ORIENTATION, 1), image.format
    except Exception:
        return None


def _as_mmcv_reads(found: list[OtherSize], color_type: str, backend: str) -> Iterator[OtherSize]:
    for one in found:
        try:
            height, width = mmcv.imread(one.path, color_type, backend=backend).shape[:2]
        except Exception:
            continue
        if (width, height) == one.read:
            yield one
