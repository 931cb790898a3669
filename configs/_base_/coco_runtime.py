_base_ = 'mmdet::_base_/default_runtime.py'

# halvit_mm's hooks stand beside upstream's: an entry of the same name replaces one, None leaves it out.
runner_type = 'halvit_mm.ResumableRunner'
default_hooks = dict(
    checkpoint=dict(_scope_='mmdet', type='halvit_mm.WholeCheckpointHook', max_keep_ckpts=3),
    seeds=dict(_scope_='mmdet', type='halvit_mm.IterationSeedHook'),
    labels=dict(_scope_='mmdet', type='halvit_mm.LabelHook'),
    history=dict(_scope_='mmdet', type='halvit_mm.LogHistoryHook'),
    finite=dict(_scope_='mmdet', type='halvit_mm.FiniteStepHook'),
    bad_images=dict(_scope_='mmdet', type='halvit_mm.BadImageHook'),
    hang=dict(_scope_='mmdet', type='halvit_mm.HangHook'),
    num_classes=dict(_scope_='mmdet', type='NumClassCheckHook'),
    result=dict(_scope_='mmdet', type='halvit_mm.ResultHook'),
)
custom_hooks = [dict(_scope_='mmdet', type='halvit_mm.PretrainedBackboneHook')]
