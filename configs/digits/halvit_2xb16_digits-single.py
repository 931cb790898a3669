# The backbone of mask-rcnn_halvit_digits-coco.py learns to classify digits first.
_base_ = [
    '../_base_/datasets/digits-single_bs16_64.py',
    '../_base_/schedules/digits_adamw_100e.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=1e-3))
model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(
        type='halvit_mm.HaLViT',
        arch=dict(embed_dims=96, num_layers=6, num_heads=3, feedforward_channels=384),
        img_size=64,
        patch_size=8,
        out_type='avg_featmap',
        with_cls_token=False,
    ),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=96, loss=dict(type='CrossEntropyLoss')),
)

train_cfg = dict(max_epochs=6, val_interval=3)
param_scheduler = [
    dict(_scope_='mmpretrain', type='LinearLR', start_factor=1e-2, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(
        _scope_='mmpretrain', type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, convert_to_iter_based=True
    ),
]
default_hooks = dict(logger=dict(interval=30), checkpoint=dict(interval=3))
randomness = dict(seed=0)
