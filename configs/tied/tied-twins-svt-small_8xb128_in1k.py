# Twins-SVT-S with tied attention and feed-forward networks. Not trained here.
_base_ = 'mmpretrain::twins/twins-svt-small_8xb128_in1k.py'

model = dict(backbone=dict(type='halvit_mm.TiedModel', of='SVT'))
