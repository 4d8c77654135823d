//! Files that are written while a run goes on: their owner's alone, and never where a symbolic link leads.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes a file, or empties the one that is there.
///
/// # Errors
///
/// The system's; for a symbolic link that is `ELOOP`, for a FIFO that nobody reads `ENXIO`.
pub(super) fn create(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        // A FIFO is not waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_private_and_not_made_where_a_link_leads() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        fs::write(&path, "old").unwrap();
        symlink(&path, &link).unwrap();
        create(&link).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        create(Path::new("/dev/null")).unwrap();
    }
}
