//! A file that is to be written at the end of a long run: whether it can be is found out at the beginning, and until it
//! is whole nothing stands under its name.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::console;
use crate::fail::Failure;

/// A place for a result, reserved by a temporary file beside it. Dropped unwritten, it leaves nothing.
#[derive(Debug)]
pub(crate) struct OutputFile {
    /// As it was named.
    name: PathBuf,
    /// What is written: behind a symbolic link, the file that it leads to.
    path: PathBuf,
    file: NamedTempFile,
}

impl OutputFile {
    /// Reserves `name`, which may be that of a regular file: that one is replaced in the end.
    fn reserve(name: &Path) -> io::Result<OutputFile> {
        let path = match fs::canonicalize(name) {
            Ok(path) if path.is_file() => path,
            Ok(_) => return Err(io::Error::other("it exists and is not a regular file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => name.to_owned(),
            Err(error) => return Err(error),
        };
        if path.file_name().is_none() {
            return Err(io::Error::other("it names no file"));
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".mapfall-")
            .suffix(".part")
            // As any new file: the process's umask is taken off.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)?;
        Ok(OutputFile { name: name.to_owned(), path, file })
    }

    /// As [`OutputFile::reserve`], for the value of an option.
    pub(crate) fn reserve_for(option: &str, name: &Path) -> Result<OutputFile, Failure> {
        let refused = |error| Failure::usage(format!("{option}: {} cannot be written: {error}", name.display()));
        OutputFile::reserve(name).map_err(refused)
    }

    /// Writes it, and tells the user.
    pub(crate) fn write_and_say(self, text: &str) -> Result<(), Failure> {
        let name = self.name.display().to_string();
        self.write(text).map_err(|error| Failure::while_running(format!("cannot write {name}: {error}")))?;
        console::say(&format!("wrote {name}"));
        Ok(())
    }

    /// Writes it, whole or not at all.
    fn write(mut self, text: &str) -> io::Result<()> {
        self.file.write_all(text.as_bytes())?;
        self.file.persist(&self.path).map(|_| ()).map_err(|error| error.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stands_there_before_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("result");
        drop(OutputFile::reserve(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let output = OutputFile::reserve(&path).unwrap();
        assert!(!path.exists());
        output.write("text").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        OutputFile::reserve(&path).unwrap().write("other").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "other");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(OutputFile::reserve(dir.path()).is_err());
        assert!(OutputFile::reserve(&dir.path().join("no/such/dir")).is_err());
        assert!(OutputFile::reserve(Path::new("/dev/null")).is_err());
        assert!(OutputFile::reserve(Path::new("/")).is_err());
        assert!(OutputFile::reserve(Path::new("")).is_err());
    }

    #[test]
    fn a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        OutputFile::reserve(&link).unwrap().write("new").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
