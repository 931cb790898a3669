import pytest

from halvit_mm.names import to_mmpretrain, to_timm

PAIRS = {
    'cls_token': 'backbone.cls_token',
    'pos_embed': 'backbone.pos_embed',
    'patch_embed.proj.weight': 'backbone.patch_embed.projection.weight',
    'blocks.0.norm1.weight': 'backbone.layers.0.ln1.weight',
    'blocks.11.norm2.bias': 'backbone.layers.11.ln2.bias',
    'blocks.0.attn.q_weight': 'backbone.layers.0.attn.q_weight',
    'blocks.0.attn.slack.left.q_weight': 'backbone.layers.0.attn.slack.left.q_weight',
    'blocks.0.ls1.gamma': 'backbone.layers.0.attn.gamma1.weight',
    'blocks.0.ls2.gamma': 'backbone.layers.0.ffn.gamma2.weight',
    'blocks.0.mlp.hidden_bias': 'backbone.layers.0.ffn.hidden_bias',
    'blocks.1.attn.qkv.weight': 'backbone.layers.1.attn.qkv.weight',
    'blocks.1.mlp.fc1.weight': 'backbone.layers.1.ffn.layers.0.0.weight',
    'blocks.1.mlp.fc2.bias': 'backbone.layers.1.ffn.layers.1.bias',
    'norm.weight': 'backbone.ln1.weight',
    'head.weight': 'head.layers.head.weight',
}


def test_vision_transformers():
    assert to_mmpretrain(dict(zip(PAIRS, PAIRS))) == {ours: theirs for theirs, ours in PAIRS.items()}
    assert to_timm({ours: ours for ours in PAIRS.values()}) == PAIRS


def test_resnets():
    state = dict.fromkeys(['conv1.weight', 'bn1.bias', 'layer1.0.conv1.weight', 'layer4.2.bn3.weight', 'fc.bias'])
    assert [*to_mmpretrain(state)] == [
        'backbone.conv1.weight',
        'backbone.bn1.bias',
        'backbone.layer1.0.conv1.weight',
        'backbone.layer4.2.bn3.weight',
        'head.fc.bias',
    ]


@pytest.mark.parametrize('rename', [to_mmpretrain, to_timm])
def test_other_names_stay(rename):
    state = {'norm.weight': 1, 'backbone.ln1.weight': 2, 'fc.weight': 3}
    assert rename(state) == state
