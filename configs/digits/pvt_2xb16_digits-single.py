# The backbone of mask-rcnn_pvt_digits-coco.py learns to classify digits first.
_base_ = 'halvit_2xb16_digits-single.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmdet.PyramidVisionTransformer',
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
        out_indices=(2,),
    ),
    neck=dict(type='halvit_mm.GlobalAveragePooling'),
    head=dict(in_channels=128),
)
