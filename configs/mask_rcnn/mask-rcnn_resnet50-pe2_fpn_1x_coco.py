_base_ = 'mask-rcnn_resnet50-pe1_fpn_1x_coco.py'

model = dict(backbone=dict(shared_stages=(2, 3)))
