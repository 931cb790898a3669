_base_ = 'mask-rcnn_resnet50-pe2_fpn_1x_coco.py'

model = dict(backbone=dict(depth=101, groups=32, width_per_group=8))
