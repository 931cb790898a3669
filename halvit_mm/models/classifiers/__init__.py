from .distilled import DistilledClassifier

__all__ = ['DistilledClassifier']
