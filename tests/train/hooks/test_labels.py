import pytest
from torch.utils.data import DataLoader

from halvit_mm.errors import UserError
from halvit_mm.train import LabelHook


def test_label_outside_the_classes(build_runner, digits_root):
    runner = build_runner(**{'model.head.num_classes': 3, 'train_dataloader.dataset.indices': -40})
    with pytest.raises(
        UserError, match=r'train_dataloader: image .*9.* has the label 9; the head has 3 classes, 0 to 2'
    ):
        runner.train()


def test_other_labels_and_heads_are_taken(build_runner):
    """All labels are classes of the head, or the dataset, as mmdet's, has no labels."""
    runner = build_runner(**{'train_dataloader.dataset.indices': -40})
    LabelHook().before_train(runner)
    runner.model.head.num_classes = 9
    with pytest.raises(UserError, match='the head has 9 classes, 0 to 8'):
        LabelHook().before_train(runner)
    runner.train_loop.dataloader = DataLoader([1, 2])
    LabelHook().before_train(runner)
