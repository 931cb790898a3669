class Delegate:
    """Base of a wrapper: its length, and what attributes it does not have, are those of the object that it wraps.

    Attributes:
        delegate (str): Name of the attribute that holds the object.
    """

    delegate: str

    def __len__(self) -> int:
        return len(getattr(self, self.delegate))

    def __getattr__(self, name: str):
        # A copy is asked for attributes before it has any.
        if name == self.delegate:
            raise AttributeError(name)
        return getattr(getattr(self, self.delegate), name)
