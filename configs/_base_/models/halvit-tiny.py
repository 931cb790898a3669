# The scope is said, because by 'halvit_mm::' mmengine would look for the host's types among ours.
model = dict(
    _scope_='mmpretrain',
    type='ImageClassifier',
    backbone=dict(type='halvit_mm.HaLViT', arch='tiny', img_size=224, patch_size=16, drop_path_rate=0.1),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
    # The tied matrices are no nn.Linear and start by themselves, Xavier uniform.
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
