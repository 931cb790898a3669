# Mask R-CNN on handwritten digits for two CPU ranks. The backbone has learned to classify them before:
# halvit_2xb16_digits-single.py. Its untied counterpart: --cfg-options model.backbone.tie=none, in both.
_base_ = [
    '../_base_/models/mask-rcnn_digits.py',
    '../_base_/datasets/digits-coco.py',
    '../_base_/schedules/digits-coco_adamw_4e.py',
    '../_base_/coco_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        _scope_='mmdet',
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=64,
        patch_size=8,
        out_type='featmap',
        out_indices=(1, 3, 5),
        with_cls_token=False,
        final_norm=False,
    ),
    neck=[
        dict(_scope_='mmdet', type='halvit_mm.ViTPyramid', in_channels=96, in_stride=8, out_strides=(4, 8, 16)),
        dict(
            _scope_='mmdet',
            type='FPN',
            in_channels=[96] * 3,
            out_channels=64,
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=8),
        ),
    ],
)
optim_wrapper = dict(
    constructor='halvit_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.75, flat_decay_mult=0.0, custom_keys={'.pos_embed': dict(decay_mult=0.0)}),
)

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=2))
randomness = dict(seed=0)
