_base_ = 'halvit-tiny_8xb128-plain-90e_in1k.py'

model = dict(backbone=dict(arch='medium'), head=dict(in_channels=768))
