"""Which version this is: apart from the package's door, which rooms do not import."""

__version__ = "0.1.0"
