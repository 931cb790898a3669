_base_ = 'halvit-tiny_8xb128_in1k.py'

optim_wrapper = dict(_scope_='mmpretrain', type='AmpOptimWrapper', loss_scale='dynamic')
