"""One error class per fault. Each message is one line that says what is wrong, where, and what to do."""


def printable(text: str) -> str:
    """The text on one line, with characters that a terminal would obey shown by their number."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class MpqError(Exception):
    """A fault that the user can mend. The command line prints it without a traceback and exits with 2."""


class FileFormatError(MpqError):
    """A `.mpqy` file that breaks a rule of docs/format.md."""


class DataError(MpqError):
    """A data set, label or photo that cannot be used; the message starts with `file:line:` where there is a line."""


class ImageError(DataError):
    """A photo that cannot be read."""


class CheckpointError(MpqError):
    """A checkpoint or weight file that cannot be read, or does not fit the model."""


class ConfigError(MpqError):
    """A recipe, option or policy that makes no sense."""


class TrainingError(MpqError):
    """Training that cannot go on (NaN, a dead layer); the message names the layer."""


class InterruptError(TrainingError):
    """Training that was told to stop, and can go on."""


class PackError(MpqError):
    """A model that cannot be lowered to integers, or whose proof fails."""


class EngineError(MpqError):
    """The native engine is missing, or refused a call."""
