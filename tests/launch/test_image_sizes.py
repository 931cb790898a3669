import mmcv
import pytest
from PIL import Image

from halvit_mm.launch import image_sizes
from halvit_mm.launch.image_sizes import find_other_sizes


def save(path, orientation=1, size=(40, 20)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new('RGB', size).save(path, exif=exif)
    return str(path)


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp', 'tiff'])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_sizes_are_those_that_mmcv_reads(tmp_path, kind, backend):
    for orientation in (1, 3, 6, 8):
        path = save(tmp_path / f'{orientation}.{kind}', orientation)
        for color_type in ('color', 'grayscale', 'unchanged', 'color_ignore_orientation'):
            height, width = mmcv.imread(path, color_type, backend=backend).shape[:2]
            right, wrong = dict(width=width, height=height), dict(width=height, height=width)
            assert find_other_sizes([(path, right)], color_type, backend) == ([], 1)
            [found], _ = find_other_sizes([(path, wrong)], color_type, backend)
            assert found.read == (width, height)
            assert found.is_turned == (orientation in (6, 8))


def test_a_sample_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(image_sizes, 'MOST_HEADERS', 3)
    path = save(tmp_path / 'a.png')
    images = [(path, dict(width=40 + i // 5, height=20, id=i)) for i in range(10)]
    found, number = find_other_sizes(images)
    assert number == 3
    assert [one.image['id'] for one in found] == [6]


def test_what_is_no_image_is_left_to_the_reader(tmp_path):
    (tmp_path / 'a.jpg').write_text('no image')
    assert find_other_sizes([(str(tmp_path / 'a.jpg'), dict(width=1, height=1))]) == ([], 1)
