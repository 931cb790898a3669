# A narrow ResNet50-PE1 for two CPU ranks. Its untied counterpart: --cfg-options 'model.backbone.shared_stages=()'
_base_ = [
    '../_base_/datasets/digits_bs64_32.py',
    '../_base_/schedules/digits_sgd_30e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    # On 32 pixels the last of the usual strides would leave a map of one pixel.
    backbone=dict(
        type='halvit_mm.SharedStageResNet',
        depth=50,
        stem_channels=16,
        base_channels=16,
        strides=(1, 2, 2, 1),
        shared_stages=(0, 1, 2, 3),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead', num_classes=10, in_channels=512, loss=dict(type='CrossEntropyLoss', loss_weight=1.0)
    ),
)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=10))
randomness = dict(seed=0)
