# With half of the epochs; the authors' command for ViT-B is of 800 epochs, and nothing else is changed.
_base_ = 'halvit-medium_8xb256-deit3-800e-192px_in1k.py'

train_cfg = dict(max_epochs=400)
