import pytest

from halvit_mm.cost import count_parameters
from halvit_mm.cost.benchmark import count
from halvit_mm.cost.subject import Settings, Subject
from halvit_mm.errors import UserError
from tests.utils import ROOT


class TestSettings:
    @pytest.mark.parametrize(
        ('wrong', 'message'),
        [
            (dict(device='cuda'), '--device cuda is not a device of this machine; expected cpu'),
            (dict(precisions=('amp-fp16',)), '--precision amp-fp16 is not a precision of a CPU'),
            (dict(batches=(1, 0)), '--batch 0 is not a positive number'),
            (dict(shape=(-224, 224)), '--shape -224 is not a positive number'),
            (dict(rounds=0), '--rounds 0 is not a positive number'),
            (dict(processes=-1), '--processes -1 is not a positive number'),
        ],
    )
    def test_refuses(self, wrong, message, monkeypatch):
        monkeypatch.setattr('torch.cuda.is_available', lambda: False)
        with pytest.raises(UserError, match=message):
            Settings(**wrong)


def test_subject_of_a_package():
    subject = Subject('mmpretrain::deit/deit-small_4xb256_in1k.py')
    assert subject.name == 'deit-small_4xb256_in1k'
    assert subject.config().model.backbone.type == 'VisionTransformer'
    with pytest.raises(UserError, match="'no/such.py' is not a config of mmpretrain; expected one such as "):
        Subject('mmpretrain::no/such.py').config()


def test_norms_of_all_ranks_on_the_cpu():
    """torch has none for it, and mmseg's configs have nothing else."""
    options = {
        'model.decode_head.norm_cfg.type': 'SyncBN',
        'model.backbone.arch.num_layers': 3,
        'model.backbone.out_indices': (0, 1, 2),
    }
    settings = Settings(shape=(64, 64))
    subject = Subject(str(ROOT / 'configs/digits/upernet_halvit_digits-seg.py'), options=options)
    parameters = count_parameters(subject.model(settings))
    counted = count(subject, settings)
    assert counted['params'] == parameters
    assert counted['gradient_bytes'] == 4 * parameters
