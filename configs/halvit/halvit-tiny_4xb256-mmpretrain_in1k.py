# mmpretrain's own recipe of DeiT-S, which brings DeiT-S to 80.69 there, as it stands for HaLViT-Tiny: the default
# sampler, 20 epochs of warm-up, gradients clipped to a norm of 5, no stochastic depth. Its untied counterpart is
# configs/baselines/deit-small_4xb256_in1k.py. Not trained here.
_base_ = 'mmpretrain::deit/deit-small_4xb256_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True, _scope_='mmpretrain', type='halvit_mm.HaLViT', arch='tiny', img_size=224, patch_size=16
    )
)
runner_type = 'halvit_mm.ResumableRunner'
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
