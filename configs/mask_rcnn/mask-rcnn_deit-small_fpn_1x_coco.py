_base_ = 'mask-rcnn_halvit-tiny_fpn_1x_coco.py'

model = dict(backbone=dict(tie='none'))
