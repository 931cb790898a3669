# A narrow ResNet50-PE1 on Fashion-MNIST, for research/study_fashion.py. Its untied counterpart: --cfg-options
# 'model.backbone.shared_stages=()'
_base_ = [
    '../_base_/datasets/fashion_bs128_28.py',
    '../_base_/schedules/fashion_adamw_6e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    # On 28 pixels the last of the usual strides would leave a map of one pixel.
    backbone=dict(
        type='halvit_mm.SharedStageResNet',
        depth=50,
        in_channels=1,
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2, 1),
        shared_stages=(0, 1, 2, 3),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=6))
randomness = dict(seed=0)
