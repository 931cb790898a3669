_base_ = __import__('halvit_mm') and 'mmseg::_base_/default_runtime.py'

# halvit_mm's hooks stand beside upstream's: an entry of the same name replaces one, None leaves it out.
runner_type = 'halvit_mm.ResumableRunner'
default_hooks = dict(
    timer=dict(_scope_='mmseg', type='IterTimerHook'),
    logger=dict(_scope_='mmseg', type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(_scope_='mmseg', type='ParamSchedulerHook'),
    checkpoint=dict(
        _scope_='mmseg', type='halvit_mm.WholeCheckpointHook', by_epoch=False, interval=16000, max_keep_ckpts=3
    ),
    sampler_seed=dict(_scope_='mmseg', type='DistSamplerSeedHook'),
    visualization=dict(_scope_='mmseg', type='SegVisualizationHook'),
    seeds=dict(_scope_='mmseg', type='halvit_mm.IterationSeedHook'),
    labels=dict(_scope_='mmseg', type='halvit_mm.LabelHook'),
    history=dict(_scope_='mmseg', type='halvit_mm.LogHistoryHook'),
    finite=dict(_scope_='mmseg', type='halvit_mm.FiniteStepHook'),
    bad_images=dict(_scope_='mmseg', type='halvit_mm.BadImageHook'),
    hang=dict(_scope_='mmseg', type='halvit_mm.HangHook'),
    result=dict(_scope_='mmseg', type='halvit_mm.ResultHook'),
)
custom_hooks = [dict(_scope_='mmseg', type='halvit_mm.PretrainedBackboneHook')]
