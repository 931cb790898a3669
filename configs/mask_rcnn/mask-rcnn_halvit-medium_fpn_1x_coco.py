_base_ = 'mask-rcnn_halvit-tiny_fpn_1x_coco.py'

model = dict(
    backbone=dict(arch='medium'),
    neck=[
        dict(_scope_='mmdet', type='halvit_mm.ViTPyramid', in_channels=768),
        dict(_scope_='mmdet', type='FPN', in_channels=[768] * 4, out_channels=256, num_outs=5),
    ],
)
