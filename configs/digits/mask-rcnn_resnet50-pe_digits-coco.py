# As mask-rcnn_halvit_digits-coco.py. The backbone's classifier: resnet50-pe_2xb16_digits-single.py. The plain form:
# --cfg-options 'model.backbone.shared_stages=()', in both.
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
        type='halvit_mm.SharedStageResNet',
        depth=50,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        shared_stages=(0, 1, 2),
        norm_eval=True,
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=64, num_outs=3, norm_cfg=dict(type='GN', num_groups=8)),
)

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=2))
randomness = dict(seed=0)
