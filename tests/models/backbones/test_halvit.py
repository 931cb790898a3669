import copy
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import load_checkpoint
from mmpretrain.models.backbones import VisionTransformer
from torch.nn.parallel import DistributedDataParallel

from halvit_mm._torch import unfused_attention
from halvit_mm.errors import UserError
from halvit_mm.io.weights import reading_file
from halvit_mm.layers.recompute import LEVELS
from halvit_mm.models import HaLViT
from tests.utils import (
    TINY_ARCH,
    assert_equal_gradients,
    gradients,
    on_ranks,
    tie_gradients,
    untie_state_dict,
)

SMALL = dict(arch=TINY_ARCH, img_size=32, patch_size=8)


def make(**cfg) -> HaLViT:
    torch.manual_seed(0)
    model = HaLViT(**{**SMALL, **cfg})
    model.init_weights()
    return model


def make_pair(**cfg) -> tuple[HaLViT, VisionTransformer]:
    """A tied model in float64 and mmpretrain's plain ViT with the same function."""
    tied = make(**cfg).double()
    for parameter in tied.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    untied = VisionTransformer(**{**SMALL, **cfg}).double()
    untied.load_state_dict(untie_state_dict(tied.state_dict()), strict=True)
    return tied, untied


def images(batch: int = 2, size: tuple[int, int] = (32, 32), dtype=torch.float) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1)).to(dtype)


class TestStructure:
    @pytest.mark.parametrize(
        ('arch', 'share', 'tie_rank', 'expected'),
        [
            *(('micro', share, 0, count) for share, count in ((2, 1_543_104), (3, 1_100_736))),
            *(('tiny', share, 0, count) for share, count in ((2, 5_740_416), (3, 3_970_944), (5, 3_086_208))),
            *(('medium', share, 0, count) for share, count in ((2, 22_097_664), (3, 15_019_776))),
            *(('large', share, 0, count) for share, count in ((1, 152_306_688), (2, 76_809_216), (3, 51_643_392))),
            ('tiny', 1, 16, 11_712_384),
            ('medium', 2, 16, 23_424_768),
        ],
    )
    def test_parameters_of_layers_that_share(self, arch, share, tie_rank, expected):
        with torch.device('meta'):
            model = HaLViT(arch, share=share, tie_rank=tie_rank)
        assert sum(p.numel() for p in model.parameters()) == expected

    # Worked out by hand from the widths: patches and embeddings, L (2 D^2 + D M + 9 D + M), final norm
    @pytest.mark.parametrize(
        ('arch', 'tie', 'expected'),
        [
            ('tiny', 'both', 11_048_832),
            ('medium', 'both', 43_331_328),
            ('micro', 'both', 2_870_208),
            ('tiny', 'none', 21_665_664),
            ('tiny', 'attn', 11_048_832 + 12 * 384 * 1536),
            ('tiny', 'ffn', 11_048_832 + 12 * 2 * 384 * 384),
        ],
    )
    def test_parameters(self, arch, tie, expected):
        with torch.device('meta'):
            model = HaLViT(arch, tie=tie)
        assert sum(p.numel() for p in model.parameters()) == expected

    def test_closed_formula(self):
        for arch, settings in HaLViT.arch_zoo.items():
            d, m = settings['embed_dims'], settings['feedforward_channels']
            layer = 2 * d * d + d * m + (3 * d + d) + (m + d) + 4 * d
            expected = (3 * 16 * 16 + 1) * d + d + 197 * d + settings['num_layers'] * layer + 2 * d
            with torch.device('meta'):
                model = HaLViT(arch)
            assert sum(p.numel() for p in model.parameters()) == expected, arch

    def test_every_matrix_appears_once(self):
        model = make()
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        assert len(names) == len(set(names)) == len(model.state_dict())
        storages = {p.untyped_storage().data_ptr() for p in model.parameters()}
        assert len(storages) == len(names)
        held = sum(p.untyped_storage().nbytes() for p in model.parameters())
        assert held == 4 * sum(p.numel() for p in model.parameters())

    @pytest.mark.parametrize('out_type', ['raw', 'cls_token', 'featmap', 'avg_featmap'])
    @pytest.mark.parametrize('with_cls_token', [True, False])
    def test_untied_is_the_plain_vit(self, out_type, with_cls_token):
        if out_type == 'cls_token' and not with_cls_token:
            with pytest.raises(ValueError, match='with_cls_token must be True'):
                make(out_type=out_type, with_cls_token=False)
            return
        cfg = dict(out_type=out_type, with_cls_token=with_cls_token, out_indices=[0, -1])
        ours = make(tie='none', **cfg).eval()
        theirs = VisionTransformer(**SMALL, **cfg)
        theirs.eval()  # returns None
        for parameter in theirs.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        assert [*ours.state_dict()] == [*theirs.state_dict()]
        ours.load_state_dict(theirs.state_dict(), strict=True)
        for a, b in zip(ours(images()), theirs(images()), strict=True):
            torch.testing.assert_close(a, b)

    def test_tied_is_the_plain_vit_with_tied_weights(self):
        cfg = dict(out_type='raw', out_indices=[0, 1, 2], qkv_bias=False, layer_scale_init_value=0.1, pre_norm=True)
        tied, untied = make_pair(**cfg)
        for a, b in zip(tied(images(dtype=torch.double)), untied(images(dtype=torch.double)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)

    @pytest.mark.parametrize('tie', ['attn', 'ffn'])
    def test_half_tied(self, tie):
        model = make(tie=tie, drop_path_rate=0.1)
        names = {name for name, _ in model.layers[0].named_parameters()}
        assert ('attn.q_weight' in names) == (tie == 'attn')
        assert ('ffn.weight' in names) == (tie == 'ffn')
        assert model(images())[0].shape == (2, 24)

    def test_stochastic_depth_grows_linearly(self):
        model = make(drop_path_rate=0.2)
        rates = [(layer.attn.out_drop.drop_prob, layer.ffn.dropout_layer.drop_prob) for layer in model.layers]
        assert rates == [(0.0, 0.0), (0.1, 0.1), (0.2, 0.2)]

    def test_layer_cfgs(self):
        model = make(layer_cfgs=[dict(), dict(act_cfg=dict(type='ReLU')), dict(attn_drop_rate=0.3)])
        assert isinstance(model.layers[1].ffn.activate, torch.nn.ReLU)
        assert model.layers[2].attn.attn_drop == 0.3

    def test_all_arguments_of_upstream_are_taken(self):
        model = make(
            in_channels=4,
            drop_rate=0.1,
            norm_cfg=dict(type='LN', eps=1e-3),
            final_norm=False,
            interpolate_mode='bilinear',
            patch_cfg=dict(norm_cfg=dict(type='LN')),
        )
        assert not hasattr(model, 'ln1')
        assert model.layers[0].ln1.eps == 1e-3
        assert model.layers[0].ffn.ffn_drop.p == model.layers[0].attn.proj_drop.p == model.drop_after_pos.p == 0.1
        assert model(torch.randn(1, 4, 32, 32))[0].shape == (1, 24)

    @pytest.mark.parametrize(
        ('cfg', 'error', 'message'),
        [
            (dict(arch='unknown'), AssertionError, 'Arch unknown is not in default archs'),
            (dict(arch=dict(embed_dims=24)), AssertionError, 'Custom arch needs'),
            (dict(out_indices={1: 1}), AssertionError, "get <class 'dict'>"),
            (dict(out_indices=[0, 3]), AssertionError, 'Invalid out_indices 3'),
            (dict(out_indices=(-4,)), AssertionError, 'Invalid out_indices -4'),
            (dict(out_type='map'), ValueError, 'Unsupported `out_type` map'),
            (dict(tie='all'), ValueError, "tie='all' is not a choice; expected one of 'both', 'attn', 'ffn', 'none'"),
            (
                dict(with_cp='attn'),
                ValueError,
                "with_cp='attn' is not a choice; expected True, False, 'ffn' or 'all_but",
            ),
            (dict(with_cp='all_but_attn', tie='none'), ValueError, "with_cp='all_but_attn' needs tied attention"),
            (
                dict(frozen_stages=4),
                ValueError,
                'frozen_stages=4 is not a number of layers of this model; expected at most 3',
            ),
            (dict(layer_cfgs=[dict()]), ValueError, 'layer_cfgs has 1 entries for 3 layers'),
            (dict(share=0), ValueError, 'share=0'),
            (dict(share=2, frozen_stages=1), ValueError, 'frozen_stages=1 is not an end of a group of share=2 layers'),
            (dict(tie_rank=-1), ValueError, "tie_rank=-1 with tie='both' is not a rank"),
            (dict(tie_rank=2, tie='none'), ValueError, "tie_rank=2 with tie='none' is not a rank"),
            (dict(layer_cfgs=dict(ffn_type='swiglu_fused')), ValueError, "ffn_type='swiglu_fused'"),
        ],
    )
    def test_refusals(self, cfg, error, message):
        with pytest.raises(error, match=message):
            HaLViT(**{**SMALL, **cfg})

    def test_out_indices_of_the_caller_are_left_alone(self):
        indices = [-1, 0]
        assert make(out_indices=indices).out_indices == (2, 0)
        assert indices == [-1, 0]
        assert make(out_indices=(-2, -1)).out_indices == (1, 2)

    def test_layer_depths(self):
        model = make()
        depths = {name: model.get_layer_depth('backbone.' + name, 'backbone.') for name, _ in model.named_parameters()}
        assert depths['cls_token'] == depths['pos_embed'] == depths['patch_embed.projection.weight'] == (0, 5)
        assert depths['layers.0.attn.q_weight'] == (1, 5)
        assert depths['layers.2.ffn.weight'] == (3, 5)
        assert depths['ln1.weight'] == model.get_layer_depth('head.fc.weight', 'backbone.') == (4, 5)


class TestSizes:
    @pytest.mark.parametrize('size', [(32, 32), (40, 24), (33, 77), (8, 8)])
    @pytest.mark.parametrize('with_cls_token', [True, False])
    def test_any_size(self, size, with_cls_token):
        model = make(out_type='featmap', with_cls_token=with_cls_token)
        assert model(images(1, size))[0].shape == (1, 24, -(-size[0] // 8), -(-size[1] // 8))

    def test_position_embedding_is_resized_on_load(self):
        source = make()
        target = make(img_size=48)
        target.load_state_dict(source.state_dict(), strict=True)
        grid = source.pos_embed[0, 1:].reshape(1, 4, 4, 24).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(6, 6), mode='bicubic', align_corners=False)
        torch.testing.assert_close(target.pos_embed[0, 1:], grid[0].permute(1, 2, 0).reshape(36, 24))
        torch.testing.assert_close(target.pos_embed[:, 0], source.pos_embed[:, 0])
        without = make(img_size=48, with_cls_token=False, out_type='featmap')
        incompatible = without.load_state_dict(source.state_dict(), strict=False)
        assert incompatible.unexpected_keys == ['cls_token']
        torch.testing.assert_close(without.pos_embed, target.pos_embed[:, 1:])

    def test_position_embedding_follows_its_data(self):
        """Averaged weights, for one, are put in place behind autograd's back."""
        model = make(out_type='raw').eval()
        x = images(1, (40, 24))
        with torch.no_grad():
            model(x)
            model.pos_embed.data.copy_(torch.randn_like(model.pos_embed))
            out = model(x)[0]
            fresh = make(out_type='raw').eval()
            fresh.load_state_dict(model.state_dict())
            assert torch.equal(out, fresh(x)[0])

    def test_sizes_in_threads(self):
        model = make(arch={**TINY_ARCH, 'num_layers': 1}, out_type='raw').eval()
        batches = [images(1, (40, 8 * columns)) for columns in range(1, 9)]

        @torch.no_grad()
        def run(x: torch.Tensor) -> torch.Tensor:
            return model(x)[0]

        expected = [run(x) for x in batches]
        with ThreadPoolExecutor(4) as pool:
            for out, wanted in zip(pool.map(run, batches * 100), expected * 100, strict=True):
                assert torch.equal(out, wanted)

    def test_channels_last_images(self):
        for with_cls_token in (True, False):
            model = make(out_type='raw', with_cls_token=with_cls_token).eval()
            x = images()
            torch.testing.assert_close(model(x)[0], model(x.to(memory_format=torch.channels_last))[0])
            channels_last = model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(channels_last(x)[0], model(x)[0])

    def test_tokens_are_contiguous_without_a_class_token(self):
        model = make(out_type='raw', with_cls_token=False, final_norm=False, out_indices=[0])
        assert model(images())[0].is_contiguous()


class TestInitialization:
    def test_embeddings_are_drawn(self):
        model = HaLViT(**SMALL)
        assert model.pos_embed.abs().max() == 0
        model.init_weights()
        assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.2)
        assert model.cls_token.abs().max() > 0

    def test_init_cfg_by_layer_type(self):
        model = HaLViT(**SMALL, init_cfg=dict(type='Constant', layer='Conv2d', val=3.0))
        model.init_weights()
        assert model.patch_embed.projection.weight.unique().tolist() == [3.0]

    @pytest.mark.parametrize('as_list', [False, True])
    def test_pretrained_weights_stay(self, tmp_path, as_list):
        source = make()
        classifier = {f'backbone.{name}': value for name, value in source.state_dict().items()}
        torch.save(dict(state_dict={**classifier, 'head.fc.weight': torch.zeros(2)}), tmp_path / 'source.pth')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'source.pth'), prefix='backbone.')
        torch.manual_seed(7)
        target = HaLViT(**SMALL, init_cfg=[init_cfg] if as_list else init_cfg)
        target.init_weights()
        for name, value in target.state_dict().items():
            assert torch.equal(value, source.state_dict()[name]), name


class TestFreezing:
    def test_stays_frozen_after_train(self):
        model = make(frozen_stages=2, drop_rate=0.1)
        assert model.train() is model
        assert model.eval() is model
        model.train()
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert {'pos_embed', 'cls_token', 'patch_embed.projection.weight', 'layers.1.ffn.weight'} <= frozen
        assert not any(name.startswith(('layers.2.', 'ln1.')) for name in frozen)
        assert [layer.training for layer in model.layers] == [False, False, True]
        assert not model.drop_after_pos.training
        model(images())[0].sum().backward()
        assert {name for name, p in model.named_parameters() if p.grad is None} == frozen

    def test_all_layers(self):
        model = make(frozen_stages=3)
        assert not any(p.requires_grad for p in model.parameters())

    def test_nothing_by_default(self):
        assert all(p.requires_grad for p in make().parameters())
        assert all(p.requires_grad for p in make(frozen_stages=0).parameters())


class TestGradients:
    """Of every shared matrix: the sum of the untied counterpart's two, in float64 to 1e-10."""

    def expected(self, x, untied) -> dict[str, torch.Tensor]:
        untied(x)[0].square().sum().backward()
        return tie_gradients(gradients(untied))

    # The compiler cuts out what is computed again before Inductor sees it.
    @pytest.mark.parametrize(
        ('backend', 'with_cp'),
        [
            *((None, with_cp) for with_cp in (False, *LEVELS)),
            pytest.param('inductor', False, marks=pytest.mark.long),
            ('aot_eager', 'all_but_attn'),
        ],
    )
    def test_against_untied_counterpart(self, backend, with_cp):
        # Inductor takes ten seconds for a layer.
        tied, untied = make_pair(arch={**SMALL['arch'], 'num_layers': 1}) if backend else make_pair()
        tied.with_cp = with_cp
        x = images(dtype=torch.double)
        if backend:
            # Inductor's fused attention has no backward pass in float64 (torch 2.10, plain ViTs as well).
            with unfused_attention():
                torch.compile(tied, backend=backend)(x)[0].square().sum().backward()
        else:
            tied(x)[0].square().sum().backward()
        assert_equal_gradients(gradients(tied), self.expected(x, untied), 1e-10)

    def test_compiled_fused_attention(self):
        grads = []
        for compiled in (False, True):
            model = make(arch={**SMALL['arch'], 'num_layers': 1})
            out = (torch.compile(model) if compiled else model)(images())[0]
            (out * torch.linspace(-1, 1, 48).view(2, 24)).sum().backward()
            grads.append(gradients(model))
        largest = max(grad.abs().max() for grad in grads[0].values())
        assert_equal_gradients(*grads, 1e-6 * largest)

    def test_over_two_ranks(self, tmp_path):
        on_ranks(_rank, str(tmp_path / 'grads.pth'))
        tied, untied = make_pair()
        x = images(4, dtype=torch.double)
        (untied(x)[0].square().sum() / 2).backward()
        expected = tie_gradients(gradients(untied))
        assert expected.keys() == dict(tied.named_parameters()).keys()
        for ours in torch.load(tmp_path / 'grads.pth').values():
            assert_equal_gradients(ours, expected, 1e-10)


def _rank(out: str, rank: int) -> None:
    grads = {}
    for with_cp in (False, *LEVELS):
        tied, _ = make_pair()
        tied.with_cp = with_cp
        model = DistributedDataParallel(tied)
        model(images(4, dtype=torch.double).chunk(2)[rank])[0].square().sum().backward()
        grads[with_cp] = gradients(tied)
    if rank == 0:
        torch.save(grads, out)


class TestSurroundings:
    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize('tie', ['both', 'none'])
    def test_autocast(self, dtype, tie):
        model = make(tie=tie)
        expected = model(images())[0]
        with torch.autocast('cpu', dtype):
            out = model(images())[0]
        torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)
        out.float().square().sum().backward()
        assert all(torch.isfinite(p.grad).all() and p.grad.dtype == torch.float for p in model.parameters())

    def test_autocast_casts_each_matrix_once(self):
        model = make(arch={**TINY_ARCH, 'num_layers': 1})
        with (
            torch.profiler.profile(record_shapes=True, acc_events=True) as profile,
            torch.autocast('cpu', torch.bfloat16),
        ):
            model(images())
        shapes = [e.input_shapes[0] for e in profile.events() if e.name == 'aten::_to_copy']
        assert shapes.count([24, 24]) == 2
        assert shapes.count([40, 24]) == 1

    def test_compile_in_both_modes(self):
        model = make(arch={**SMALL['arch'], 'num_layers': 1})
        compiled = torch.compile(model)
        torch.testing.assert_close(compiled(images())[0], model(images())[0], rtol=1e-4, atol=1e-5)
        model.eval()
        with torch.no_grad():
            torch.testing.assert_close(compiled(images())[0], model(images())[0], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize('out_type', ['cls_token', 'featmap'])
    def test_export(self, out_type):
        model = make(out_type=out_type).eval()
        batch = torch.export.Dim('batch', min=1, max=64)
        exported = torch.export.export(model, (images(2),), dynamic_shapes=dict(x={0: batch}))
        torch.testing.assert_close(exported.module()(images(5))[0], model(images(5))[0])
        held = sum(value.numel() for value in exported.state_dict.values())
        assert held == sum(p.numel() for p in model.parameters())

    def test_trace(self):
        model = make(out_type='raw').eval()
        traced = torch.jit.trace(model, images(2))
        torch.testing.assert_close(traced(images(2))[0], model(images(2))[0])
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
        assert sum(p.numel() for p in traced.parameters()) == sum(p.numel() for p in model.parameters())

    def test_deepcopy(self):
        model = make(frozen_stages=1)
        clone = copy.deepcopy(model)
        torch.testing.assert_close(clone(images())[0], model(images())[0])
        assert not {p.data_ptr() for p in clone.parameters()} & {p.data_ptr() for p in model.parameters()}
        with torch.no_grad():
            clone.layers[2].ffn.weight.zero_()
        assert model.layers[2].ffn.weight.abs().max() > 0
        with pytest.raises(UserError, match='cannot take these weights'), reading_file():
            clone.load_state_dict(VisionTransformer(**SMALL).state_dict(), strict=False)

    def test_moving_average(self):
        model = make()
        average = ExponentialMovingAverage(model, momentum=0.5)
        average.update_parameters(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        average.update_parameters(model)
        moved, now = average.module.state_dict(), model.state_dict()
        assert moved.keys() == now.keys()
        for name, value in moved.items():
            torch.testing.assert_close(value, now[name] - 0.5)
        fresh = ExponentialMovingAverage(make())
        fresh.load_state_dict(average.state_dict())

    def test_state_dict_is_half(self):
        buffers = {tie: io.BytesIO() for tie in ('both', 'none')}
        arch = dict(embed_dims=96, num_layers=4, num_heads=3, feedforward_channels=384)
        for tie, buffer in buffers.items():
            torch.save(make(arch=arch, tie=tie).state_dict(), buffer)
        assert buffers['both'].tell() < 0.56 * buffers['none'].tell()


LARGE = dict(patch_size=16, out_type='featmap', window_size=4, img_size=64)


class TestLargeInputs:
    @pytest.mark.parametrize('tie', ['both', 'attn', 'ffn', 'none'])
    @pytest.mark.parametrize('with_cls_token', [True, False])
    def test_a_window_that_covers_the_map_is_global_attention(self, tie, with_cls_token):
        cfg = dict(tie=tie, with_cls_token=with_cls_token, out_type='raw', out_indices=[0, 1, 2])
        cfg.update(layer_scale_init_value=0.1)
        ours, theirs = make(window_size=10, **cfg).eval(), make(**cfg).eval()
        for size in ((32, 32), (77, 33)):
            for a, b in zip(ours(images(size=size)), theirs(images(size=size)), strict=True):
                assert torch.equal(a, b)

    def test_all_layers_global_is_global_attention(self):
        ours = make(window_size=2, global_attn_layers=[0, 1, -1], out_type='raw')
        assert torch.equal(ours(images())[0], make(out_type='raw')(images())[0])

    @pytest.mark.parametrize('tie', ['both', 'attn', 'ffn', 'none'])
    def test_weights_of_a_classifier_are_loaded(self, tie, tmp_path):
        source = make(tie=tie)
        target = make(tie=tie, window_size=2, global_attn_layers=[1], out_type='featmap')
        assert [*target.state_dict()] == [*source.state_dict()]
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.add_(0.01)
        classifier = {f'backbone.{name}': value for name, value in source.state_dict().items()}
        torch.save(dict(state_dict=classifier), tmp_path / 'source.pth')
        load_checkpoint(target, str(tmp_path / 'source.pth'), strict=True, revise_keys=[(r'^backbone\.', '')])
        for name, value in target.state_dict().items():
            assert torch.equal(value, source.state_dict()[name]), name

    @pytest.mark.parametrize('size', [(800, 1333), (1333, 800), (101, 203), (5, 300)])
    @pytest.mark.parametrize('windows', [dict(), dict(window_size=14, global_attn_layers=(1,))])
    def test_strides_and_shapes(self, size, windows):
        model = make(patch_size=16, img_size=224, out_type='featmap', out_indices=[0, 2], **windows).eval()
        with torch.no_grad():
            for out in model(images(1, size)):
                assert out.shape == (1, 24, -(-size[0] // 16), -(-size[1] // 16))
                assert out.isfinite().all()

    @pytest.mark.parametrize('windows', [dict(), dict(window_size=3, global_attn_layers=(1,))])
    @pytest.mark.parametrize('tie', ['both', 'none'])
    def test_a_batch_gives_what_its_images_give(self, windows, tie):
        model = make(tie=tie, out_type='raw', **windows).eval()
        x = images(3, (41, 70))
        with torch.no_grad():
            torch.testing.assert_close(model(x)[0], torch.cat([model(image[None])[0] for image in x]))

    def reach(self, **cfg) -> list[torch.Tensor]:
        """For each layer: which patches a change of the first patch's pixels has changed."""
        model = make(**{**SMALL, 'out_type': 'featmap', 'out_indices': [0, 1, 2], 'window_size': 2, **cfg}).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        x = images(1, (40, 64))
        changed = x.clone()
        changed[:, :, 3, 5] += 10
        with torch.no_grad():
            return [(a != b).any(1)[0] for a, b in zip(model(x), model(changed), strict=True)]

    def test_windows_limit_attention(self):
        # 5 x 8 patches are cut into windows of 2 x 2.
        own = torch.zeros(5, 8, dtype=torch.bool)
        own[:2, :2] = True
        for tie in ('both', 'none'):
            for reached in self.reach(with_cls_token=False, tie=tie):
                assert torch.equal(reached, own)

    def test_a_global_layer_and_the_class_token_carry_further(self):
        first, second, third = self.reach(with_cls_token=False, global_attn_layers=[-2])
        assert first.sum() == 4
        assert second.all()
        assert third.all()
        first, second, third = self.reach()
        assert first.sum() == 4
        assert second.all()

    @pytest.mark.parametrize('with_cp', [False, *LEVELS])
    def test_equals_untied_counterpart(self, with_cp):
        windows = dict(window_size=3, global_attn_layers=(1,), out_type='raw', out_indices=[0, 1, 2])
        tied = make(**windows, with_cp=with_cp).double()
        for parameter in tied.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        untied = make(**windows, tie='none').double()
        untied.load_state_dict(untie_state_dict(tied.state_dict()), strict=True)
        x = images(2, (41, 54), torch.double)
        ours, theirs = tied(x), untied(x)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        weight = torch.randn_like(ours[-1])
        (ours[-1] * weight).sum().backward()
        (theirs[-1] * weight).sum().backward()
        assert_equal_gradients(gradients(tied), tie_gradients(gradients(untied)), 1e-10)

    def test_checkpointing_gives_the_same_gradients(self):
        grads = []
        for with_cp in (False, 'ffn', 'all_but_attn', True):
            model = make(with_cp=with_cp, drop_rate=0.1, drop_path_rate=0.3, **LARGE, global_attn_layers=(1,)).double()
            torch.manual_seed(3)
            model(images(2, (100, 180), torch.double))[0][:, :12].square().sum().backward()
            grads.append(gradients(model))
        assert grads[0].keys() == dict(model.named_parameters()).keys()
        for others in grads[1:]:
            assert_equal_gradients(others, grads[0], 1e-8)

    @pytest.mark.parametrize('tie', ['both', 'ffn', 'none'])
    def test_stochastic_depth_drops_whole_images(self, tie):
        model = make(
            arch={**TINY_ARCH, 'num_layers': 1},
            tie=tie,
            out_type='raw',
            final_norm=False,
            window_size=2,
            layer_cfgs=dict(drop_path_rate=0.5),
        )
        for parameter in model.layers[0].parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        for parameter in model.layers[0].ffn.parameters():
            torch.nn.init.zeros_(parameter)
        before = []
        model.layers[0].ln1.register_forward_pre_hook(lambda module, args: before.append(args[0]))
        x = images(32)
        with torch.no_grad():
            full = model.eval()(x)[0] - before[0]
            dropped = model.train()(x)[0] - before[1]
        kept = dropped.abs().amax((1, 2)) > 0
        assert 4 < kept.sum() < 28
        torch.testing.assert_close(dropped[kept], 2 * full[kept], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize('tie', ['both', 'none'])
    def test_stochastic_depth_of_windowed_layers_grows_linearly(self, tie):
        model = make(tie=tie, drop_path_rate=0.2, window_size=2, global_attn_layers=(1,))
        rates = [getattr(layer, 'drop_path', layer.attn.out_drop).drop_prob for layer in model.layers]
        assert rates == [0.0, 0.1, 0.2]

    @pytest.mark.parametrize('tie', ['both', 'none'])
    @pytest.mark.parametrize('with_cp', [False, 'ffn', True])
    def test_forward_hooks_of_layers_fire(self, tie, with_cp):
        model = make(tie=tie, with_cp=with_cp, out_type='raw', final_norm=False, window_size=2, out_indices=[0, 1, 2])
        outputs = []
        for layer in model.layers:
            layer.register_forward_hook(lambda module, args, output: outputs.append(output))
        for output, returned in zip(outputs, model(images()), strict=True):
            assert torch.equal(output, returned)

    @pytest.mark.parametrize(
        ('cfg', 'message'),
        [
            (dict(window_size=-1), r'window_size=-1 is not a number of patches; expected 0 \(no windows\)'),
            (dict(global_attn_layers=[1]), r'global_attn_layers=\(1,\) needs a window_size; it is 0'),
            (dict(window_size=2, global_attn_layers=(0, 3)), 'names layer 3, which is not a layer; expected 0 to 2'),
            (dict(window_size=2, global_attn_layers=(-4,)), 'names layer -4, which is not a layer; expected 0 to 2'),
        ],
    )
    def test_refusals(self, cfg, message):
        with pytest.raises(ValueError, match=message):
            HaLViT(**{**SMALL, **cfg})

    def test_export(self):
        model = make(out_type='featmap', window_size=3, global_attn_layers=(1,)).eval()
        batch = torch.export.Dim('batch', min=1, max=64)
        exported = torch.export.export(model, (images(2, (44, 52)),), dynamic_shapes=dict(x={0: batch}))
        x = images(5, (44, 52))
        torch.testing.assert_close(exported.module()(x)[0], model(x)[0])

    def test_compile(self):
        model = make(arch={**TINY_ARCH, 'num_layers': 1}, out_type='raw', window_size=3).eval()
        x = images(2, (44, 52))
        with torch.no_grad():
            expected = model(x)[0]
            # Inductor would take a minute.
            compiled = torch.compile(model, dynamic=False, fullgraph=True, backend='aot_eager')
            torch.testing.assert_close(compiled(x)[0], expected, rtol=1e-4, atol=1e-5)
