"""Every error that distprune raises on purpose.

DistpruneError
├── InputError              the user can fix it; the command line exits with 2
│   ├── ConfigError         a value of a file, a flag or an argument
│   │   └── ClusterError    a Ray cluster that refuses this machine, or that would fail a study
│   ├── DatasetError        a dataset, a column, a label, a split
│   ├── CheckpointError     a model or tokenizer that cannot be read or does not fit
│   │   └── UnsupportedModelError   a model family without anatomy
│   ├── MaskError           a mask file or a mask that does not fit its model
│   ├── StorageError        a folder that cannot be written, a full disk
│   └── StudyExistsError    a study of this name holds another configuration
├── DivergedTrialError      a metric or a loss that is not finite
├── StageError              a stage of a trial failed
├── ExportError             a model that was written does not compute what it should
└── StudyFailedError        the study ran and has no result; the command line exits with 1

Messages are one line: name, value, rule, what to do.
"""


class DistpruneError(Exception):
    """Root of all errors that distprune raises on purpose."""


class InputError(DistpruneError, ValueError):
    """An input that the user can correct."""


class ConfigError(InputError):
    """A value in a study file, a flag or an argument that breaks a rule."""


class ClusterError(ConfigError):
    """A Ray cluster that cannot be reached, or on which a study would fail."""


class DatasetError(InputError):
    """A dataset, column, label or split that cannot be used."""


class CheckpointError(InputError):
    """A checkpoint or tokenizer that cannot be read, or that does not fit its use."""


class UnsupportedModelError(CheckpointError):
    """A model family of which distprune has no anatomy."""


class MaskError(InputError):
    """A mask file that cannot be read, or a mask that does not fit its model."""


class StorageError(InputError):
    """A storage location that cannot be read or written."""


class StudyExistsError(InputError):
    """A study of this name exists and holds another configuration."""


class DivergedTrialError(DistpruneError, ArithmeticError):
    """A metric or loss of a trial is not finite."""


class StageError(DistpruneError, RuntimeError):
    """A stage of a trial failed; the message carries its cause."""


class LostInputError(StageError):
    """What a stage reads is not in the store any more; whoever made it can make it again."""


class StudyFailedError(DistpruneError, RuntimeError):
    """A study ended without a result that can be used."""


class ExportError(DistpruneError, RuntimeError):
    """A model that was written does not compute what it should; nothing was left behind."""
