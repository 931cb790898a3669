# As halvit-tiny_8xb128-30e-from-deit, from the untied DeiT-S to the tied model in the first half. Not trained here.
_base_ = 'halvit-tiny_8xb128-30e-from-deit_in1k.py'

model = dict(backbone=dict(annealed=True))
custom_hooks = [dict(_scope_='mmpretrain', type='halvit_mm.AnnealTyingHook', end=0.5)]
