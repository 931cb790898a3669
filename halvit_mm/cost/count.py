from torch import nn


def count_parameters(model: nn.Module, without_head: bool = False) -> int:
    """Count the numbers that a model learns.

    Args:
        model (nn.Module): A model; a parameter that it holds under several names is counted once.
        without_head (bool): Whether what is reached through ``model.head`` alone is left out, as the papers
            count. Defaults to False.

    Returns:
        int: The number of scalars.
    """
    parameters = {id(parameter): parameter for parameter in model.parameters()}
    if without_head:
        body = {id(p) for name, p in model.named_parameters(remove_duplicate=False) if not name.startswith('head.')}
        parameters = {key: parameter for key, parameter in parameters.items() if key in body}
    return sum(parameter.numel() for parameter in parameters.values())
