"""A training of timm's, by the parts that its train.py is made of, for ``python -m halvit_mm.timm``: DATA OUT."""

import sys

import timm
import torch
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import CheckpointSaver, ModelEmaV3, accuracy

data, out = sys.argv[1:]
model = timm.create_model('halvit_micro_patch16_224', img_size=32, patch_size=8, depth=2, num_classes=2)
config = timm.data.resolve_data_config(dict(img_size=32, crop_pct=1.0), model=model)
loader = timm.data.create_loader(
    timm.data.create_dataset('', data, split='train'),
    config['input_size'],
    batch_size=8,
    is_training=True,
    mean=config['mean'],
    std=config['std'],
    num_workers=0,
    use_prefetcher=False,
    device=torch.device('cpu'),
)
optimizer = create_optimizer_v2(model, 'adamw', lr=1e-3, weight_decay=0.05, layer_decay=0.9)
scheduler, epochs = create_scheduler_v2(optimizer, 'cosine', num_epochs=2, warmup_epochs=1)
average = ModelEmaV3(model, decay=0.9)
saver = CheckpointSaver(model, optimizer, model_ema=average, checkpoint_dir=out, recovery_dir=out)
for epoch in range(2):
    for images, labels in loader:
        loss = LabelSmoothingCrossEntropy()(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
    scheduler.step(epoch + 1)
    saver.save_checkpoint(epoch, accuracy(average.module.eval()(images), labels)[0].item())
again = timm.create_model('halvit_micro_patch16_224', img_size=32, patch_size=8, depth=2, num_classes=2)
timm.models.load_checkpoint(again, f'{out}/last.pth.tar', use_ema=False)
assert torch.equal(again.eval()(images), model.eval()(images))
theirs = [name for name in sys.modules if name.startswith(('mmcv', 'mmengine', 'mmpretrain'))]
print(f'epochs {epochs}, loss {loss.item():.2f}, OpenMMLab {theirs}')
