//! Properties: names and values as YCSB takes them, from files in Java's syntax (comments, continuations, escapes) and
//! from `-p name=value`. The last word on a name counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use super::error::{Result, YcsbError};

/// Names with their values, and where each came from.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    values: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug)]
struct Setting {
    value: String,
    origin: String,
}

impl Properties {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Properties::default()
    }

    /// Takes those of a file in Java's syntax, read as ISO 8859-1 as Java does.
    ///
    /// # Errors
    ///
    /// [`YcsbError::PropertiesFile`].
    pub fn read_file(&mut self, path: &Path) -> Result<()> {
        let failed = |problem: String| YcsbError::PropertiesFile { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        // A blank before the first line changes nothing, and keeps the decoder from taking that for the beginning of a
        // byte order mark: of a file that ends there it panics.
        let bytes = b" ".chain(BufReader::new(file));
        let read = java_properties::read(bytes).map_err(|error| failed(error.to_string()))?;
        for (name, value) in read {
            self.set(&name, &value, &path.display().to_string());
        }
        Ok(())
    }

    /// Sets one. `origin` is what messages call its place.
    pub fn set(&mut self, name: &str, value: &str, origin: &str) {
        let setting = Setting { value: value.trim().to_owned(), origin: origin.to_owned() };
        #[cfg(mapfall_canary)] // a planted bug: the first word on a name counts
        if crate::canary::planted("ycsb_properties") && self.values.contains_key(name) {
            return;
        }
        self.values.insert(name.to_owned(), setting);
    }

    /// Takes `name=value`, as behind `-p`.
    ///
    /// # Errors
    ///
    /// [`YcsbError::Unusable`] without an equals sign or a name.
    pub fn set_pair(&mut self, pair: &str) -> Result<()> {
        match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                self.set(name.trim(), value, "-p");
                Ok(())
            }
            _ => Err(YcsbError::Unusable(format!("-p: expected name=value, found {pair:?}"))),
        }
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|setting| setting.value.as_str())
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, setting)| (name.as_str(), setting.value.as_str()))
    }

    pub(super) fn origin(&self, name: &str) -> String {
        self.values.get(name).map_or_else(|| "-p".to_owned(), |setting| setting.origin.clone())
    }

    /// The value of a name where it has one, which must be what is expected.
    pub(super) fn parse<T: FromStr>(
        &self,
        name: &'static str,
        expected: &'static str,
        holds: impl Fn(&T) -> bool,
    ) -> Result<Option<T>> {
        let Some(found) = self.get(name) else { return Ok(None) };
        let value = found.parse().ok().filter(holds);
        let wrong = || YcsbError::Value { name, expected, found: found.to_owned(), origin: self.origin(name) };
        value.map(Some).ok_or_else(wrong)
    }

    /// One of a few words, in any case.
    pub(super) fn one_of<T: Copy>(
        &self,
        name: &'static str,
        expected: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>> {
        let Some(found) = self.get(name) else { return Ok(None) };
        let known = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(found)).map(|(_, value)| *value);
        let wrong = || YcsbError::Value { name, expected, found: found.to_owned(), origin: self.origin(name) };
        known.map(Some).ok_or_else(wrong)
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>> {
        self.one_of(name, "true or false", &[("true", true), ("false", false)])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_java_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workload");
        let text = "# a comment\n! another\n\nrecordcount=1000\n  operationcount : 5\nfieldcount 3\n\
                    workload = \\\n    site.ycsb.\\\n    workloads.CoreWorkload\ntab\\u0065l=x\\ty\n\
                    recordcount=2000\nempty\n";
        std::fs::write(&path, text).unwrap();
        let mut properties = Properties::new();
        properties.read_file(&path).unwrap();
        let found: Vec<_> = properties.iter().collect();
        let expected = [
            ("empty", ""),
            ("fieldcount", "3"),
            ("operationcount", "5"),
            ("recordcount", "2000"),
            ("tabel", "x\ty"),
            ("workload", "site.ycsb.workloads.CoreWorkload"),
        ];
        assert_eq!(found, expected);
        properties.set_pair("recordcount=7").unwrap();
        assert_eq!((properties.get("recordcount"), properties.origin("recordcount").as_str()), (Some("7"), "-p"));
        assert_eq!(properties.origin("fieldcount"), path.display().to_string());
    }

    /// Half of a byte order mark made the decoder panic.
    #[test]
    fn a_file_is_not_taken_for_another_encoding() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workload");
        for (bytes, name) in
            [(&b"\xff"[..], "\u{ff}"), (b"\xef\xbb", "\u{ef}\u{bb}"), (b"\xfe\xffa=1", "\u{fe}\u{ff}a")]
        {
            std::fs::write(&path, bytes).unwrap();
            let mut properties = Properties::new();
            properties.read_file(&path).unwrap();
            assert!(properties.get(name).is_some(), "{properties:?}");
        }
    }

    #[test]
    fn what_is_none_is_an_error() {
        let mut properties = Properties::new();
        assert!(properties.set_pair("recordcount").is_err());
        assert!(properties.set_pair("=5").is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("workload");
        assert!(properties.read_file(&path).unwrap_err().to_string().contains("workload: "));
        std::fs::write(&path, "a=\\u12zz\n").unwrap();
        assert!(matches!(properties.read_file(&path), Err(YcsbError::PropertiesFile { .. })));
    }
}
