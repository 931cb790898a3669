"""Bytes of a model in a file, between ranks, and in the memory of a training."""

from collections.abc import Iterable

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch import distributed as dist
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.parallel import DistributedDataParallel

from .samples import ground_truth


class _Counter:
    """A file that counts the bytes written to it and discards them."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: bytes) -> int:
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass


def weight_file_bytes(model: nn.Module) -> int:
    """Bytes of the file that ``torch.save`` makes of a model's state dict, with names, shapes and padding."""
    file = _Counter()
    torch.save(model.state_dict(), file)
    return file.size


def training_bytes(
    model: nn.Module, images: Tensor, optim_wrapper: OptimWrapper, find_unused_parameters: bool = False
) -> tuple[int, int]:
    """Do one training step under DDP, as its only rank, and count what the step sends and keeps.

    Args:
        model (nn.Module): A classifier, a detector or a segmentor; the step changes it.
        images (Tensor): Shape (B, C, H, W).
        optim_wrapper (OptimWrapper): Over the model's parameters.
        find_unused_parameters (bool): DDP's option, which a config may set. Defaults to False.

    Returns:
        tuple[int, int]: Bytes in the buckets of gradients that a rank sends in a step; bytes of the parameters, their
        gradients and the optimizer's state after the step.
    """
    sent = []

    def keep_size(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        sent.append(bucket.buffer().nbytes)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    model.train()
    dist.init_process_group('nccl' if images.is_cuda else 'gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        replica = DistributedDataParallel(model, find_unused_parameters=find_unused_parameters)
        replica.register_comm_hook(None, keep_size)
        loss, _ = model.parse_losses(replica(images, ground_truth(model, images), mode='loss'))
        optim_wrapper.backward(optim_wrapper.scale_loss(loss))
        optim_wrapper.step()
    finally:
        dist.destroy_process_group()
    weights = [*model.parameters()]
    gradients = [parameter.grad for parameter in weights if parameter.grad is not None]
    moments = [
        value for state in optim_wrapper.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    ]
    return sum(sent), storage_bytes([*weights, *gradients, *moments])


def activation_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that a training step keeps for its backward pass, without parameters and buffers.

    Args:
        model (nn.Module): A classifier, a detector or a segmentor.
        images (Tensor): Shape (B, C, H, W).
    """
    model.train()
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        # The losses keep the tensors alive, so that no address is used twice.
        losses = model(images, ground_truth(model, images), mode='loss')
    del losses
    return sum(kept.values())


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes behind tensors; a storage that several tensors view counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
