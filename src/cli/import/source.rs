//! Where the lines come from: something that can be read several times.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use super::cargo_metadata;
use crate::{
    cli::args::Format,
    error::{ClusterError, ErrorCode},
    limits::IMPORT_LINE_BYTES_MAX as LINE_BYTES_MAX,
};

/// A file of lines. What came from elsewhere is in a temporary one.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
    name: String,
}

impl Source {
    pub(super) fn open(path: &Path, format: Format) -> Result<Self, ClusterError> {
        let name =
            if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        let failed = |error| unreadable(&name, &error);
        let file = match path == Path::new("-") {
            true => spool(&mut io::stdin().lock()).map_err(failed)?,
            false => File::open(path).map_err(failed)?,
        };
        if !file.metadata().map_err(failed)?.is_file() {
            // A pipe or a device: read once, like standard input.
            let file = spool(&mut &file).map_err(failed)?;
            return Self { file, name }.converted(format);
        }
        Self { file, name }.converted(format)
    }

    pub(super) fn of_text(text: &str) -> Result<Self, ClusterError> {
        let name = "a temporary file".to_owned();
        let file = spool(&mut text.as_bytes()).map_err(|error| unreadable(&name, &error))?;
        Ok(Self { file, name })
    }

    fn converted(self, format: Format) -> Result<Self, ClusterError> {
        match format {
            Format::Graph => Ok(self),
            Format::CargoMetadata => {
                let mut text = String::new();
                let mut file = &self.file;
                file.read_to_string(&mut text).map_err(|error| {
                    if error.kind() == io::ErrorKind::InvalidData {
                        let what = format!("{}: the text is not UTF-8", self.name);
                        return ClusterError::new(ErrorCode::MalformedValue, what);
                    }
                    unreadable(&self.name, &error)
                })?;
                Self::of_text(&cargo_metadata::to_lines(&text)?)
            }
        }
    }

    /// Reads from the beginning. One reader at a time: they share the file's position.
    pub(super) fn reader(&self) -> Result<Lines<'_>, ClusterError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(|error| unreadable(&self.name, &error))?;
        Ok(Lines { reader: BufReader::with_capacity(1 << 16, file), name: &self.name, number: 0 })
    }
}

/// The lines of a source.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    reader: BufReader<&'a File>,
    name: &'a str,
    number: u64,
}

impl Lines<'_> {
    /// Reads the next line into `text`; `false` at the end.
    pub(super) fn next_line(&mut self, text: &mut String) -> Result<bool, ClusterError> {
        text.clear();
        self.number += 1;
        let count = (&mut self.reader)
            .take(LINE_BYTES_MAX)
            .read_line(text)
            .map_err(|error| unreadable_line(self.number, self.name, &error))?;
        if count as u64 == LINE_BYTES_MAX {
            let what = format!("line {}: longer than {LINE_BYTES_MAX} bytes", self.number);
            return Err(ClusterError::new(ErrorCode::TooLarge, what));
        }
        Ok(count > 0)
    }
}

fn spool(from: &mut impl Read) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    io::copy(from, &mut file)?;
    file.flush()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn unreadable_line(number: u64, name: &str, error: &io::Error) -> ClusterError {
    if error.kind() == io::ErrorKind::InvalidData {
        return ClusterError::new(ErrorCode::MalformedValue, format!("line {number}: the text is not UTF-8"));
    }
    unreadable(&format!("line {number} of {name}"), error)
}

fn unreadable(name: &str, error: &io::Error) -> ClusterError {
    ClusterError::new(ErrorCode::File, format!("cannot read {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_can_be_read_again() {
        let source = Source::of_text("a\nb").unwrap();
        for _ in 0..2 {
            let (mut reader, mut text, mut lines) = (source.reader().unwrap(), String::new(), Vec::new());
            while reader.next_line(&mut text).unwrap() {
                lines.push(text.trim_end().to_owned());
            }
            assert_eq!(lines, ["a", "b"]);
        }
    }

    #[test]
    fn what_is_not_utf_8_is_malformed() {
        let mut bytes = tempfile::NamedTempFile::new().unwrap();
        bytes.write_all(b"{}\n\xff\n").unwrap();
        let source = Source::open(bytes.path(), Format::Graph).unwrap();
        let (mut reader, mut text) = (source.reader().unwrap(), String::new());
        assert!(reader.next_line(&mut text).unwrap());
        let error = reader.next_line(&mut text).unwrap_err();
        assert_eq!(
            (error.code(), error.what().as_str()),
            (ErrorCode::MalformedValue, "line 2: the text is not UTF-8")
        );
        let error = Source::open(bytes.path(), Format::CargoMetadata).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MalformedValue);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Source::open(Path::new("/nonexistent/graph.jsonl"), Format::Graph).unwrap_err();
        assert_eq!(error.code(), ErrorCode::File);
        assert!(error.what().contains("/nonexistent/graph.jsonl"), "{error}");
    }
}
