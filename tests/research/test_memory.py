from memory import chart, table, write_subjects
from PIL import Image

from halvit_mm.layers.recompute import LEVELS


def test_each_level_has_a_config(tmp_path):
    baseline, plain, *levels = write_subjects(tmp_path)
    assert baseline.config().model.backbone.type == 'VisionTransformer'
    assert 'with_cp' not in plain.config().model.backbone
    assert [subject.config().model.backbone.with_cp for subject in levels] == [*LEVELS]


def test_ratios_are_to_the_first_config(tmp_path):
    points = [
        dict(name=name, over=over, batch=batch, side=side, activation_bytes=size, peak_memory_bytes=4 * size)
        for name, size in (('DeiT-S', 200e6), ('HaLViT', 50e6))
        for over, batch, side in (('batch', 4, 224), ('side', 2, 448))
    ]
    assert table(points).splitlines()[-1] == '| HaLViT | 2 | 448 x 448 | 50 | 0.25 | 200 | 0.25 |'
    with Image.open(chart(points, tmp_path / 'memory.png')) as drawn:
        assert min(drawn.size) > 400
