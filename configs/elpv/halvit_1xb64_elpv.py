# A small HaLViT on photographs of solar cells, for research/study_elpv.py. Its untied counterpart: --cfg-options
# model.backbone.tie=none
_base_ = [
    '../_base_/datasets/elpv_bs64_96.py',
    '../_base_/schedules/elpv_adamw_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=96,
        patch_size=12,
        tie='both',
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=2,
        in_channels=96,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02)],
)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=40))
randomness = dict(seed=0)
