"""What timm's own tests ask of a vision transformer, and the same outputs as our model of mmpretrain's."""

import copy

import pytest
import timm
import torch
from mmpretrain.registry import MODELS
from timm.models import get_notrace_functions, get_notrace_modules
from timm.optim import create_optimizer_v2
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import halvit_mm.timm
from halvit_mm.errors import UserError
from halvit_mm.layers import TiedModule
from halvit_mm.names import to_mmpretrain, to_timm

MICRO = 'halvit_micro_patch16_224'
SMALL = dict(img_size=32, patch_size=8, depth=3, num_classes=7)
OPTIONS = [
    dict(),
    dict(tie='attn', share=2),
    dict(tie='ffn', init_values=0.5),
    dict(tie='none', share=3),
    dict(tie_rank=2, share=2, init_values=0.5),
]


def make(**options) -> nn.Module:
    """A small model whose parameters, slack and layer scales among them, have values that are not zero."""
    model = timm.create_model(MICRO, **{**SMALL, **options})
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (2, 3, 32, 32)))


@pytest.mark.parametrize(
    ('size', 'count', 'options'),
    [
        ('micro', 2_870_208, {}),
        ('tiny', 11_048_832, {}),
        ('medium', 43_331_328, {}),
        ('large', 152_306_688, {}),
        ('tiny', 5_740_416, dict(share=2)),
        ('tiny', 11_712_384, dict(tie_rank=16)),
    ],
)
def test_parameters(size, count, options):
    name = f'halvit_{size}_patch16_224'
    assert name in timm.list_models('halvit*')
    model = timm.create_model(name, device='meta', **options)
    assert isinstance(model, halvit_mm.timm.HaLViT)
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.head.parameters()) == count


def test_pretrained_cfg():
    cfg = timm.data.resolve_data_config(model=timm.create_model(MICRO, device='meta'))
    assert cfg['mean'] == (0.485, 0.456, 0.406)
    assert (cfg['input_size'], cfg['crop_pct'], cfg['interpolation']) == ((3, 224, 224), 0.875, 'bicubic')
    with pytest.raises(RuntimeError, match='No pretrained weights exist'):
        timm.create_model(MICRO, pretrained=True)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_equals_our_model_of_mmpretrain(options):
    theirs = make(**options)
    ours = dict(
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=192, num_layers=3, num_heads=3, feedforward_channels=768),
        img_size=32,
        patch_size=8,
        **{name: value for name, value in options.items() if name != 'init_values'},
        layer_scale_init_value=options.get('init_values', 0.0),
    )
    head = dict(type='VisionTransformerClsHead', num_classes=7, in_channels=192)
    ours = MODELS.build(dict(type='ImageClassifier', backbone=ours, head=head)).eval()
    ours.load_state_dict(to_mmpretrain(theirs.state_dict()))
    x = images()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)
    back = to_timm(ours.state_dict())
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[name], value) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize('wrapped', [False, True])
def test_a_file_of_ours_fills_a_model_of_another_size(wrapped):
    model = make()
    state = to_mmpretrain(model.state_dict())
    larger = make(img_size=48)
    larger.load_state_dict(halvit_mm.timm.checkpoint_filter_fn(dict(state_dict=state) if wrapped else state, larger))
    assert torch.equal(larger.blocks[1].attn.q_weight, model.blocks[1].attn.q_weight)
    assert larger.pos_embed.shape == (1, 37, 192)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_backward_and_gradient_checkpointing(options):
    model = make(**options).train()
    x = images()
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.any(), name
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'options',
    [
        dict(pre_norm=True, proj_bias=False),
        dict(patch_drop_rate=0.5, act_layer='silu', norm_layer='rmsnorm'),
        dict(global_pool='map', pos_embed='none'),
        dict(no_embed_class=True, reg_tokens=4, weight_init='jax'),
        dict(dynamic_img_size=True, dynamic_img_pad=True, weight_init='moco'),
    ],
    ids=str,
)
def test_options_of_timm(options):
    model = timm.create_model(MICRO, **SMALL, **options).train()
    model(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_stochastic_depth_and_dropout():
    model = make(drop_path_rate=0.5, proj_drop_rate=0.1, attn_drop_rate=0.1, drop_rate=0.1).train()
    x = images()
    assert not torch.equal(model(x), model(x))
    assert [block.drop_path2.drop_prob for block in model.blocks[1:]] == [0.25, 0.5]


def test_features():
    model = make(features_only=True)
    assert model.feature_info.channels() == [192] * 3
    assert model.feature_info.reduction() == [8] * 3
    assert [map.shape for map in model(images())] == [(2, 192, 4, 4)] * 3
    model = make()
    x = images()
    last, middle = model.forward_intermediates(x, indices=[0, 2], norm=True, return_prefix_tokens=True)
    assert torch.equal(last, model.forward_features(x))
    assert torch.equal(middle[1][0].flatten(2).mT, last[:, 1:])
    assert torch.equal(model.forward_head(last), model(x))
    assert [map.shape for map in model.get_intermediate_layers(x, n=2, reshape=True)] == [(2, 192, 4, 4)] * 2
    model.prune_intermediate_layers([0], prune_head=True)
    assert len(model.blocks) == 1
    assert model(x).shape == (2, 17, 192)


def test_classifier():
    model = make()
    x = images()
    assert model.get_classifier() is model.head
    model.reset_classifier(5, global_pool='avg')
    assert model(x).shape == (2, 5)
    model.reset_classifier(0)
    assert model(x).shape == (2, 192)
    assert make(class_token=False, global_pool='avg', reg_tokens=2)(x).shape == (2, 7)


def test_sizes():
    model, any_size = make(), make(dynamic_img_size=True)
    any_size.load_state_dict(model.state_dict())
    x = images(1, 3, 48, 24)
    out = any_size(x)
    model.set_input_size((48, 24))
    torch.testing.assert_close(model(x), out, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'options', [dict(), dict(tie='attn', qkv_bias=False), dict(tie='ffn', init_values=0.5)], ids=str
)
def test_scripted(options):
    model = make(**options)
    x = images()
    expected = model(x)
    scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(x), expected, rtol=0, atol=1e-5)
    assert {*scripted.state_dict()} == {*model.state_dict()}


@pytest.mark.parametrize('options', [dict(share=2), dict(tie='none', share=2), dict(tie_rank=1)], ids=str)
def test_what_is_not_scripted_is_refused_and_traced(options):
    model = make(**options)
    with pytest.raises(UserError, match=r'share or tie_rank is not one that torch\.jit\.script compiles; expected'):
        torch.jit.script(model)
    x = images()
    torch.testing.assert_close(torch.jit.trace(model, x)(x), model(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize('options', OPTIONS, ids=str)
def test_extracted_by_fx(options):
    """As timm's own tests do it, and trained through."""
    model = make(**options)
    tracer = dict(leaf_modules=[*get_notrace_modules()], autowrap_functions=[*get_notrace_functions()])
    train, evaluate = get_graph_node_names(model, tracer_kwargs=tracer)
    extracted = create_feature_extractor(
        model, train_return_nodes=[train[-1]], eval_return_nodes=[evaluate[-1]], tracer_kwargs=tracer
    )
    x = images()
    [out] = extracted(x).values()
    assert torch.equal(out, model(x))
    out.sum().backward()
    assert all(p.grad is not None for name, p in extracted.named_parameters())


def test_exported_by_torch():
    model, x = make(share=2, tie_rank=1), images()
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x), rtol=0, atol=1e-5)


def test_copies_share_within_themselves():
    model = make(share=3)
    twin = copy.deepcopy(model)
    assert twin.blocks[2].attn.owner is twin.blocks[0].attn
    with torch.no_grad():
        twin.blocks[0].attn.q_weight.zero_()
    x = images()
    assert not torch.equal(model(x), twin(x))


def test_initialization_on_a_device():
    """As timm does it after a model was made without memory."""
    model = timm.create_model(MICRO, **SMALL, tie_rank=2, share=2, device='meta').to_empty(device='cpu')
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    model.init_weights()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    bound = (6 / (192 + 768)) ** 0.5
    assert 0.9 * bound < model.blocks[0].mlp.weight.abs().max() <= bound


def test_optimizer():
    model = make()
    groups = create_optimizer_v2(model, 'adamw', lr=1.0, weight_decay=0.1, layer_decay=0.5).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (group['weight_decay'], group['lr_scale']) for group in groups for p in group['params']}
    assert found['head.weight'] == (0.1, 1.0)
    assert found['blocks.2.attn.kv_weight'] == (0.1, 0.5)
    assert found['blocks.0.mlp.hidden_bias'] == (0.0, 0.125)
    assert found['pos_embed'][0] == 0.0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(tie='atn'), r"tie='atn' is not a choice; expected one of 'both', 'attn', 'ffn', 'none'"),
        (dict(share=0), 'share=0 is not a positive whole number'),
        (dict(tie='none', tie_rank=1), "tie_rank=1 with tie='none' is not a rank beyond a tie"),
        (dict(qk_norm=True), 'qk_norm=True is not an option of tied layers'),
        (dict(scale_attn_norm=True), 'scale_attn_norm=True is not'),
        (dict(scale_mlp_norm=True), 'scale_mlp_norm=True is not'),
        (dict(fix_init=True), 'fix_init=True is not'),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        timm.create_model(MICRO, **options)


def test_untied_is_timm_s_own():
    ours = timm.create_model(MICRO, tie='none', **SMALL)
    theirs = timm.create_model('vit_tiny_patch16_224', **SMALL)
    assert not any(isinstance(module, TiedModule) for module in ours.modules())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
