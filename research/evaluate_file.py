"""Print COCO's average precisions of a detector and of its file, which tools/export.py --boxes has written.

Both see the test images of the config. The file takes images of its own size: smaller ones are padded by zeros at the
right and at the bottom. Since zeros count in a detector that attends to the whole image, the model is evaluated on the
padded images as well.
"""

import argparse
import logging
import warnings

import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor

from halvit_mm.cost.report import markdown_table
from halvit_mm.deploy.session import create_session
from halvit_mm.errors import UserError, errors_in_one_line
from halvit_mm.io.build import load_model
from halvit_mm.io.configs import load_config


def pad(images: Tensor, size: tuple[int, int]) -> Tensor:
    right, below = size[1] - images.shape[3], size[0] - images.shape[2]
    if min(right, below) < 0:
        raise UserError(
            f'the file takes {size[0]} x {size[1]} pixels, and an image has {images.shape[2]} x {images.shape[3]}; '
            'expected a file that was exported with a larger --shape'
        )
    return F.pad(images, (0, right, 0, below))


def detections_of_file(session, images: Tensor, meta: dict) -> InstanceData:
    """What a file finds in one normalized image, shape (1, C, H, W), in pixels of the image as it was read."""
    boxes, scores, labels, *masks = map(torch.from_numpy, session.run(None, {'images': images.numpy()}))
    boxes = boxes / torch.tensor(meta['scale_factor'] * 2)
    found = InstanceData(bboxes=boxes, scores=scores, labels=labels)
    if masks:
        found.masks = _do_paste_mask(masks[0][:, None], boxes, *meta['ori_shape'][:2], skip_empty=False)[0] > 0.5
    return found


def evaluate(cfg: Config, checkpoint: str, path: str) -> dict[str, dict[str, float]]:
    """Average precisions by name, of ``'model'``, ``'model, padded images'`` and ``'file'``."""
    init_default_scope(cfg.default_scope)
    model, session = load_model(cfg, checkpoint).eval(), create_session(path)
    loader = dict(cfg.test_dataloader, batch_size=1, num_workers=0, persistent_workers=False)
    loader = Runner.build_dataloader(loader)
    metrics = {}
    size = tuple(session.get_inputs()[0].shape[2:])
    for name in ('model', 'model, padded images', 'file'):
        evaluator = Evaluator(cfg.test_evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        with torch.no_grad():
            for batch in loader:
                data = model.data_preprocessor(batch)
                [sample] = data['data_samples']
                images = data['inputs'] if name == 'model' else pad(data['inputs'], size)
                if name == 'file':
                    sample.pred_instances = detections_of_file(session, images, sample.metainfo)
                else:
                    sample.set_metainfo(
                        dict(img_shape=tuple(images.shape[2:]), batch_input_shape=tuple(images.shape[2:]))
                    )
                    [sample] = model.predict(images, [sample])
                evaluator.process([sample], batch)
        metrics[name] = evaluator.evaluate(len(loader.dataset))
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('file', help='its ONNX file')
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    with errors_in_one_line():
        metrics = evaluate(load_config(args.config), args.checkpoint, args.file)
    names = [name for name in metrics['model'] if name.endswith('mAP')]
    rows = [[source, *(f'{values[name]:.3f}' for name in names)] for source, values in metrics.items()]
    print(markdown_table(['', *names], rows))


if __name__ == '__main__':
    main()
