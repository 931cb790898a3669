_base_ = __import__('halvit_mm') and 'mmseg::_base_/datasets/ade20k.py'

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(batch_size=2, num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
