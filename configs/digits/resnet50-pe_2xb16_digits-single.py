# The backbone of mask-rcnn_resnet50-pe_digits-coco.py learns to classify digits first.
_base_ = 'halvit_2xb16_digits-single.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='halvit_mm.SharedStageResNet',
        depth=50,
        stem_channels=16,
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        shared_stages=(0, 1, 2),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=256),
)
train_cfg = dict(max_epochs=4, val_interval=2)
default_hooks = dict(checkpoint=dict(interval=2))
