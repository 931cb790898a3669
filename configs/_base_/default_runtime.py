_base_ = 'mmpretrain::_base_/default_runtime.py'

# halvit_mm's hooks stand beside upstream's: an entry of the same name replaces one, None leaves it out.
runner_type = 'halvit_mm.ResumableRunner'
default_hooks = dict(
    checkpoint=dict(_scope_='mmpretrain', type='halvit_mm.WholeCheckpointHook', max_keep_ckpts=3),
    seeds=dict(_scope_='mmpretrain', type='halvit_mm.IterationSeedHook'),
    labels=dict(_scope_='mmpretrain', type='halvit_mm.LabelHook'),
    history=dict(_scope_='mmpretrain', type='halvit_mm.LogHistoryHook'),
    finite=dict(_scope_='mmpretrain', type='halvit_mm.FiniteStepHook'),
    bad_images=dict(_scope_='mmpretrain', type='halvit_mm.BadImageHook'),
    hang=dict(_scope_='mmpretrain', type='halvit_mm.HangHook'),
    result=dict(_scope_='mmpretrain', type='halvit_mm.ResultHook'),
)
# Without the base's `_scope_`, which mmpretrain's browse_dataset.py would hand to the visualizer
visualizer = dict(_delete_=True, type='mmpretrain.UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
