"""What can go wrong, as one tree. Every message is one line: what, which value, what is valid, what to do.

    EdgeGANError (Exception)
    ├── ArgumentError (also a ValueError)      an argument outside its range
    │   └── SizeError (also an OverflowError)  sizes whose product is more than one call can hold
    ├── ModelError                             a model file that cannot be used
    ├── DeviceError                            a provider that is not there or does not load
    ├── DataError                              a training set, or a picture of it, that cannot be read
    ├── RunError                               a training run's folder that cannot be used
    ├── ExportError                            a run that cannot become a model file
    ├── BackendError (also an ImportError)     the C core is there but does not load
    └── MissingExtraError (also an ImportError)  a package that is not installed; the message has the pip line

The operating system's own errors (a full disk, a folder without permission) stay OSError.
"""


class EdgeGANError(Exception):
    """Base of every error that edgegan raises on purpose."""


class ArgumentError(EdgeGANError, ValueError):
    """An argument outside its range or of the wrong type."""


class SizeError(ArgumentError, OverflowError):
    """Sizes that multiply to more than one call, or an address, can hold; raised before any memory is touched."""


class ModelError(EdgeGANError):
    """A model file that is missing, is not a model, or breaks the model file's contract."""


class DeviceError(EdgeGANError):
    """An execution provider that was asked for and is not there, or does not load."""


class DataError(EdgeGANError):
    """A data set, or one named picture of it, that cannot be read."""


class RunError(EdgeGANError):
    """A training run's folder that is missing, damaged or of another kind."""


class ExportError(EdgeGANError):
    """A run that cannot be exported, or an export that did not match its network."""


class BackendError(EdgeGANError, ImportError):
    """The C core is installed but does not load, for another processor or Python, say."""


class MissingExtraError(EdgeGANError, ImportError):
    """A package of an optional extra is not installed."""

    @classmethod
    def of(cls, purpose: str, module: str, extra: str) -> "MissingExtraError":
        """The error for `module`, which `purpose` needs and `extra` brings.

        >>> print(MissingExtraError.of("sampling", "onnxruntime", "cpu"))
        sampling needs onnxruntime, which is not installed: run  pip install 'edgegan[cpu]'
        """
        line = f"{purpose} needs {module}, which is not installed: run  pip install 'edgegan[{extra}]'"
        return cls(line, name=module)


class EdgeGANWarning(UserWarning):
    """Something that went another way than expected and does not stop the work; commands show it on one line."""


def printable(text: object) -> str:
    """`text` on one line, safe for a terminal: what does not print (controls, newlines) is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def one_line(error: Exception) -> str:
    """The text of another library's error, on one line of bounded length."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
