import pytest
from memory import DETECTION, MEDIUM, TINY, chart, largest_batch, subjects_of, table, times_table
from PIL import Image

from halvit_mm.layers.recompute import LEVELS


@pytest.mark.parametrize('models', [TINY, MEDIUM, DETECTION], ids=['tiny', 'medium', 'detection'])
def test_each_level_has_a_config(models):
    *baselines, plain, _, _, _ = subjects = subjects_of(*models)
    levels = subjects[-3:]
    assert all('HaLViT' not in baseline.config().model.backbone.type for baseline in baselines)
    assert 'with_cp' not in plain.config().model.backbone
    assert [subject.config().model.backbone.with_cp for subject in levels] == [*LEVELS]


def test_ratios_are_to_the_first_config(tmp_path):
    points = [
        dict(name=name, over=over, batch=batch, shape=(side, side), activation_bytes=size, peak_memory_bytes=4 * size)
        for name, size in (('DeiT-S', 200e6), ('HaLViT', 50e6))
        for over, batch, side in (('batch', 4, 224), ('side', 2, 448))
    ]
    assert table(points).splitlines()[-1] == '| HaLViT | 2 | 448 x 448 | 50 | 0.25 | 200 | 0.25 |'
    with Image.open(chart(points, tmp_path / 'memory.png')) as drawn:
        assert min(drawn.size) > 400


def test_ratios_of_times_are_those_of_a_round():
    assert (
        times_table({'a': [1.0, 2.0, 4.0], 'b': [2.0, 2.0, 2.0]}).splitlines()[-1]
        == '| b | 3 | 2.00 | 1.000 | 0.500 to 2.000 |'
    )


def test_largest_batch_lies_on_the_line():
    assert largest_batch((8, 1.0e9), (16, 2.0e9)) == 64
    assert largest_batch((8, 1.5e9), (16, 2.5e9)) == 60
