from torch import nn

from halvit_mm.cost import count_parameters


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(3, 4)
        self.head = nn.Linear(4, 5)


def test_with_and_without_head():
    model = Classifier()
    assert count_parameters(model) == 3 * 4 + 4 + 4 * 5 + 5
    assert count_parameters(model, without_head=True) == 3 * 4 + 4


def test_parameter_under_two_names_counts_once():
    model = Classifier()
    model.alias = model.backbone
    assert count_parameters(model) == 41
    model.head.weight = model.backbone.weight
    assert count_parameters(model, without_head=True) == 16


def test_frozen_parameters_count():
    model = Classifier()
    model.backbone.requires_grad_(False)
    assert count_parameters(model) == 41
