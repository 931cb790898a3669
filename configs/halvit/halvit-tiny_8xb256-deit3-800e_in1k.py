_base_ = 'halvit-tiny_8xb256-deit3-400e_in1k.py'

train_cfg = dict(max_epochs=800)
