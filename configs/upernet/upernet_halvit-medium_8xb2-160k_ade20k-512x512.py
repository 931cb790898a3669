_base_ = 'upernet_halvit-tiny_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='medium'),
    neck=dict(in_channels=768),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768),
)
