# A small PVT beside mask-rcnn_halvit_digits-coco.py. The backbone's classifier: pvt_2xb16_digits-single.py.
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
        type='PyramidVisionTransformer',
        pretrain_img_size=64,
        embed_dims=32,
        num_stages=3,
        num_layers=[2, 2, 2],
        num_heads=[1, 2, 4],
        patch_sizes=[4, 2, 2],
        strides=[4, 2, 2],
        paddings=[0, 0, 0],
        sr_ratios=[4, 2, 1],
        mlp_ratios=[4, 4, 4],
        out_indices=(0, 1, 2),
    ),
    neck=dict(in_channels=[32, 64, 128], out_channels=64, num_outs=3, norm_cfg=dict(type='GN', num_groups=8)),
)

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=2))
randomness = dict(seed=0)
