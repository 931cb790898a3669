# PVTv2 (arXiv 2106.13797)
_base_ = 'pvt-t_8xb128_in1k.py'

model = dict(backbone=dict(type='mmdet.PyramidVisionTransformerV2', embed_dims=64))
