# Swin-T whose window attentions and feed-forward networks have one matrix on the way in and out. Not trained here.
_base_ = 'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py'

model = dict(backbone=dict(type='halvit_mm.TiedModel', of='SwinTransformer'))
