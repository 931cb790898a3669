_base_ = 'mmdet::_base_/datasets/coco_detection.py'

# As many as a GPU has cores
workers = __import__('halvit_mm').loader_workers()
train_dataloader = dict(num_workers=workers)
val_dataloader = dict(num_workers=workers)
test_dataloader = dict(num_workers=workers)
