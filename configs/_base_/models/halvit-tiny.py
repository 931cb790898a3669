# With a scope: under 'halvit_mm::' mmengine would look for mmpretrain's types in our registries.
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
    # Not for the tied matrices, which are not nn.Linear and start Xavier uniform.
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
