from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from halvit_mm.errors import UserError
from halvit_mm.registry import HOOKS


@HOOKS.register_module()
class LabelHook(Hook):
    """Refuse to train a classifier with labels that are not classes of its head."""

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        classes = getattr(getattr(model, 'head', None), 'num_classes', None)
        dataset = runner.train_dataloader.dataset
        if classes is None or not hasattr(dataset, 'get_gt_labels'):
            return
        labels = dataset.get_gt_labels()
        outside = ((labels < 0) | (labels >= classes)).nonzero()[0]
        if len(outside):
            path = dataset.get_data_info(int(outside[0])).get('img_path', f'number {outside[0]}')
            raise UserError(
                f'train_dataloader: image {path} has the label {labels[outside[0]]}; the head has {classes} classes, '
                f'0 to {classes - 1}'
            )
