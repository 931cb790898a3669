# A small HaLViT on Fashion-MNIST, for research/study_fashion.py. Its untied counterpart: --cfg-options
# model.backbone.tie=none
_base_ = [
    '../_base_/datasets/fashion_bs128_28.py',
    '../_base_/schedules/fashion_adamw_6e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=28,
        patch_size=7,
        in_channels=1,
        tie='both',
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=96,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02)],
)

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=6))
randomness = dict(seed=0)
