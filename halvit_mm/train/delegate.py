class Delegate:
    """Base of a wrapper that forwards ``len`` and missing attributes to its attribute named ``delegate``."""

    delegate: str

    def __len__(self) -> int:
        return len(getattr(self, self.delegate))

    def __getattr__(self, name: str):
        # copy and pickle ask a new object for attributes before it has any.
        if name == self.delegate:
            raise AttributeError(name)
        return getattr(getattr(self, self.delegate), name)
