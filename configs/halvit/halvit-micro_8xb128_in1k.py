_base_ = 'halvit-tiny_8xb128_in1k.py'

model = dict(backbone=dict(arch='micro'), head=dict(in_channels=192))
