"""Errors a user can cause or cure.

    GlipLabelError
    ├── UsageError            bad arguments                       exit 2, HTTP 400
    │   └── LabelConfigError  labelling config that cannot serve  exit 2, HTTP 422
    ├── ImageError            an image that cannot be had         exit 1, fails its task alone
    │   └── FetchRefusedError forbidden address, host or path
    ├── BusyError             not done in the time there was      exit 1, HTTP 503
    ├── ModelError            weights that cannot be used         exit 1, HTTP 503
    ├── TrainingError         data that cannot teach a model      exit 1, HTTP 422
    ├── LeaseLostError        a job that another worker took over exit 1
    ├── StorageError          database or folder: cannot be used  exit 1, HTTP 503
    │   └── ValueRefusedError a value that it cannot hold         exit 1, HTTP 422
    ├── LabelStudioError      Label Studio away or refusing       exit 1, HTTP 502
    ├── HubError              of backend.hub: Hugging Face away   exit 1
    └── ServerStartError      of integrations.processes           exit 1

Each message is one line that names the thing (id, path, field) and the cure. The command line prints it without a
traceback; the web handler answers it with its status and a request id.
"""


class GlipLabelError(Exception):
    """Base of all our errors: ``status`` is the HTTP status, ``exit_code`` the command's."""

    status = 500
    exit_code = 1


class UsageError(GlipLabelError):
    """Arguments or a request that ask for something impossible."""

    status = 400
    exit_code = 2


class LabelConfigError(UsageError):
    """A labelling config without an image to look at or a control to fill."""

    status = 422


class ImageError(GlipLabelError):
    """An image that is missing, too large, or no image."""

    status = 422


class FetchRefusedError(ImageError):
    """An address, host or path that this service will not read."""


class BusyError(GlipLabelError):
    """Work that did not fit into the time there was; asking again goes on where it stopped."""

    status = 503


class ModelError(GlipLabelError):
    """Weights that are missing, damaged, or of another model."""

    status = 503


class TrainingError(GlipLabelError):
    """Data that are too few to learn from, or with which training fails."""

    status = 422


class LeaseLostError(GlipLabelError):
    """A job that another worker took over, since this one gave no sign of life."""

    def __init__(self, job: int) -> None:
        super().__init__(f"job {job} is another worker's by now: this one showed no life for too long")


class StorageError(GlipLabelError):
    """A database that is missing, read-only, or of another schema; a folder that cannot be written."""

    status = 503


class ValueRefusedError(StorageError):
    """A value that the database cannot hold; it goes on working with others."""

    status = 422


class LabelStudioError(GlipLabelError):
    """Label Studio is away, or refused what was asked."""

    status = 502
