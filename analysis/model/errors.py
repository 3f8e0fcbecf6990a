"""Errors that a user can act on.

UserError            one line on stderr, exit code 2; everything else is our defect and a traceback
├── ConfigError      wattbench.errors: a hosts or experiment file
├── HostError        wattbench.errors: a worker host (unreachable, refused, not fit)
├── StoreError       wattbench.errors: the object store
├── RegistryError    wattbench.errors: an image registry
└── InputError       a campaign, run or file that can't be read
"""

from __future__ import annotations

import errno


class UserError(Exception):
    """Something a user can correct: the message names the thing, the place and the next action."""


class InputError(UserError):
    """A campaign, run or file that can't be used."""


#: Package → the extra of wattbench that installs it.
_EXTRAS = {
    "boto3": "s3",
    "botocore": "s3",
    "airflow": "airflow",
    "docker": "airflow",
    "paramiko": "airflow",
}


def missing_package(error: ModuleNotFoundError) -> str:
    """The extra to install for a package that is absent, as one line for the user.

    Raises:
        ModuleNotFoundError: the package belongs to no extra, so its absence is our defect.
    """
    package = (error.name or "").partition(".")[0]
    if package not in _EXTRAS:
        raise error
    return f"{package} is not installed; pip install 'wattbench[{_EXTRAS[package]}]'"


#: What the system refused → the next action.
_REFUSALS = {
    errno.ENOSPC: "free space on its disk, then call this again",
    errno.EDQUOT: "free space within your quota, then call this again",
    errno.EROFS: "its disk is read-only; choose a folder elsewhere",
    errno.EACCES: "correct its owner and permissions, or call this as its owner",
    errno.EPERM: "correct its owner and permissions, or call this as its owner",
    errno.ENOTDIR: "a file is in the place of a folder; move it away",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
}


def refused_by_system(error: OSError) -> str:
    """A refusal of the operating system with place and next action, as one line for the user.

    Raises:
        OSError: it is of another kind, so that it was not dealt with is our defect.
    """
    if error.errno not in _REFUSALS:
        raise error
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror}; {_REFUSALS[error.errno]}"
