# DETR whose encoder has tied attention and feed-forward networks. Not trained here.
_base_ = 'mmdet::detr/detr_r50_8xb2-150e_coco.py'

model = dict(type='halvit_mm.TiedModel', of='DETR', tie=dict(within='encoder'))
