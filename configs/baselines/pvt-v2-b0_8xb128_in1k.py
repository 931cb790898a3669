_base_ = 'pvt-v2-b1_8xb128_in1k.py'

model = dict(backbone=dict(embed_dims=32), head=dict(in_channels=256))
