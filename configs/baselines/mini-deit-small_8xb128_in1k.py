# Mini-DeiT-S (MiniViT, CVPR 2022, arXiv 2204.07154) with its own recipe: DeiT's, with the soft labels of a RegNetY-16GF
# instead of the true labels and without stochastic depth. Mean of the normalized patches, one linear layer.
_base_ = '../halvit/halvit-tiny_8xb128-distilled_in1k.py'

model = dict(
    backbone=dict(_delete_=True, type='halvit_mm.MiniDeiT', arch='deit-small', img_size=224, patch_size=16),
    neck=dict(_delete_=True, type='GlobalAveragePooling'),
    head=dict(
        _delete_=True,
        type='LinearClsHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
