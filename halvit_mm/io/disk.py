"""What is written, confirmed by the disk."""

import errno
import os

# What file systems and systems answer that cannot do it for a folder: FUSE, network shares, Windows
UNSUPPORTED = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.EBADF, errno.EISDIR, errno.EACCES, errno.EPERM),
}


def sync_folder(folder: str | os.PathLike) -> None:
    """Wait until the names in a folder are on the disk, where the file system can tell.

    Raises:
        OSError: If the disk fails, such as a full one.
    """
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
