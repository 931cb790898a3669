# A narrow ResNet50-PE1 on photographs of solar cells, for research/study_elpv.py. Its untied counterpart: --cfg-options
# 'model.backbone.shared_stages=()'
_base_ = [
    '../_base_/datasets/elpv_bs64_96.py',
    '../_base_/schedules/elpv_adamw_40e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(
        type='halvit_mm.SharedStageResNet',
        depth=50,
        stem_channels=16,
        base_channels=16,
        shared_stages=(0, 1, 2, 3),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=2,
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=40))
randomness = dict(seed=0)
