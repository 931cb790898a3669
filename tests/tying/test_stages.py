import pytest
import torch

from halvit_mm.models import SharedStageResNet
from halvit_mm.tying.checkpoint import tie_weights


def resnet(shared: tuple[int, ...], **cfg) -> SharedStageResNet:
    return (
        SharedStageResNet(50, shared, stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3), **cfg).double().eval()
    )


@pytest.mark.parametrize('cfg', [dict(), dict(groups=2, width_per_group=4)], ids=['resnet', 'resnext'])
def test_a_shared_stage_hidden_in_a_plain_one_is_found_again(cfg):
    """Hidden channels in other places and scales; the stage's first block apart, which has no plain form."""
    plain, tied, sought = resnet((), **cfg), resnet((2,), **cfg), resnet((2,), **cfg)
    stage, blocks = sought.layer3, plain.layer3
    mid, groups = stage.weight.shape[0], stage[0].conv2.groups
    for module in stage.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value in (module.weight, module.bias, module.running_mean):
                torch.nn.init.normal_(value, 0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        for block, own in zip(blocks, stage):
            block.load_state_dict(own.state_dict(), strict=False)
            block.conv1.weight.copy_(stage.weight[:, -block.conv1.in_channels :])
            block.conv3.weight.copy_(stage.weight.transpose(0, 1))
            # The norm in front of conv1 takes a factor back, the norm behind conv2 the inverse of conv3's
            order = torch.cat([torch.randperm(mid // groups) + g * mid // groups for g in range(groups)])
            block.conv3.weight.copy_(block.conv3.weight[:, order] * 2)
            block.conv2.weight.copy_(block.conv2.weight[order])
            for name in ('weight', 'bias'):
                value = getattr(block.norm2, name)
                value.copy_(value[order] / 2)
            block.norm2.running_mean.copy_(block.norm2.running_mean[order])
            block.norm2.running_var.copy_(block.norm2.running_var[order])
            factor = torch.rand(mid, dtype=torch.double) + 0.5
            block.conv1.weight.mul_(factor.view(-1, 1, 1, 1))
            block.norm1.running_mean.mul_(factor)
            block.norm1.running_var.copy_((block.norm1.running_var + 1e-5) * factor**2 - 1e-5)
    tie_weights(plain, tied, 'products')
    x = torch.randn(2, stage.weight.shape[1], 5, 5, dtype=torch.double)
    for own, block in [*zip(tied.layer3, blocks)][1:]:
        torch.testing.assert_close(own(x, tied.layer3.weight), block(x), rtol=0, atol=1e-6)
