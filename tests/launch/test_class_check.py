import pytest
from mmengine.config import Config
from PIL import Image

from halvit_mm.errors import UserError
from halvit_mm.io.build import build_model
from halvit_mm.launch.class_check import check_classes, check_head
from tests.utils import ROOT

LOADERS = ('train_dataloader', 'val_dataloader')
IMAGENET = ROOT / 'configs/halvit/halvit-tiny_8xb128_in1k.py'


@pytest.fixture
def pets(tmp_path):
    for split in ('train', 'val'):
        for name in ('cat', 'dog', 'owl'):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new('RGB', (8, 8)).save(tmp_path / split / name / '1.png')
    return tmp_path


def read(root, text: str = '') -> Config:
    """An ImageNet config with a user's data."""
    path = root / 'mine.py'
    path.write_text(f"""
_base_ = {str(IMAGENET)!r}
train_dataloader = dict(dataset=dict(data_root={str(root)!r}))
val_dataloader = dict(dataset=dict(data_root={str(root)!r}))
{text}
""")
    return Config.fromfile(path)


FITTING = """
data = dict(metainfo=dict(classes=['cat', 'dog', 'owl']))
model = dict(head=dict(num_classes=3))
data_preprocessor = dict(num_classes=3)
train_dataloader.update(dataset=dict(**train_dataloader['dataset'], **data))
val_dataloader.update(dataset=dict(**val_dataloader['dataset'], **data))
val_evaluator = dict(topk=(1,))
"""


def told(cfg: Config) -> str:
    with pytest.raises(UserError) as error:
        check_classes(cfg, LOADERS)
    return str(error.value)


def test_an_imagenet_config_as_it_is_tells_all_that_does_not_fit(pets):
    cfg = read(pets, "model = dict(backbone=dict(arch='micro'))")
    first, *faults = told(cfg).split('\n  ')
    assert first == f'6 settings of {cfg.filename} do not fit:'
    classes = "metainfo={'classes': ['cat', 'dog', 'owl']}"
    folders = 'holds 3 folders, and ImageNet has 1000 classes; expected'
    data = [
        f'{loader}.dataset: {pets}/{split} {folders} {loader} = dict(dataset=dict({classes}))'
        for loader, split in (('train_dataloader', 'train'), ('val_dataloader', 'val'))
    ]
    assert faults == [
        *data,
        "model.head.num_classes=1000 is not the number of classes; the data have 3 ('cat', 'dog', 'owl'); expected "
        'model = dict(head=dict(num_classes=3))',
        'data_preprocessor.num_classes=1000 is not the number of classes; expected '
        'data_preprocessor = dict(num_classes=3)',
        'val_evaluator: top-5 is not an accuracy of 3 classes; expected val_evaluator = dict(topk=(1,))',
        'model.head.in_channels=384 is not the width of the features, which have 192; expected '
        'model = dict(head=dict(in_channels=192))',
    ]


def test_the_lines_that_are_told_mend_the_config(pets):
    check_classes(read(pets, FITTING), LOADERS)


def test_a_width_alone_is_told_where_the_model_is_built(pets):
    cfg = read(pets, FITTING.replace('model = dict(', "model = dict(backbone=dict(arch='micro'), "))
    check_classes(cfg, LOADERS)
    with pytest.raises(UserError, match=r'^model\.head\.in_channels=384 is not the width of the features'):
        check_head(cfg, build_model(cfg))
    cfg.model.head.in_channels = 192
    check_head(cfg, build_model(cfg))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            "model['head'].update(num_classes=2)",
            'model.head.num_classes=2 is not the number of classes; the data have 3',
        ),
        ("model['head'].update(loss=dict(type='LabelSmoothLoss', num_classes=5))", 'model.head.loss.num_classes=5 is'),
        ("val_evaluator = [dict(type='Accuracy', topk=(1, 5))]", 'top-5 is not an accuracy of 3 classes'),
        (
            "train_dataloader['dataset'].update(type='CustomDataset')",
            'train_dataloader.dataset.split is not an argument',
        ),
        (
            "train_dataloader['dataset'].update(metainfo=dict(classes=['dog', 'cat', 'owl']))",
            "named 'dog', 'cat', 'owl'",
        ),
        ("train_dataloader['dataset'].update(metainfo=dict(classes=['cat', 'dog']))", 'metainfo names 2 classes'),
    ],
)
def test_settings(pets, text, message):
    assert message in told(read(pets, FITTING + text))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda root: (root / 'val/cat').rename(root / 'val/Cat'), "'Cat' is too many, 'cat' is missing"),
        (lambda root: (root / 'val/.ipynb_checkpoints').mkdir(), "holds '.ipynb_checkpoints', which would be a class"),
        (lambda root: (root / 'train').rename(root / 'other') and (root / 'train').mkdir(), 'train holds no folders'),
    ],
)
@pytest.mark.parametrize('wrapped', [False, True])
def test_folders(pets, change, message, wrapped):
    change(pets)
    cfg = read(pets, FITTING)
    if wrapped:
        for loader in LOADERS:
            cfg[loader].dataset = dict(type='RepeatDataset', times=2, dataset=cfg[loader].dataset)
    assert message in told(cfg)


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ('cat/1.png 0\ndog/1.png 3\n', 'line 2 of .* has the label 3; model.head has 3 classes, 0 to 2'),
        ('cat/1.png 0\ncat/1.png\n', "line 2 of .* is 'cat/1.png'; expected an image and its label"),
        ('cat/1.png,0\n', "line 1 of .* is 'cat/1.png,0'"),
        ('cat/1.png 0\n\ndog/1.png 1\n', "line 2 of .* is ''"),
        ('cat/2.png 0\n', 'names the image cat/2.png, which is not in .*train'),
        ('', 'is empty; expected lines such as'),
    ],
)
def test_lists(pets, lines, message):
    (pets / 'list.txt').write_text(lines)
    cfg = read(pets, FITTING + "train_dataloader['dataset'].update(ann_file='list.txt')")
    with pytest.raises(UserError, match=message):
        check_classes(cfg, LOADERS)


def test_names_and_lists_that_fit(pets):
    (pets / 'list.txt').write_text('cat/1.png 0\ndog/1.png 1\n')
    (pets / 'val/owl/1.png').unlink()
    text = """
train_dataloader['dataset'].update(ann_file='list.txt')
val_dataloader['dataset'].update(metainfo=dict(classes=['Felis', 'Canis', 'Strix']))
"""
    check_classes(read(pets, FITTING + text), LOADERS)


def test_what_is_not_compared(pets):
    """Retrieval, models without a head of classes, and a config that asks for no check."""
    (pets / 'val/.ipynb_checkpoints').mkdir()
    for text in (
        "model = dict(type='ImageToImageRetriever')",
        "model = dict(head=dict(_delete_=True, type='MAEPretrainHead'))",
        'default_hooks = dict(labels=None)',
    ):
        check_classes(read(pets, text), LOADERS)
