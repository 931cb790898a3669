"""Training with activations that are computed again."""

import torch

from tests.utils import assert_identical


def test_training_is_the_same_and_resumes_bit_for_bit(build_runner):
    options = {'model.backbone.drop_path_rate': 0.3, 'model.backbone.drop_rate': 0.1}
    loop = dict(by_epoch=True, max_epochs=2, val_interval=10)
    plain = build_runner('plain', loop, **options)
    plain.train()
    options['model.backbone.with_cp'] = 'all_but_attn'
    whole = build_runner('whole', loop, **options)
    whole.train()
    build_runner('cut', {**loop, 'max_epochs': 1}, **options).train()
    cut = build_runner('cut', loop, resume=True, **options)
    cut.train()
    assert_identical(whole.model.state_dict(), cut.model.state_dict())
    assert_identical(whole.optim_wrapper.state_dict(), cut.optim_wrapper.state_dict())
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(value, whole.model.state_dict()[name], rtol=1e-3, atol=1e-4)
